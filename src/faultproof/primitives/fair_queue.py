"""Who is next, among tenants that each have a weight, and who is shed when there is no room.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) with turns of length one: a tenant's next turn has a start tag,
each turn that it takes puts its start tag on by `1 / weight`, and the smallest start tag is next. A tenant that comes with
nothing waiting, or had all it may have, starts at the virtual time, which is the smallest start tag of those that can be
next: nobody saves turns up, and nobody pays for what he was given while nobody waited. Tags are given when a turn is taken
and not, as in the paper, at arrival, because a call that is cancelled while it waits must cost its tenant nothing; for
tenants that always have calls waiting the order is the same, and the turns that two of them get, divided by their weights,
differ by at most one of each (the paper's theorem 1).

A higher priority goes first. Against starving, every `patience + 1`-th turn goes to the call that has waited longest: with n
older ones before it, a call waits for at most `(n + 1) * (patience + 1)` turns, whatever comes after it. So whoever's calls
are the oldest has at least that share of the turns, and weights that differ by more than `patience` have no further effect.
A tenant that has all it may have is passed over.

Pure data, for whoever holds a lock around it. Finding the next costs a binary search among tenants; a look at every tenant
that waits is only taken when something must be shed or priorities are mixed, and at waiting calls once in `patience + 1`
turns.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, OrderedDict

_RANK = tuple[int, int]
"""Priority, highest first, and then arrival: the order in which a tenant's own calls have their turns."""


class Queued:
    """A call that may wait."""

    __slots__ = ("arrival", "priority", "tenant")

    def __init__(self, tenant: Tenant, priority: int) -> None:
        self.tenant = tenant
        self.priority = priority
        self.arrival = 0
        """Its number in the order of arrival, once it waits."""

    @property
    def rank(self) -> _RANK:
        return (-self.priority, self.arrival)


class Tenant:
    """One tenant: what it has, may have, and has waiting."""

    __slots__ = ("head", "in_flight", "most", "name", "own", "queue", "start", "waiting", "weight")

    def __init__(self, name: str, *, weight: float, own: int | None, queue: int) -> None:
        self.name = name
        self.weight = weight
        self.own = own
        """Permits that it may have however many there are; None: its part of those that there are."""
        self.most = 0
        """Permits that it may have now."""
        self.queue = queue
        """Calls of it that may wait."""
        self.in_flight = 0
        self.start = 0.0
        """The start tag of its next turn."""
        self.waiting: list[tuple[_RANK, Queued]] = []
        self.head: tuple[int, float, int, Queued] | None = None
        """How its first call stands among those of others, while it may have a turn."""

    def last_start(self, virtual: float, more: int = 0) -> float:
        """The start tag that its last waiting call will have, with so many more behind it."""
        return max(self.start, virtual) + (len(self.waiting) - 1 + more) / self.weight


class FairQueue:
    """Calls that wait for their turn."""

    def __init__(self, *, patience: int) -> None:
        self._patience = patience
        self._since_oldest = 0
        """Turns since the last that went to the oldest."""
        self._heads: list[tuple[int, float, int, Queued]] = []
        """The first call of each tenant that may have a turn, next one first."""
        self._tenants: dict[str, Tenant] = {}
        """Those with calls that wait."""
        self.calls: OrderedDict[int, Queued] = OrderedDict()
        """All that wait, by arrival; to be read."""
        self._arrivals = 0
        self._priorities: Counter[int] = Counter()
        self._virtual = 0.0
        self._furthest = 0.0

    @property
    def oldest(self) -> Queued | None:
        """Who has waited longest."""
        return next(iter(self.calls.values()), None)

    def add(self, call: Queued) -> None:
        """Behind the others of its tenant and priority."""
        tenant = call.tenant
        self._arrivals += 1
        call.arrival = self._arrivals
        if not tenant.waiting:
            self._tenants[tenant.name] = tenant
        insort(tenant.waiting, (call.rank, call))
        self.calls[call.arrival] = call
        self._priorities[call.priority] += 1
        self.show(tenant)

    def remove(self, call: Queued) -> None:
        """It waits no more."""
        tenant = call.tenant
        del tenant.waiting[bisect_left(tenant.waiting, (call.rank,))]
        del self.calls[call.arrival]
        self._priorities[call.priority] -= 1
        if not self._priorities[call.priority]:
            del self._priorities[call.priority]
        if not tenant.waiting:
            del self._tenants[tenant.name]
        self.show(tenant)
        if not self.calls:
            self._virtual = self._furthest  # what was owed is forgotten as soon as nobody waits

    def next(self) -> Queued | None:
        """Whose turn it is; None if nobody waits that may have one. It stays where it is."""
        if not self._heads:
            return None
        if self._since_oldest >= self._patience:
            return next(call for call in self.calls.values() if call.tenant.head is not None)
        return self._heads[0][3]

    def take(self, call: Queued) -> None:
        """It has its turn, and waits no more."""
        tenant = call.tenant
        self._since_oldest = 0 if self._since_oldest >= self._patience else self._since_oldest + 1
        self._virtual = max(self._virtual, self._smallest())
        tenant.start += 1 / tenant.weight
        self._furthest = max(self._furthest, tenant.start)
        self.remove(call)

    def _smallest(self) -> float:
        """The smallest start tag of those that can be next."""
        if len(self._priorities) > 1:
            return min(head[1] for head in self._heads)
        return self._heads[0][1]

    def show(self, tenant: Tenant) -> None:
        """What it has, may have or has waiting is not what it was: put it where it belongs among the heads."""
        if tenant.head is not None:
            del self._heads[bisect_left(self._heads, tenant.head)]
            tenant.head = None
        if tenant.waiting and tenant.in_flight < tenant.most:
            tenant.start = max(tenant.start, self._virtual)
            (rank, arrival), first = tenant.waiting[0]
            tenant.head = (rank, tenant.start, arrival, first)
            insort(self._heads, tenant.head)

    def last(self, call: Queued, *, of_tenant: bool) -> Queued:
        """Who would have the last turn if this one came, too: `call` itself, or one that waits.

        First those of the lowest priority, and of these whoever's tenant has most waiting for its weight.
        """
        tenants = [call.tenant] if of_tenant else self._tenants.values()
        mine = call.tenant.last_start(self._virtual, more=1)
        last, worst = call, (-call.priority, mine)
        for tenant in tenants:
            if tenant.waiting:
                (rank, _), latest = tenant.waiting[-1]
                theirs = (rank, tenant.last_start(self._virtual))
                if theirs > worst:
                    last, worst = latest, theirs
        return last
