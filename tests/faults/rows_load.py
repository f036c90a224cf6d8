"""More than there is room for: overload, poison alone, one lead that is nearly everything, more filters than anybody has."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import psutil
import redis
from aiokafka.admin import AIOKafkaAdminClient

from processor.io.kafka_topics import create_topics
from tests import harness
from tests.faults.evidence import watching
from tests.faults.field import PARTITIONS, Field
from tests.faults.history import FILTERS, Load, Mix
from tests.faults.matrix import Bitten, row
from tests.faults.steps import goes_on, stands_still, unready
from tests.traffic_bad import BAD

KAFKA_AWAY = "kafka is away"
POISON = 160_000
WAVES = 64
FLAT = 1.15
"""What the second half of the waves may take more than the quarter before: the first one fills the heap."""
HELD_TO = 100
"""A throttled worker runs for one part in so many of the time."""
TURN_S = 1.0
OVERLOAD_S = 60.0
OVERLOAD = 10
MEASURED = 2_000
HALF_AS_FAST = 2.0
HOT_SHARE = 0.9
BLOCKED_US = 500_000
"""A quarter of what a worker waits for Redis; by the clock, on cores that others use too."""
FILTERS_OF_A_KIND = 1_000
DAY_MS = 86_400_000
MATCHED = """
    SELECT count(DISTINCT (org_unit, suppressed_by ->> 'filter_id')) FROM events WHERE suppression_reason = 'metadata_filter'
