"""Redis is a cache of committed facts (G1): whatever it loses, and whenever, no verdict changes."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis

from processor.embedded import Stack
from tests import harness
from tests.traffic import Record, Shape, stream
from tests.traffic_filters import FIRST
from tests.verdict_run import Run

pytestmark = [pytest.mark.e2e, pytest.mark.fault, pytest.mark.timeout(300)]
StartWorker = Callable[..., harness.Worker]
Lose = Callable[[], Awaitable[None]]


@pytest.fixture(params=["flushall", "script flush", "restart"])
def lose(request: pytest.FixtureRequest, stack: Stack) -> Lose:
    """Ways to lose what Redis holds, in part or whole."""
    # The root of the server: FLUSHALL takes every logical database with it.
    url = urlunsplit(urlsplit(stack.redis)._replace(path="/0"))

    def command(*words: str) -> None:
        with redis.Redis.from_url(url) as connection:
            connection.execute_command(*words)

    def restart() -> None:
        command("FLUSHALL")
        stack.restart("redis")

    ways: dict[str, Callable[[], None]] = {
        "flushall": lambda: command("FLUSHALL"),
        "script flush": lambda: command("SCRIPT", "FLUSH"),
        "restart": restart,
    }

    async def lost() -> None:
        await asyncio.to_thread(ways[request.param])

    return lost


class Told:
    """Sends events of one lead a few at a time and says what became of them."""

    def __init__(self, run: Run) -> None:
        self._run, self._number = run, 0
        self._start = time.time_ns() // 1_000_000 - 100_000

    async def reasons(self, event_type: str, *after: int) -> list[str | None]:
        """Reasons of events at these times, ms after the start, sent as one batch and settled."""
        records, ids = [], []
        for at in after:
            self._number += 1
            ids.append(f"{event_type} {self._number}")
            event = {"org_unit": "acme", "lead_id": "l", "event_type": event_type, "id": ids[-1]}
            value = json.dumps(event).encode()
            records.append(Record(0, self._start + at, b"l", value))
        await self._run.send(records)
        await self._run.settled()
        found = {row["id"]: row["suppression_reason"] for row in await self._run.rows()}
        return [found[id_] for id_ in ids]


async def _started(run: Run, start_worker: StartWorker) -> None:
    await run.world.create_topics(4)
    await run.apply(FIRST)
    await run.work(start_worker)


async def test_windows_at_the_threshold_and_bursts_outlive_what_redis_loses(
    world: harness.World, start_worker: StartWorker, tmp_path: Path, lose: Lose
) -> None:
    """N - 1 before, one more is N and scores, the next exceeds and begins its burst, which then goes on."""
    run = Run(world, tmp_path)
    await _started(run, start_worker)
    told = Told(run)
    assert await told.reasons("page view", 0, 1) == [None, None]
    assert await told.reasons("email open", 0) == [None]
    await lose()
    assert await told.reasons("page view", 2, 3) == [None, None]
    assert await told.reasons("email open", 600) == ["inorganic_grouped"]
    await lose()
    assert await told.reasons("page view", 4, 999) == ["inorganic_grouped"] * 2
    assert await told.reasons("email open", 1_299, 2_000) == ["inorganic_grouped"] * 2
    await lose()
    assert await told.reasons("page view", 1_000, 3_500) == ["inorganic"] * 2
    await run.check()


async def test_losing_redis_in_mid_stream_changes_no_verdict(
    world: harness.World, start_worker: StartWorker, tmp_path: Path, lose: Lose
) -> None:
    """Also between a batch's read and its write, again and again."""
    run = Run(world, tmp_path)
    await _started(run, start_worker)
    start = time.time_ns() // 1_000_000 - 300_000
    made = stream(Shape(11, start, count=2_400))
    for half in made.halves:
        for at in range(0, len(half), 300):
            await run.send(half[at : at + 300])
            await lose()
            await _some_stored(run, half[at : at + 300])
            await lose()
        await run.settled()
    await run.check()


async def _some_stored(run: Run, sent: Sequence[Record]) -> None:
    """Returns when the worker is in the midst of what was sent last, or past it."""
    newest = {m.partition: m.offset for m in run.sent[-len(sent) :]}

    async def begun() -> bool:
        rows = await run.rows()
        return any(r["source_offset"] > newest[r["source_partition"]] - 40 for r in rows)

    await harness.until(begun, 60)
