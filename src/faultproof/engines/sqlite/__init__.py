"""SQLite, through the standard library's `sqlite3`, on a thread of our own."""

from faultproof.engines.sqlite.open import CAPABILITIES, open_database

__all__ = ["CAPABILITIES", "open_database"]
