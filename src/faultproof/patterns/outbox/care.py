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
        self._few: dict[int, int] = {}  # bounded: by the partitions
        """How many come next of a partition whose last holder died."""

    async def choose(self, records: list[Record]) -> list[Record]:
        """All records; or, of a partition whose last holder died, the next: one, then twice as many each time, until a batch
        of them went well.

        Alone in its transaction, an event takes nobody with it and is the next of its partition when its process dies,
        so that the deaths are counted against it and not against those before it. One further behind is come nearer to
        with each death.
        """
        claims = self._leases.held()
        trusted: list[str] = []
        chosen: list[Record] = []
        for partition in (int(claim.id) for claim in claims if claim.attempts > 1):
            few = self._few.pop(partition, 1)
            next_few = [record for record in records if record.partition == partition][:few]
            if not next_few or few > self._batch // len(claims):
                trusted.append(str(partition))
                continue
            self._few[partition] = few if chosen else 2 * few
            chosen = chosen or next_few
        if trusted:
            await self._leases.absolve(trusted)
        return chosen or records

    def suspect(self, records: Sequence[Record]) -> Record | None:
        """The next event of a partition whose holders keep dying."""
        partitions = {int(claim.id) for claim in self._leases.held() if claim.attempts > CRASHES_MAX}
        return next((record for record in records if record.partition in partitions), None)
