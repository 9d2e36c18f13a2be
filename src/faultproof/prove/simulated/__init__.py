"""The simulated world: see `faultproof.prove.simulated.world` for how it works."""
