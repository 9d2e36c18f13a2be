"""The reference shop: it takes orders on real processes, is killed again and again, and audits itself.

Read `run.py` first; `api.py`, `orders.py` and `effects.py` are what a service written with faultproof looks like.
"""
