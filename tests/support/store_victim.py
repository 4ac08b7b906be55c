"""A process that issues until it is killed; prints each serial once it may leave the box."""

import asyncio
import sys
from pathlib import Path

from shared.store.ledger import SqlLedger
from tests.support.store_intents import fake_der, issuing_database, make_intent


async def main(path: Path) -> None:
    async with issuing_database(path) as database:
        ledger = SqlLedger(database)

        async def client() -> None:
            while True:
                intent = make_intent()
                await ledger.intend(intent)
                await ledger.complete(intent, fake_der(intent))
                print(intent.serial, flush=True)

        await asyncio.gather(*(client() for _ in range(8)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
