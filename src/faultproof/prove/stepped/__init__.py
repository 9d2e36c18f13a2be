"""The stepped world: real PostgreSQL sessions, one statement at a time, through every interleaving."""
