"""Sagas written in YAML, in the specification's form: steps that name a service, an action and a compensation."""

from __future__ import annotations

from typing import Any

import msgspec

from faultproof import bounds
from faultproof.errors import InvalidInput, MissingExtra
from faultproof.patterns.saga.calling import words
from faultproof.patterns.saga.definition import Stage
from faultproof.patterns.saga.saga import Saga, SagaOptions
from faultproof.patterns.saga.services import Services
from faultproof.patterns.saga.steps import NOTHING_TO_UNDO, Step, StepRetry
from faultproof.ports.database import Database

TEXT_BYTES_MAX = 262_144


class _Retry(msgspec.Struct, forbid_unknown_fields=True):
    attempts: int = 5
    base: float = 0.1
    cap: float = 30.0


class _Step(msgspec.Struct, forbid_unknown_fields=True):
    service: str
    action: str
    compensation: str | None = None
    name: str | None = None
    timeout: float = 10.0
    retry: _Retry = msgspec.field(default_factory=_Retry)
    pivot: bool = False


class _Definition(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    steps: list[dict[str, Any]]
    version: int = 1


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    saga_definition: _Definition


def saga_from_yaml(
    database: Database, text: str, services: Services, *, options: SagaOptions | None = None
) -> Saga[dict[str, Any]]:
    """A saga whose steps are calls of services over HTTP.

    `text`: the specification's form (`saga_definition` with `name` and `steps` of `service`, `action` and `compensation`;
    optional are a step's `name`, `timeout` in seconds, `retry` and `pivot`, `{group: [steps]}` for steps side by side, and
    `version`). `compensation: none` says that there is nothing to undo. What each call sends and takes is in `Services`.
    The input of its sagas is a JSON object. Raises `InvalidInput` for anything unknown, missing or of the wrong kind, and
    for a service without a URL; `MissingExtra` without PyYAML.
    """
    definition = _parsed(text)
    pivots: list[Step[Any, Any]] = []

    def made(fields: dict[str, Any], where: str) -> Step[Any, Any]:
        try:
            step = msgspec.convert(fields, _Step)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"{where} of saga {definition.name!r} cannot be used: {error}") from error
        result = _step(step, services)
        if step.pivot:
            pivots.append(result)
        return result

    stages: list[Stage] = []
    for number, fields in enumerate(definition.steps, 1):
        where = f"step {number}"
        if "group" in fields:
            if set(fields) != {"group"} or not isinstance(fields["group"], list):
                raise InvalidInput(
                    f"{where} of saga {definition.name!r}: a group is a list of steps, and has nothing else"
                )
            stages.append([made(_mapping(each, where), where) for each in fields["group"]])
        else:
            stages.append(made(fields, where))
    if len(pivots) > 1:
        raise InvalidInput(f"the saga {definition.name!r} has {len(pivots)} pivots: there is one way of no return")
    return Saga(
        database,
        definition.name,
        input=dict[str, Any],
        steps=stages,
        pivot=pivots[0] if pivots else None,
        version=definition.version,
        options=options,
    )


def _parsed(text: object) -> _Definition:
    if not isinstance(text, str) or len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES_MAX:
        raise InvalidInput(f"a definition is a text of up to {TEXT_BYTES_MAX} bytes")
    if "&" in text or "*" in text:
        # A few lines of anchors can stand for more than a machine has memory, and no definition needs them.
        raise InvalidInput("a definition uses no anchors or aliases (& and *)")
    try:
        return msgspec.yaml.decode(text, type=_Document).saga_definition  # PyYAML's safe loader
    except ImportError as error:
        raise MissingExtra("definitions in YAML need PyYAML: pip install faultproof[saga]") from error
    except Exception as error:  # PyYAML raises whatever Python raises where it makes numbers, dates and texts of it
        raise InvalidInput(f"the definition cannot be used: {words(error)}") from error


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: a step of a group is a mapping, got {bounds.short(value)}")
    return value


def _step(step: _Step, services: Services) -> Step[Any, Any]:
    for what in (step.service, step.action, *filter(None, [step.compensation])):
        bounds.name("a service, an action or a compensation", what)
    retry = StepRetry(attempts=step.retry.attempts, base=step.retry.base, cap=step.retry.cap)
    undo: Any = None
    if step.compensation == "none":
        undo = NOTHING_TO_UNDO
    elif step.compensation is not None:
        undo = services.compensation(step.service, step.compensation)
    return Step.remote(
        services.action(step.service, step.action),
        undo=undo,
        name=step.name or step.action,
        timeout=step.timeout,
        retry=retry,
        result=dict[str, Any],
    )
