"""Feature flags: what is on, and for which share of whom, changed without a restart and seen by every process.

Flags are declared in the code, each with what it is until somebody says otherwise; a file (`flag_file.py`) or a table
(`flag_table.py`) says otherwise. Promise:

- Reading a flag is reading an attribute: no lock, no file, no database.
- A change is seen by every process that has the flags open within one `look` of the source, and where the source tells of
  changes (a table does) at once, as soon as the event loop gets to it.
- A flag always has a value that it can have. What cannot be read, or is of another kind, is told once
  (`faultproof.flags.stale`, `Flags.errors`), and the last good value counts; at the start it is an error.
- A share holds for the same keys in every process and after every restart, and a larger one holds for all of a smaller one's.

Proof: `faultproof.patterns.shadow.proof:FLAGS`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Protocol, TypeAlias

from faultproof import bounds
from faultproof.clock import Env
from faultproof.errors import InvalidInput, Misuse
from faultproof.ports.database import News
from faultproof.signals import FLAG_CHANGED, FLAGS_STALE

Value: TypeAlias = bool | float | str
Declared: TypeAlias = bool | float | tuple[str, ...]
"""A switch, a share from 0 to 1, or the variants of which one holds, the first to begin with."""

_logger = logging.getLogger("faultproof")
_KEYS = 1 << 64


class FeatureFlag:
    """One flag, as of the last look. From any thread.

    ::

        if flag.is_on: …                  # a switch, or a share above 0
        if flag.holds(customer): …        # for this one of them
        if flag.value == "new": …         # a variant
    """

    __slots__ = ("_declared", "_listeners", "_prefix", "is_on", "name", "share", "value")

    def __init__(self, name: str, declared: Declared) -> None:
        self.name = bounds.name("a flag", name)
        self._declared = declared
        self._prefix = name.encode() + b"/"  # two flags with one share do not hold for the same ones
        self._listeners: dict[int, Callable[[], object]] = {}
        if isinstance(declared, tuple) and not declared:
            raise InvalidInput(f"the flag {name!r} has no variants: name the one that holds first")
        self.value: Value
        """What holds."""
        self.is_on: bool
        """Whether a switch is on, or a share more than none. A variant always is."""
        self.share: float
        """Of whom it holds: of a switch all or none, of a variant all."""
        self._take(self.checked(declared[0] if isinstance(declared, tuple) else declared))

    def holds(self, key: str) -> bool:
        """Whether it holds for this one: with a share, always the same ones of all there are."""
        share = self.share
        if share >= 1.0 or share <= 0.0:
            return share >= 1.0
        digest = hashlib.blake2b(self._prefix + key.encode(), digest_size=8).digest()
        return int.from_bytes(digest) < share * _KEYS

    def set(self, value: Value) -> bool:
        """From now on, in this process, and until the source of its flags changes: whether that is a change. Raises
        `InvalidInput` for a value that it cannot have."""
        value = self.checked(value)
        if value == self.value:
            return False
        self._take(value)
        for listener in list(self._listeners.values()):
            try:
                listener()
            except Exception:
                _logger.exception("who was told of the flag %s failed", self.name)
        return True

    def subscribe(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call `listener` after each change, in the thread that makes it; what is returned ends that."""
        self._listeners[id(listener)] = listener
        return lambda: _void(self._listeners.pop(id(listener), None))

    def checked(self, value: object) -> Value:
        """The value as it is kept. Raises `InvalidInput` if it cannot have it."""
        declared, what = self._declared, f"the flag {self.name!r}"
        if isinstance(declared, tuple):
            if isinstance(value, str) and value in declared:
                return value
            raise InvalidInput(f"{what} is one of {', '.join(declared)}, got {bounds.short(value)}")
        if isinstance(declared, bool):
            if isinstance(value, bool):
                return value
            raise InvalidInput(f"{what} is true or false, got {bounds.short(value)}")
        if isinstance(value, int | float) and 0 <= value <= 1:  # also true and false, which mean all and none
            return float(value)
        raise InvalidInput(f"{what} is a share from 0 to 1, got {bounds.short(value)}")

    def _take(self, value: Value) -> None:
        self.share = 1.0 if isinstance(value, str) else float(value)
        self.is_on = self.share > 0
        self.value = value


