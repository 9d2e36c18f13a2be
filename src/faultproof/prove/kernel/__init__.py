"""The proofs of what every durable pattern stands on: leased work, the sequenced log, and idempotency keys."""
