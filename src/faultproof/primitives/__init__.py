"""What several patterns are made of, on top of the ports and of nothing else."""
