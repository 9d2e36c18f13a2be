"""Mutants: a proof's scripts with one thing left out, each of which the proof must notice."""
