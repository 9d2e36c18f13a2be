"""The patterns: one room each, all with the same furniture."""
