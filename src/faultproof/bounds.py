"""What an option in seconds or a count may be: a number, of the right kind, and one that somebody can have meant.

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


def seconds(option: str, value: float, *, least: float = MICROSECOND_S) -> None:
    """Refuse what is no time, below `least`, or above ten years. Raises `InvalidInput` that names the option."""
    _number(option, value, least, SECONDS_MAX, (int, float), "a number of seconds")


def number(option: str, value: float, *, least: float, most: float) -> None:
    """Refuse what is no finite number, or outside of the bounds. Raises `InvalidInput` that names the option."""
    _number(option, value, least, most, (int, float), "a number")


def count(option: str, value: int, *, least: int = 1, most: int = COUNT_MAX) -> None:
    """Refuse what is no whole number, or outside of the bounds. Raises `InvalidInput` that names the option."""
    _number(option, value, least, most, (int,), "a whole number")


def _number(option: str, value: object, least: float, most: float, kinds: tuple[type, ...], what: str) -> None:
    # `True` is an `int`, and nobody means one second by it. NaN is not between anything.
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:  # type: ignore[operator]
        raise InvalidInput(f"`{option}` must be {what} from {_plain(least)} to {_plain(most)}, got {_short(value)}")


def _plain(bound: float) -> str:
    return f"{bound:,.6f}".rstrip("0").rstrip(".")


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than some thousand digits
        return "a number that is too long to be written here"
    return text if len(text) <= 60 else text[:57] + "..."
