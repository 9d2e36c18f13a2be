"""The world of a mutant: statements are changed or left out on their way to the database, and transactions are cut in two
or answered before they are committed. Everything else is as in any simulated world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, Protocol, TypeVar

from faultproof.errors import FaultproofError
from faultproof.ports.script import (
    Begin,
    Call,
    Commit,
    Later,
    Release,
    Rollback,
    RollbackTo,
    Savepoint,
    Script,
    Step,
)
from faultproof.ports.statement import NOTHING, Answer, Statement
from faultproof.prove.rewriting import nothing_done, statement_of
from faultproof.prove.simulated.faults import COMMITTING, INSIDE, WHOLE
from faultproof.prove.simulated.lanes import NestedConnection, SimLane, Store
from faultproof.prove.simulated.process import Process

T = TypeVar("T")


class Mutation(Protocol):
    """What is changed about the scripts that a world runs."""

    def rewrite(self, call: Call) -> Call | None:
        """What is executed instead; None: nothing."""
        ...

    def cuts(self, before: Statement, after: Statement) -> bool:
        """Whether the transaction in which one statement follows the other is committed between them."""
        ...

    def answers_early(self, last: Statement) -> bool:
        """Whether a transaction whose last statement this is has its result before it is committed."""
        ...


class Difference:
    """Whether a mutation has changed anything at all, in any run so far."""

    def __init__(self) -> None:
        self.made = False

    @contextmanager
    def unobserved(self) -> Iterator[None]:
        """Inside, nobody looks: to look takes as much work as the statements themselves."""
        made, self.made = self.made, True
        try:
            yield
        finally:
            self.made = made


class MutatedConnection(NestedConnection):
    """Executes what the mutation leaves of each statement."""

    mutation: Mutation
    difference: Difference

    def _call(self, call: Call) -> Answer:
        instead = self.mutation.rewrite(call)
        if instead is call or self.difference.made:
            return self._instead(call, instead)
        usual = self._as_usual(call)
        try:
            answer = self._instead(call, instead)
        except FaultproofError:
            self.difference.made = usual is not None
            raise
        self.difference.made = usual is None or not _same(call.statement, usual, answer)
        return answer

    def _instead(self, call: Call, instead: Call | None) -> Answer:
        return nothing_done(call.statement) if instead is None else super()._call(instead)

    def _as_usual(self, call: Call) -> Answer | None:
        """What the statement itself would have answered here; None: it would have failed."""
        self.raw.execute("SAVEPOINT usual")
        try:
            return super()._call(call)
        except FaultproofError:
            return None
        finally:
            self.raw.execute("ROLLBACK TO usual")
            self.raw.execute("RELEASE usual")

    def _later(self, step: Later) -> Answer:
        # Nobody waits for this answer, so that a statement and its check are left out together: a guard that is not
        # there refuses nobody.
        if step.refuses and self.mutation.rewrite(step.call) is None:
            return NOTHING
        return super()._later(step)


def _same(statement: Statement, usual: Answer, answer: Answer) -> bool:
    """In any order: where the order matters the statement asks for it, and the mutant as well."""
    if sorted(map(repr, usual.rows)) != sorted(map(repr, answer.rows)):
        return False
    return statement.reads or usual.changed == answer.changed


AFTER_CUT = "goes on after a commit"
BEHIND_ANSWER = "commit behind the answer"
_BEHIND_S = 0.001
"""Long enough for whoever has the answer to tell others of it."""


class _Cut(NamedTuple):
    """The transaction was committed before this step, which has not been executed."""

    step: Step


class MutatedLane(SimLane):
    """Commits in the middle of transactions, or behind their answers, where the mutation says so."""

    def __init__(
        self, process: Process, store: Store, role: str, *, mutation: Mutation, difference: Difference
    ) -> None:
        super().__init__(process, store, role)
        self._mutation = mutation
        self._difference = difference
        self._execute = self._executor()
        self._last: Statement | None = None
        """Executed in the open transaction."""
        self._savepoints = 0

    async def _drive(self, script: Script[T]) -> T:
        if self.role == "reader":
            return await super()._drive(script)
        is_inside = self._is_inside()
        step = next(script)  # a script that yields nothing is not one
        if not is_inside:
            ended = await self._operate(self.role, lambda: self._run(script, step), WHOLE)
        elif type(step) is Commit or type(step) is Rollback:
            kinds = COMMITTING if type(step) is Commit else INSIDE
            ended = await self._operate(type(step).__name__, lambda: self._run(script, step), kinds)
        else:
            ended = self._run(script, step)
        while isinstance(ended, _Cut):
            ended = await self._after_cut(script, ended.step)
        return ended

    async def _after_cut(self, script: Script[T], step: Step) -> T | _Cut:
        def again() -> T | _Cut:
            self._execute(Begin(writes=True))
            for _ in range(self._savepoints):
                self._execute(Savepoint())
            self._last = None
            return self._run(script, step)

        world = self.process.world
        ended: T | _Cut = await world.operate(self.process, self, AFTER_CUT, again, lambda: self._store.free_for(self))
        return ended

    def _run(self, script: Script[T], step: Step) -> T | _Cut:
        """To its end, or to where its transaction is cut."""
        try:
            while True:
                if self._is_cut_before(step):
                    self._difference.made = True
                    self._execute(Commit())
                    return _Cut(step)
                try:
                    answer = self._step(step)
                except Exception as error:
                    step = script.throw(error)
                else:
                    step = script.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _is_cut_before(self, step: Step) -> bool:
        after = statement_of(step)
        return after is not None and self._last is not None and self._mutation.cuts(self._last, after)

    def _step(self, step: Step) -> Answer:
        if type(step) is Commit and self._last is not None and self._mutation.answers_early(self._last):
            self._commit_later()
            return NOTHING
        answer = self._execute(step)
        if type(step) is Begin:
            self._last, self._savepoints = None, 0
        elif type(step) is Savepoint:
            self._savepoints += 1
        elif type(step) is Release or type(step) is RollbackTo:
            self._savepoints -= 1
        else:
            self._last = statement_of(step) or self._last
        return answer

    def _commit_later(self) -> None:
        """An operation of its own, before which its process may die. Until then the lock is held."""

        process = self.process
        told = process.notes

        def commit() -> None:
            # Who has told nobody of its answer when it dies might as well have died before.
            self._difference.made = self._difference.made or process.notes != told
            with suppress(FaultproofError):  # there is nobody left to tell
                topics = self._execute(Commit()).rows
                process.wakeups.send(topic for (topic,) in topics)

        self._last = None
        process.world.operate(process, self, BEHIND_ANSWER, commit, after_s=_BEHIND_S)


Laying = Callable[[Process, Store, str], SimLane]
"""How a world makes its processes' lanes."""


def laid(mutation: Mutation, difference: Difference) -> Laying:
    """Lanes of that mutant's world."""

    def lane(process: Process, store: Store, role: str) -> SimLane:
        return MutatedLane(process, store, role, mutation=mutation, difference=difference)

    return lane


def connected(mutation: Mutation, difference: Difference) -> type[NestedConnection]:
    """The connection of that mutant's world."""
    return type("Mutated", (MutatedConnection,), {"mutation": mutation, "difference": difference})
