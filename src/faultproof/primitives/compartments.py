"""What a compartment may have, and each tenant in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from faultproof import bounds
from faultproof.errors import InvalidInput
from faultproof.primitives.fair_queue import Tenant

WEIGHT_MIN, WEIGHT_MAX = 0.001, 1_000.0


@dataclass(frozen=True, kw_only=True)
class TenantPolicy:
    """What one tenant may have."""

    weight: float = 1.0
    """Of the permits for which several tenants wait it gets a part in proportion."""
    concurrency: int | None = None
    """Permits at once. None: half of the compartment's, rounded up."""
    queue: int | None = None
    """Calls that wait. None: half of the compartment's, rounded up."""

    def __post_init__(self) -> None:
        bounds.number("weight", self.weight, least=WEIGHT_MIN, most=WEIGHT_MAX)
        if self.concurrency is not None:
            bounds.count("concurrency", self.concurrency)
        if self.queue is not None:
            bounds.count("queue", self.queue, least=0)


@dataclass(frozen=True, kw_only=True)
class PermitsPolicy:
    """The bounds of a compartment. Times in seconds."""

    concurrency: int = 64
    """Permits: calls at once."""
    queue: int = 128
    """Calls that wait for one. 0: nobody waits."""
    wait: float = 1.0
    """No call waits longer than this, however much time its deadline leaves."""
    patience: int = 8
    """After so many turns by priority and weight, one goes to whoever has waited longest."""
    tenants: Mapping[str, TenantPolicy] = field(default_factory=dict)
    """Of those that are named here. "" is who calls without a tenant, and may have everything unless it is named."""
    others: TenantPolicy = TenantPolicy()
    """Of each tenant that is not."""

    def __post_init__(self) -> None:
        bounds.count("concurrency", self.concurrency)
        bounds.count("queue", self.queue, least=0)
        bounds.seconds("wait", self.wait, least=0)
        bounds.count("patience", self.patience, least=0)
        object.__setattr__(self, "tenants", MappingProxyType(dict(self.tenants)))
        given: Mapping[Any, Any] = self.tenants
        for key, value in given.items():
            if not isinstance(key, str) or not isinstance(value, TenantPolicy):
                raise InvalidInput(f"`tenants` has a `TenantPolicy` for each name, got {bounds.short({key: value})}")
        for name, tenant in [*self.tenants.items(), ("others", self.others)]:
            for option, of_tenant, of_all in (
                ("concurrency", tenant.concurrency, self.concurrency),
                ("queue", tenant.queue, self.queue),
            ):
                if of_tenant is not None and of_tenant > of_all:
                    raise InvalidInput(
                        f"`{option}` of tenant {name!r} is {of_tenant}, and the whole compartment has {of_all}"
                    )

    def tenant(self, name: str) -> Tenant:
        """One that nothing is known of but its name."""
        named = self.tenants.get(name)
        if named is None and not name:
            return Tenant(name, weight=1.0, own=self.concurrency, queue=self.queue)
        bound = self.others if named is None else named
        queue = (self.queue + 1) // 2 if bound.queue is None else bound.queue
        return Tenant(name, weight=bound.weight, own=bound.concurrency, queue=queue)

    def most(self, tenant: Tenant, limit: int) -> int:
        """Permits that it may have while there are `limit`: fewer than its own while there are fewer than the policy's,
        because one tenant is not to have all that is left."""
        if tenant.own is None:
            return (limit + 1) // 2
        return max(1, limit * tenant.own // self.concurrency)