def _void(_: object) -> None:
    """Nothing of it is wanted."""


class FlagSource(Protocol):
    """Where flags are said."""

    @property
    def look(self) -> float:
        """Seconds between two looks where nobody tells."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether names that are declared nowhere here are others' affair, and no mistake."""
        ...

    def news(self) -> News | None:
        """Tells of changes; None where nothing does."""
        ...

    async def read(self) -> Mapping[str, object] | None:
        """What is said, by name; None if that is as it was. Raises what keeps it from knowing."""
        ...


class Flags:
    """The flags of a process.

    ::

        flags = fp.Flags({"pricing.shadow": False, "pricing.share": 0.05, "page": ("old", "new")}, fp.FlagFile("flags.toml"))
        async with flags:
            flags["pricing.shadow"].is_on

    A flag of which the source says nothing has its declared value. `open` raises what keeps the source from being read, and
    `InvalidInput` for a value that a flag cannot have; afterwards nothing of that kind reaches anybody but by `errors` and the
    signal. Proof: `faultproof.patterns.shadow.proof:FLAGS`.
    """

    def __init__(self, declared: Mapping[str, Declared], source: FlagSource, *, env: Env | None = None) -> None:
        self._env = env or Env()
        self._source = source
        self._declared = dict(declared)
        self._flags = {name: FeatureFlag(name, value) for name, value in declared.items()}
        self._task: asyncio.Task[None] | None = None
        self.errors: tuple[str, ...] = ()
        """What is wrong with what was last read, or kept it from being read; nothing when all is well."""

    def __getitem__(self, name: str) -> FeatureFlag:
        try:
            return self._flags[name]
        except KeyError:
            raise InvalidInput(f"there is no flag {name!r}: declared are {', '.join(self._flags) or 'none'}") from None

    def __iter__(self) -> Iterator[FeatureFlag]:
        return iter(self._flags.values())

    async def __aenter__(self) -> Flags:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Read the source, and look after it from now on."""
        if self._task is not None:
            raise Misuse("these flags are open already")
        news = self._source.news()  # before the first look, or what happens between the two is heard of late
        try:
            said = await self._source.read()
            if said is not None and (wrong := self._apply(said)):
                raise InvalidInput("; ".join(wrong))
        except BaseException:
            if news is not None:
                news.close()
            raise
        self._task = asyncio.create_task(self._follow(news), name="faultproof-flags")

    async def close(self) -> None:
        """Look no more. The flags stay as they are."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def look(self) -> None:
        """Look now. Nothing is raised: see `errors`."""
        try:
            said = await self._source.read()
        except Exception as error:
            self._tell((f"{type(error).__name__}: {error}",))
            return
        if said is not None:
            self._tell(tuple(self._apply(said)))

    async def _follow(self, news: News | None) -> None:
        try:
            while True:
                try:
                    if news is None:
                        await self._env.clock.sleep(self._source.look)
                    else:
                        await news.wait(self._source.look)
                except Exception as error:  # who tells is gone; a look is still a look
                    self._tell((f"{type(error).__name__}: {error}",))
                    await self._env.clock.sleep(self._source.look)
                await self.look()
        finally:
            if news is not None:
                news.close()

    def _apply(self, said: Mapping[str, object]) -> list[str]:
        """Take over each value that its flag can have; a sentence for each of the others."""
        wrong = []
        for name, flag in self._flags.items():
            declared = self._declared[name]
            first = declared[0] if isinstance(declared, tuple) else declared
            try:
                has_changed = flag.set(said.get(name, first))  # type: ignore[arg-type]  # is what is checked there
            except InvalidInput as error:
                wrong.append(str(error))
                continue
            if has_changed:
                self._env.signals.emit(FLAG_CHANGED, 1, flag=name)
        if not self._source.is_shared and (unknown := sorted(said.keys() - self._flags.keys())):
            wrong.append(f"no flag is named {', '.join(unknown[:5])}: declared are {', '.join(self._flags) or 'none'}")
        return wrong

    def _tell(self, errors: tuple[str, ...]) -> None:
        if errors and errors != self.errors:  # once, and not at every look
            self._env.signals.emit(FLAGS_STALE, len(errors), error=errors[0][:200])
        self.errors = errors
