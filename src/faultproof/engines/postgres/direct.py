"""Connections of our own, on which our statements go straight to libpq: a round trip is one write, and all is prepared.

psycopg's cursors are made for any statement of anybody's. In a pipeline each is a write of its own and asks twice whether
the socket is ready, and its types are chosen by its values: together more than half of what a transaction of five statements
costs its client.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from faultproof.ports.statement import Answer

PREPARED_MAX = 500
"""Statements that one connection keeps prepared; any others are parsed each time."""
_FORGETS = re.compile("DROP|ALTER|ROLLBACK|DISCARD|DEALLOCATE")
"""What psycopg forgets its prepared statements after, some time later, and has the server forget ours too."""


class Reply(NamedTuple):
    """What the server said to one command."""

    answer: Answer
    status: str | None


class Exchange(NamedTuple):
    """What became of several: their replies, up to the first that was refused."""

    replies: list[Reply]
    refused: psycopg.Error | None


class Direct(psycopg.AsyncConnection[Any]):
    """A connection on which psycopg itself runs nothing but users' SQL."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._names: dict[bytes, bytes] = {}  # bounded: PREPARED_MAX
        self._named = 0
        self.is_settled = True
        """No: what is prepared may be gone any time. Nothing is relied upon until `settle`."""

    async def exchange(self, statements: Sequence[tuple[bytes, Sequence[Any]]], *, prepare: bool) -> Exchange:
        """Run statements with their values in one round trip. The server skips those behind one that it refuses. Raises
        psycopg's error where the connection was lost."""
        encoding = self.info.encoding
        encoded = [(text, [_encoded(value, encoding) for value in values]) for text, values in statements]
        results = await self.wait(self._pipelined(encoded, prepare and self.is_settled))
        replies: list[Reply] = []
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                return Exchange(replies, error_from_result(result, encoding=encoding))
            replies.append(self._reply(result))
        return Exchange(replies, None)

    def noticed(self, status: str | None) -> None:
        """psycopg has run something of the user's, and the server answered with this."""
        if status is not None and _FORGETS.match(status):
            self.is_settled = False

    async def settle(self) -> bool:
        """Between transactions: let psycopg do what it has put off, and begin anew. False: the connection is lost."""
        if not self.is_settled:
            self._names.clear()
            try:
                await self.execute(b"DEALLOCATE ALL", prepare=False)
            except psycopg.Error:
                return False
            self.is_settled = True
        return True

    def _pipelined(
        self, statements: Sequence[tuple[bytes, list[bytes | None]]], prepare: bool
    ) -> PQGen[list[PGresult]]:
        """The results of the statements, up to the first that was refused."""
        pgconn, fresh = self.pgconn, list[bytes | None]()  # of each answer that is expected: what it prepares
        pgconn.enter_pipeline_mode()
        for text, values in statements:
            if prepare and text not in self._names and len(self._names) < PREPARED_MAX:
                self._named += 1
                self._names[text] = b"faultproof_%d" % self._named
                pgconn.send_prepare(self._names[text], text)
                fresh.append(text)
            if prepare and text in self._names:
                pgconn.send_query_prepared(self._names[text], values)
            else:
                pgconn.send_query_params(text, values)
            fresh.append(None)
        pgconn.pipeline_sync()
        yield from generators.send(pgconn)
        results: list[PGresult] = []
        refused = False
        try:
            for prepared in fresh:
                (result,) = yield from generators.fetch_many(pgconn)
                failed = result.status == ExecStatus.FATAL_ERROR
                if not refused and (failed or prepared is None):
                    results.append(result)
                refused |= failed
                if refused and prepared is not None:
                    del self._names[prepared]
            yield from generators.fetch_many(pgconn)  # the end of the pipeline
            pgconn.exit_pipeline_mode()
        except psycopg.OperationalError:
            if not refused:  # or the server has said why it hangs up
                raise
        return results

    def _reply(self, result: PGresult) -> Reply:
        status = result.command_status
        rows: Sequence[tuple[Any, ...]] = ()
        if result.status == ExecStatus.TUPLES_OK:
            reader = Transformer(self)
            reader.set_pgresult(result)
            rows = reader.load_rows(0, result.ntuples, tuple)
        changed = result.command_tuples
        return Reply(Answer(rows, -1 if changed is None else changed), None if status is None else status.decode())


def _encoded(value: Any, encoding: str) -> bytes | None:
    """A value as text; the statement says of which type it is."""
    if type(value) is str:
        return value.encode(encoding)
    if value is None:
        return None
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    return str(value).encode(encoding)
