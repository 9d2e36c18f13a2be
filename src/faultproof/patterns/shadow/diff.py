"""Where two answers differ: the places, and never more of the values than was asked for."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from faultproof import bounds
from faultproof.errors import InvalidInput

Kind = Literal["value", "type", "length", "missing", "added", "outcome"]
Path: TypeAlias = tuple[str, ...]

DIFFERENCES_MAX = 100
SHOWN_CHARS_MAX = 100
ANY, EACH = "*", "[*]"
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z_-]{0,38}[0-9]{0,2}")
"""Of a field's name. Other keys are likely to be data: numbers of customers, addresses."""
_STEP = re.compile(r"\.([^.\[\]]+)|\[\*\]")
_KINDS: dict[type, str] = {dict: "object", list: "array", str: "string"}
_NOTHING = object()


class Difference(NamedTuple):
    """Where, and how. The values are those of the answers: `Diff.redacted` before they are kept."""

    path: str
    kind: Kind
    primary: Any
    candidate: Any


class Redacted(NamedTuple):
    """A difference as it is kept: of values the kind, the length and a hash that means nothing elsewhere, or the beginning
    where the path is one of those that may be shown."""

    kind: Kind
    primary: str
    candidate: str


class Diff:
    """How answers are compared: as JSON would write them, place by place, whatever the order of their keys.

    Paths are `$.total`, `$.lines[*].price`, and `*` for any one name. `ignore`: these, and what is below them. `unordered`:
    lists whose order says nothing. `maps`: whose keys are data, so that all their values are one place, `$.users.*.age`; a
    key that does not look like a field's name is taken for one of those anyway. `show`: whose values may be kept. `tolerance`:
    numbers this close, relative to the larger, are equal.
    """

    def __init__(
        self,
        *,
        ignore: Sequence[str] = (),
        unordered: Sequence[str] = (),
        maps: Sequence[str] = (),
        show: Sequence[str] = (),
        tolerance: float = 0.0,
    ) -> None:
        bounds.number("tolerance", tolerance, least=0, most=1)
        self._ignore = _patterns("ignore", ignore)
        self._unordered = _patterns("unordered", unordered)
        self._maps = _patterns("maps", maps)
        self._show = _patterns("show", show)
        self._tolerance = tolerance

    def compare(self, primary: Any, candidate: Any) -> list[Difference]:
        """Where they differ: 100 places at most. Raises `TypeError` for what JSON has no way to write."""
        one, other = _plain(primary), _plain(candidate)
        if msgspec.json.encode(one) == msgspec.json.encode(other):
            return []  # nearly always
        found: list[Difference] = []
        for difference in self._walk((), one, other):
            found.append(difference)
            if len(found) == DIFFERENCES_MAX:
                break
        return found

    def redacted(self, difference: Difference, salt: bytes) -> Redacted:
        """What may be kept of it."""
        show = difference.kind == "outcome" or _matches(self._show, _steps(difference.path))
        return Redacted(
            difference.kind, _words(difference.primary, show, salt), _words(difference.candidate, show, salt)
        )

    def _walk(self, path: Path, one: Any, other: Any) -> Iterator[Difference]:
        if self._ignore and _matches(self._ignore, path):
            return
        if isinstance(one, dict) and isinstance(other, dict):
            yield from self._walk_names(path, one, other)
        elif isinstance(one, list) and isinstance(other, list):
            yield from self._walk_list(path, one, other)
        elif one is _NOTHING or other is _NOTHING:
            missing = other is _NOTHING
            yield Difference(_written(path), "missing" if missing else "added", _given(one), _given(other))
        elif not self._same(one, other):
            yield Difference(_written(path), "value" if _sort(one) is _sort(other) else "type", one, other)

    def _walk_names(self, path: Path, one: dict[str, Any], other: dict[str, Any]) -> Iterator[Difference]:
        is_map = _matches_exactly(self._maps, path)
        for name in dict.fromkeys([*one, *other]):
            step = ANY if is_map or not _PLAIN_KEY.fullmatch(name) else name
            # Whoever is to be ignored by a name that looks like data is known by it here only.
            if step == ANY and _matches(self._ignore, (*path, name)):
                continue
            yield from self._walk((*path, step), one.get(name, _NOTHING), other.get(name, _NOTHING))

    def _walk_list(self, path: Path, one: list[Any], other: list[Any]) -> Iterator[Difference]:
        if len(one) != len(other):
            yield Difference(_written(path), "length", one, other)
            return
        if _matches_exactly(self._unordered, path):
            one, other = sorted(one, key=msgspec.json.encode), sorted(other, key=msgspec.json.encode)
        for each, its in zip(one, other, strict=True):
            yield from self._walk((*path, EACH), each, its)

    def _same(self, one: Any, other: Any) -> bool:
        if _sort(one) is not _sort(other):
            return False
        if isinstance(one, float) or isinstance(other, float):
            return math.isclose(one, other, rel_tol=self._tolerance) or (math.isnan(one) and math.isnan(other))
        if self._tolerance and isinstance(one, int) and not isinstance(one, bool):
            return math.isclose(one, other, rel_tol=self._tolerance)
        return bool(one == other)


def _plain(value: Any) -> Any:
    """As JSON has it; sets in order, because Python's depends on the seed of its hashes."""
    return msgspec.to_builtins(value, str_keys=True, order="deterministic")


def _sort(value: Any) -> type:
    """JSON knows one kind of number, and truth is none."""
    kind = type(value)
    return float if kind is int else kind


def _given(value: Any) -> Any:
    return None if value is _NOTHING else value


def _words(value: Any, show: bool, salt: bytes) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()  # there is nothing in it to hide
    written = msgspec.json.encode(value)
    if show:
        return written[: SHOWN_CHARS_MAX * 4].decode("utf-8", "replace")[:SHOWN_CHARS_MAX]
    digest = hashlib.blake2b(written, digest_size=4, key=salt).hexdigest()
    kind = _KINDS.get(type(value), "number")
    length = f" of {len(value)}" if isinstance(value, dict | list | str) else ""
    return f"{kind}{length} #{digest}"


def _patterns(option: str, paths: Sequence[str]) -> tuple[Path, ...]:
    if isinstance(paths, str):
        raise InvalidInput(f"`{option}` is a list of paths, got {bounds.short(paths)}")
    for path in paths:
        if not str(path).startswith("$") or "".join(_raw_steps(path)) != path[1:]:
            raise InvalidInput(f"`{option}` has paths such as $.lines[*].price, got {bounds.short(path)}")
    return tuple(_steps(path) for path in paths)


def _raw_steps(path: str) -> list[str]:
    return [step.group() for step in _STEP.finditer(path, 1)]


def _steps(path: str) -> Path:
    return tuple(step.lstrip(".") for step in _raw_steps(path))


def _written(path: Path) -> str:
    return "$" + "".join(step if step == EACH else f".{step}" for step in path)


def _matches(patterns: tuple[Path, ...], path: Path) -> bool:
    """Whether it is one of them, or below."""
    return any(len(pattern) <= len(path) and _fits(pattern, path) for pattern in patterns)


def _matches_exactly(patterns: tuple[Path, ...], path: Path) -> bool:
    return any(len(pattern) == len(path) and _fits(pattern, path) for pattern in patterns)


def _fits(pattern: Path, path: Path) -> bool:
    return all(part == step or (part == ANY and step != EACH) for part, step in zip(pattern, path, strict=False))
