"""Batch: many small operations for the price of one.

The code is the kernel's own group commit, because every durable pattern is built on it: `primitives/batcher.py` collects
single items into batches for any function, `primitives/group_commit.py` commits them in one transaction. This room holds
what a pattern owes its users: the README and the proof.
"""
