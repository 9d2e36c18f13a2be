"""An address that the live world gives to its processes, for a driver that does not read libpq's parameters."""

from __future__ import annotations

from urllib.parse import quote

_SCHEMA = "-csearch_path="


def for_asyncpg(url: str) -> tuple[str, dict[str, str]]:
    """The address as asyncpg reads it, and the settings of a session that it asks for: a schema, or none.

    Any other than `postgresql:///?host=…&options=-csearch_path=…` is left as it is.
    """
    if not url.startswith("postgresql:///?"):
        return url, {}
    from psycopg.conninfo import conninfo_to_dict

    found = conninfo_to_dict(url)
    user, password, database = (quote(str(found[each]), safe="") for each in ("user", "password", "dbname"))
    schema = str(found["options"]).rpartition(_SCHEMA)[2].split(maxsplit=1)[0]
    return f"postgresql://{user}:{password}@{found['host']}:{found['port']}/{database}", {"search_path": schema}