"""


@row("100 % bad messages of every kind, 160,000 of them")
async def all_bad(field: Field) -> Bitten:
    """One letter each, nobody waits, and memory does not grow with them."""
    kinds = Mix(bad=1.0, bad_kinds=tuple(BAD.values()))
    field.load = Load(field.seed, PARTITIONS, mix=kinds)
    (worker,) = await field.start()
    weights, started = list[float](), time.monotonic()
    for _ in range(WAVES):
        await field.send(POISON // WAVES, rate=0)
        await harness.until(lambda: _drained(field), 120)
        weights.append(_rss_mb(worker))
    took = time.monotonic() - started
    field.heal()
    half = WAVES // 2
    assert max(weights[half:]) < FLAT * max(weights[half // 2 : half]), (
        f"the worker grows: {[round(weight) for weight in weights]} MB"
    )
    assert await field.metric("processor_stopped_lanes") == 0
    letters = await field.metric("processor_dead_letters_total")
    assert letters == field.bad == POISON
    return Bitten(letters, f"dead letters, {POISON / took:,.0f} a second")


@row("the dead-letter topic is gone, and comes back")
async def letters_gone(field: Field) -> Bitten:
    """Lanes wait at their first bad message until somebody creates it again."""
    await field.start(2)
    async with _admin(field) as admin:
        await admin.delete_topics([field.world.dead])
    async with field.sending():
        try:
            await unready(field, KAFKA_AWAY)
            await stands_still(field)
            waited = await field.lag()
        finally:
            await create_topics(field.world.settings(), PARTITIONS)
        field.heal()
        await goes_on(field)
    return Bitten(waited, "records waited")


@row("one lead has 90 % of the traffic, thresholds 0, 10 and 10,000")
async def hot(field: Field) -> Bitten:
    """Its windows stay small (I9), and it takes at most twice as long as the same traffic of many leads."""
    await field.apply(_watched_by(_hot_filters()))
    await field.start()
    await field.send(MEASURED, rate=0)  # its first batches are small
    await harness.until(lambda: _drained(field), 60)
    spread = await _least_s(field, field.load)
    crowded = await _least_s(field, _Hot(field.seed + 1, PARTITIONS))
    field.heal()
    assert crowded < HALF_AS_FAST * spread, f"{crowded:.1f} s, spread {spread:.1f} s"
    most: int = await field.ask(
        "SELECT max(n) FROM (SELECT count(*) AS n FROM events GROUP BY org_unit, lead_id) x"
    )
    return Bitten(most, f"events of one lead; all took {crowded:.1f} s, spread {spread:.1f} s")


@row("1,000 velocity and 1,000 attribute filters in each org unit, on one type and on many")
async def many_filters(field: Field) -> Bitten:
    """Every verdict is right, and no script holds Redis for a quarter of what workers wait for it."""
    await field.apply(
        {"org_units": {"acme": _many_filters(spread=False), "globex": _many_filters(spread=True)}}
    )
    await field.start()
    with _redis(field) as server:
        server.config_set("slowlog-log-slower-than", BLOCKED_US)
        server.slowlog_reset()
        started = time.monotonic()
        await field.send(field.events, rate=0)
        await harness.until(lambda: _drained(field), 400)
        took = time.monotonic() - started
        slow = [entry for entry in server.slowlog_get() if b"EVAL" in entry["command"].upper()]
    field.heal()
    assert not slow, f"a script took {max(entry['duration'] for entry in slow) / 1000:.0f} ms"
    matched: int = await field.ask(MATCHED)
    assert matched, "no attribute filter matched"
    return Bitten(
        len(watching(field.world.redis)),
        f"filters with windows in Redis, {matched:,} that matched metadata, {field.events / took:,.0f} events a second",
    )


@row(f"ten times what a worker takes, for a minute: it is held to a {HELD_TO}th of its time")
async def overloaded(field: Field) -> Bitten:
    """What it cannot take waits in Kafka, not in memory; when it may run again, it catches up."""
    (worker,) = await field.start(TUNING="product")
    async with _throttled(worker):
        await field.send(MEASURED, rate=0)
        started = time.monotonic()
        await harness.until(lambda: _drained(field), 120)
        pace = MEASURED / (time.monotonic() - started)
        await field.send(int(OVERLOAD * pace * OVERLOAD_S), rate=OVERLOAD * pace)
        waiting = await field.lag()
    field.heal()
    sent = len(field.history.sent) - MEASURED
    assert waiting > sent // 2, f"{waiting:,} of {sent:,} waited: it was not held back"
    return Bitten(
        waiting, f"records behind after {sent:,} in a minute; it took {pace:,.0f} a second"
    )


class _Hot(Load):
    """A load of which one lead is nearly everything."""

    def _event(self) -> dict[str, Any]:
        event = super()._event()
        return event | {"id": f"hot-{event['metadata']['n']}"}

    def _lead(self) -> str:
        return "hot" if self._random.random() < HOT_SHARE else super()._lead()


def _hot_filters() -> list[dict[str, Any]]:
    return [
        _velocity(f"vf-{threshold}-{kept}", "page_view", threshold, window, keep_first=kept)
        for threshold, window in ((0, 2), (10, 5_000), (10_000, DAY_MS))
        for kept in (False, True)
    ]


def _velocity(
    filter_id: str, event_type: str, threshold: int, window_ms: int, *, keep_first: bool
) -> dict[str, Any]:
    own = {"threshold": threshold, "window_ms": window_ms, "keep_first": keep_first}
    return {"id": filter_id.lower(), "name": filter_id, "event_type": event_type, **own}


def _watched_by(filters: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"org_units": {name: {"velocity_filters": filters} for name in FILTERS["org_units"]}}


def _many_filters(*, spread: bool) -> dict[str, Any]:
    """As many as an org unit may have; the attribute filters match hardly anything, so that all of them are asked."""
    velocity = [
        _velocity(
            f"vf-{n:04}",
            f"type_{n}" if spread and n % 100 else "form_submit",
            n % 40,
            1_000 + 500 * n,
            keep_first=n % 3 == 0,
        )
        for n in range(FILTERS_OF_A_KIND)
    ]
    metadata = [
        {
            "id": f"mf-{n:04}",
            "name": f"Number {n}",
            "event_type": f"type_{n}" if spread and n % 100 else "",
            "conditions": [{"key": "n", "operator": "equals", "value": n * 7 + 1}],
        }
        for n in range(FILTERS_OF_A_KIND)
    ]
    return {"velocity_filters": velocity, "metadata_filters": metadata}


async def _least_s(field: Field, load: Load) -> float:
    """Of two: the machine may have been busy with something else during one."""
    return min([await _drain_s(field, load) for _ in range(2)])


async def _drain_s(field: Field, load: Load) -> float:
    """How long a worker takes for the whole of a load, which waits for it."""
    field.load = load
    (worker,) = field.workers
    worker.send(signal.SIGSTOP)
    await field.send(field.events, rate=0)
    started = time.monotonic()
    worker.send(signal.SIGCONT)
    await harness.until(lambda: _drained(field), 200)
    return time.monotonic() - started


async def _drained(field: Field) -> bool:
    return await field.lag() == 0


def _rss_mb(worker: harness.Worker) -> float:
    return float(psutil.Process(worker.pid).memory_info().rss / 2**20)


@asynccontextmanager
async def _throttled(worker: harness.Worker) -> AsyncIterator[None]:
    """Stops it for most of each turn, as a machine that has no time for it would."""

    async def turn() -> None:
        while True:
            worker.send(signal.SIGSTOP)
            await asyncio.sleep(TURN_S * (1 - 1 / HELD_TO))
            worker.send(signal.SIGCONT)
            await asyncio.sleep(TURN_S / HELD_TO)

    turning = asyncio.create_task(turn())
    try:
        yield
    finally:
        turning.cancel()
        with suppress(asyncio.CancelledError):
            await turning
        worker.send(signal.SIGCONT)


def _redis(field: Field) -> Any:
    return redis.Redis.from_url(field.world.redis)


@asynccontextmanager
async def _admin(field: Field) -> AsyncIterator[Any]:
    admin = AIOKafkaAdminClient(bootstrap_servers=field.world.kafka)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()
