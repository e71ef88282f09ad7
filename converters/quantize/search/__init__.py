"""Finds the cheapest mixed precision plan inside an error budget, by measuring."""
