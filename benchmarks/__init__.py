"""Figures: what faultproof costs, beside doing it by hand, in one run."""
