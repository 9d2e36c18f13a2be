"""PostgreSQL 15 and newer, through psycopg 3."""

from faultproof.engines.postgres.open import CAPABILITIES, open_database

__all__ = ["CAPABILITIES", "open_database"]
