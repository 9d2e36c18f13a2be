"""Where a server is: its address, a name for it that is fit for messages, and what is said when it cannot be had."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

from faultproof.errors import InvalidInput, TryAgain

# Nobody waits for ever for a server that is gone; an address that says otherwise is obeyed.
_NETWORK = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "tcp_user_timeout": 20_000}
_QUOTED = re.compile(r"\"[^\"]*\"")
_FATAL = re.compile(r"(?:FATAL|ERROR|PANIC):\s+(.*)")
_REASON = re.compile(r".*failed: (.*)")


class Address(NamedTuple):
    """Where a server is, and how to reach it. Never shown whole: `options` may hold the password."""

    options: dict[str, Any]
    name: str
    """For messages: database, host and port, and nothing of user or password."""

    def __repr__(self) -> str:
        return f"Address({self.name!r})"


def address_of(url: str) -> Address:
    """Read `postgresql://user:password@host:port/database?sslmode=…`; what is left out is libpq's to find (PGHOST …).

    Raises `InvalidInput`, with nothing of the URL in the message: any part of it may be a piece of the password.
    """
    rest = url.partition("://")[2]
    credentials, at, elsewhere = rest.partition("@")
    if "@" in elsewhere or (at and re.search(r"[/?#]", credentials)):
        raise InvalidInput(
            "that is not a PostgreSQL URL: in user, password and database write @ as %40, / as %2F, ? as %3F and # as %23"
        )
    try:
        return described(conninfo_to_dict(url))
    except psycopg.Error as error:
        raise InvalidInput(f"that is not a PostgreSQL URL: {_QUOTED.sub('…', str(error)).strip()}") from None


def described(options: dict[str, Any]) -> Address:
    """An address by its options."""
    known = {
        option.keyword.decode(): option.val.decode() for option in psycopg.pq.Conninfo.get_defaults() if option.val
    } | {name: str(value) for name, value in options.items()}
    host = known.get("host") or known.get("hostaddr") or "this machine"
    port = f":{known['port']}" if "port" in known else ""
    database = known.get("dbname") or known.get("user", "")
    return Address({**_NETWORK, **options}, f"the database {database} on {host}{port}")


def without_password(error: psycopg.Error) -> psycopg.Error:
    """As the cause of what is raised: where no connection was made, psycopg's own error holds the address, password
    and all, and whoever collects errors with their attributes would store it."""
    return type(error)(str(error))


def cannot_reach(address: Address, error: psycopg.Error) -> TryAgain:
    """No connection could be made: the server's own reason, or the network's."""
    text = str(error)
    if refused := _FATAL.search(text):
        return TryAgain(f"{address.name} refuses the connection: {refused[1]}")
    reason = _REASON.search(text)
    return TryAgain(f"{address.name} cannot be reached: {reason[1] if reason else text.splitlines()[0]}")
