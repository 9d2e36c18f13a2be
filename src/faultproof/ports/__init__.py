"""The narrow promises that patterns rely on and engines keep: one file each, no code that talks to anything."""
