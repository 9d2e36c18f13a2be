"""Care with events that may kill their process: no error reaches anybody then, only a lease that runs out."""

from __future__ import annotations

from collections.abc import Sequence

from faultproof.patterns.outbox.options import ConsumerOptions
from faultproof.ports.log import Record
from faultproof.primitives.leases import Leases

CRASHES_MAX = 3
"""After so many processes in a row died holding a partition, its next event is set aside, where each attempt is written
down before it is made: an event that kills its process ends as a dead letter too."""


class Care:
    """Finds the event to blame. A claim's `attempts` count the holders in a row that died with its partition."""

    def __init__(self, leases: Leases, options: ConsumerOptions) -> None:
        self._leases = leases
        self._batch = options.batch
        self._survived: dict[int, int] = {}  # bounded: by the partitions

    async def choose(self, records: list[Record]) -> list[Record]:
        """All records, or one: the next of a partition whose last holder died, until a batch of them went well.

        Alone in its transaction, an event takes nobody with it and is the next of its partition when its process dies,
        so that the deaths are counted against it and not against those before it.
        """
        claims = self._leases.held()
        trusted: list[str] = []
        alone: list[Record] = []
        for partition in (int(claim.id) for claim in claims if claim.attempts > 1):
            one = next((record for record in records if record.partition == partition), None)
            survived = self._survived.pop(partition, 0)
            if one is None or survived > self._batch // len(claims):
                trusted.append(str(partition))
            else:
                self._survived[partition] = survived + (not alone)
                alone = alone or [one]
        if trusted:
            await self._leases.absolve(trusted)
        return alone or records

    def suspect(self, records: Sequence[Record]) -> Record | None:
        """The next event of a partition whose holders keep dying."""
        partitions = {int(claim.id) for claim in self._leases.held() if claim.attempts > CRASHES_MAX}
        return next((record for record in records if record.partition in partitions), None)
