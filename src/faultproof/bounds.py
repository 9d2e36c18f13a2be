"""What an option in seconds, a count or a name may be: of the right kind, and one that somebody can have meant.

Infinity and NaN pass every comparison that forgets them, and fail much later: in a conversion to microseconds, or in an
event loop whose timers are no longer in order. Whoever means "for ever" writes a number of years.
"""

from __future__ import annotations

from faultproof.errors import InvalidInput

SECONDS_MAX = 315_360_000.0
"""Ten years."""
MICROSECOND_S = 0.000_001
"""Durable times are stored in these: a shorter one would be none."""
COUNT_MAX = 1_000_000
"""What one transaction, or the memory of one process, may have to carry."""
NAME_BYTES_MAX = 100


def seconds(option: str, value: float, *, least: float = MICROSECOND_S) -> None:
    """Refuse what is no time, below `least`, or above ten years. Raises `InvalidInput` that names the option."""
    _number(option, value, least, SECONDS_MAX, (int, float), "a number of seconds")


def number(option: str, value: float, *, least: float, most: float) -> None:
    """Refuse what is no finite number, or outside of the bounds. Raises `InvalidInput` that names the option."""
    _number(option, value, least, most, (int, float), "a number")


def count(option: str, value: int, *, least: int = 1, most: int = COUNT_MAX) -> None:
    """Refuse what is no whole number, or outside of the bounds. Raises `InvalidInput` that names the option."""
    _number(option, value, least, most, (int,), "a whole number")


def name(what: str, value: object, *, hint: str = "") -> str:
    """The name; they end up in keys, topics and logs, so refuse what is not short and plain. Raises `InvalidInput`.

    `what` it is the name of ("an outbox"); `hint`: what to do, where that is not plain to see.
    """
    if (
        isinstance(value, str)
        and all(c.isalnum() or c in "-_." for c in value)
        and 1 <= len(value.encode()) <= NAME_BYTES_MAX
    ):
        return value
    raise InvalidInput(
        f"{what} is named with up to {NAME_BYTES_MAX} letters, digits, '-', '_' and '.', got {value!r}{hint}"
    )


def short(value: object) -> str:
    """A value as a message shows it."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than some thousand digits
        return "a number that is too long to be written here"
    return text if len(text) <= 60 else text[:57] + "..."


def _number(option: str, value: object, least: float, most: float, kinds: tuple[type, ...], what: str) -> None:
    # `True` is an `int`, and nobody means one second by it. NaN is not between anything.
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:  # type: ignore[operator]
        raise InvalidInput(f"`{option}` must be {what} from {_plain(least)} to {_plain(most)}, got {short(value)}")


def _plain(bound: float) -> str:
    return f"{bound:,.6f}".rstrip("0").rstrip(".")
