"""Doses, infusions, resets, steady states and covariates: their tables, and a solve in pieces between them."""
