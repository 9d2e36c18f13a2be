"""What is measured: one module for each question, the contestants of both engines in it."""
