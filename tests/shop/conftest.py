"""The shop gets real files."""

from tests.files import connect, db, path

__all__ = ["connect", "db", "path"]
