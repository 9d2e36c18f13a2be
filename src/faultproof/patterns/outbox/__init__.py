"""Outbox: events that are published if, and only if, the transaction that caused them commits."""

from faultproof.patterns.outbox.dead_letters import DeadLetter
from faultproof.patterns.outbox.events import Event
from faultproof.patterns.outbox.lag import GroupLag, Lag
from faultproof.patterns.outbox.message_inbox import MessageInbox
from faultproof.patterns.outbox.options import ConsumerOptions, OnPoison
from faultproof.patterns.outbox.outbox import Outbox, OutboxOptions

__all__ = [
    "ConsumerOptions",
    "DeadLetter",
    "Event",
    "GroupLag",
    "Lag",
    "MessageInbox",
    "OnPoison",
    "Outbox",
    "OutboxOptions",
]
