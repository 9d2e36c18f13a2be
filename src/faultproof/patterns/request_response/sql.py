"""What a server remembers of each session: the last request that it took, and whether it is answered."""

from __future__ import annotations

from typing import NamedTuple

from faultproof.ports.schema import Schema
from faultproof.ports.script import sql
from faultproof.ports.statement import Changed

SCHEMA = Schema(
    name="request_response",
    versions=[
        [
            """CREATE TABLE IF NOT EXISTS faultproof_session (
                 scope TEXT NOT NULL, session TEXT NOT NULL, last BIGINT NOT NULL, until_us BIGINT NOT NULL,
                 at_us BIGINT NOT NULL, PRIMARY KEY (scope, session)){updated}""",
            "CREATE INDEX IF NOT EXISTS faultproof_session_at ON faultproof_session (scope, at_us)",
        ]
    ],
    works_from=1,
    works_to=1,
)
"""`until_us`: the end of the lease of a request that is being worked on; 1 of one that was given back, 0 of an answered one."""


class Last(NamedTuple):
    """The last request of a session that was taken."""

    number: int
    until_us: int
    left_us: int
    """Until its lease ends."""

    @property
    def is_answered(self) -> bool:
        return self.until_us == 0


@sql(
    """INSERT INTO faultproof_session (scope, session, last, until_us, at_us)
       VALUES (:scope, :session, :number, {now} + :ttl_us, {now})
       ON CONFLICT (scope, session) DO UPDATE SET last = excluded.last, until_us = excluded.until_us, at_us = excluded.at_us
         WHERE faultproof_session.until_us <= {now} AND (faultproof_session.last < excluded.last
           OR (faultproof_session.last = excluded.last AND faultproof_session.until_us > 0))
       RETURNING last"""
)
def take(scope: str, session: str, number: int, ttl_us: int) -> int | None:
    """The number, if it is this request's turn."""


@sql("SELECT last, until_us, until_us - {now} FROM faultproof_session WHERE scope = :scope AND session = :session")
def last(scope: str, session: str) -> Last | None: ...


@sql(
    """UPDATE faultproof_session SET until_us = 0, at_us = {now}
       WHERE scope = :scope AND session = :session AND last = :number"""
)
def answered(scope: str, session: str, number: int) -> Changed: ...


@sql(
    """UPDATE faultproof_session SET until_us = 1
       WHERE scope = :scope AND session = :session AND last = :number"""
)
def give_back(scope: str, session: str, number: int) -> Changed: ...


@sql(
    """DELETE FROM faultproof_session WHERE scope = :scope AND session IN (
         SELECT session FROM faultproof_session
         WHERE scope = :scope AND at_us <= {now} - :older_us AND until_us <= {now} ORDER BY at_us LIMIT :limit)"""
)
def trim(scope: str, older_us: int, limit: int) -> Changed: ...
