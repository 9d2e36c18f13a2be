"""The rules of the house. Each takes the source root (`src/faultproof`) and returns its violations.

A violation reads `file:line: sentence.` To add a rule: write the function in the module it belongs to, list
it here, and plant a violation and an innocent near-miss for it in `planted.py`.
"""

from collections.abc import Callable
from pathlib import Path

from tests.architecture.engines import capabilities_tested, no_dialect_in_patterns, sql_not_glued
from tests.architecture.layers import exported_once, layers
from tests.architecture.outcomes import failed_is_not_unknown
from tests.architecture.rooms import modules_small_and_named, nothing_unsafe, rooms_furnished
from tests.architecture.waits import every_wait_bounded, nothing_ambient, tests_never_sleep

Rule = Callable[[Path], list[str]]

RULES: tuple[Rule, ...] = (
    layers,
    nothing_ambient,
    every_wait_bounded,
    failed_is_not_unknown,
    capabilities_tested,
    no_dialect_in_patterns,
    exported_once,
    rooms_furnished,
    modules_small_and_named,
    nothing_unsafe,
    sql_not_glued,
    tests_never_sleep,
)
