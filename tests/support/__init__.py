"""Models, data and made-up fits that several tests share."""
