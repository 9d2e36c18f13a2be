"""The prover: one proof, tried in several worlds; `proof.py` says what a proof is."""
