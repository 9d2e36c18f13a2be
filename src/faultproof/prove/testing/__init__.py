"""Tests in the simulated world, behind `faultproof.testing`; `world.py` is what a test gets, `campaign.py` what is run."""
