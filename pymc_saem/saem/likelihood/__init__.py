"""The marginal likelihood of each subject, by each method, and the information criteria."""
