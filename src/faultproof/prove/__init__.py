"""The prover. For now its simulated world: see `faultproof.prove.world` for how it works."""
