"""A service of a user's: it pays the invoices of the little proof, knows nothing of provers but the `note` it gives.

python -m tests.prove.live.service
"""

import asyncio
import os

import faultproof as fp
from faultproof.prove.live.history import note
from tests.prove.live.little import INVOICES, TTL_US, _effect, _pay


async def main() -> None:
    async with fp.connect(os.environ["FAULTPROOF_URL"]) as database:
        name = os.environ["FAULTPROOF_PROCESS"]
        if name == "cashier":
            for invoice in INVOICES:
                await database.transact(_pay(invoice))
                note("receipt", invoice)
        else:
            owner = f"{name}.{os.environ['FAULTPROOF_INCARNATION']}"
            while await database.read(database.claims.holders("job")):
                taken = await database.transact(database.claims.take("job", owner, ttl_us=TTL_US, limit=1))
                if taken:
                    async with database.transaction() as tx:
                        await tx.run(_effect(owner))
                        await tx.run(database.claims.finish("job", taken))
                await asyncio.sleep(0.05)  # sleeps: it is a service, and no test
        note("finished", name)


asyncio.run(main())
