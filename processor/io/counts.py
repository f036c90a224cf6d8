"""The counts behind listings: whoever changes events leaves a note in the same transaction, and one worker folds the notes in.

Listings are exact at any time: they read counts and notes together.  Folding only keeps the notes few.
"""

import asyncio
from contextlib import suppress

from processor.failures import Retryable
from processor.io.listing import LARGE
from processor.io.postgres import Postgres

LOOK_EVERY_S = 60.0
"""How often it looks for leads that have become large without anybody listing them."""
CHANGES = 5_000
"""Notes folded in one transaction, of all org units together: with very many of them each note is of few events."""


async def folder(postgres: Postgres, pause: float = 0.5, limit: int = CHANGES) -> None:
    """Folds until cancelled: every `pause` seconds what there is by then, so that many notes make one change of a count."""
    clock, looked = asyncio.get_running_loop().time, -LOOK_EVERY_S
    while True:
        with suppress(Retryable):  # notes are rows: they wait with Postgres
            await _fold(postgres, limit)
            if clock() - looked >= LOOK_EVERY_S:
                looked = clock()
                await postgres.execute("find_large_leads", LARGE)
            while await postgres.fetchval("count_leads"):
                await _fold(postgres, limit)  # one lead may take seconds
        await asyncio.sleep(pause)


async def _fold(postgres: Postgres, limit: int) -> None:
    last = await postgres.fetchval("last_count_change")
    while last and await postgres.fetchval("fold_counts", limit, last) is not None:
        pass
