"""Saga: steps across services that all happen, or are all undone."""

from faultproof.patterns.saga.outcomes import Compensated, Completed, NeedsAttention
from faultproof.patterns.saga.saga import Saga, SagaOptions
from faultproof.patterns.saga.services import Services
from faultproof.patterns.saga.steps import NOTHING_TO_UNDO, Pending, Step, StepContext, StepRetry
from faultproof.patterns.saga.yaml import saga_from_yaml

__all__ = [
    "NOTHING_TO_UNDO",
    "Compensated",
    "Completed",
    "NeedsAttention",
    "Pending",
    "Saga",
    "SagaOptions",
    "Services",
    "Step",
    "StepContext",
    "StepRetry",
    "saga_from_yaml",
]
