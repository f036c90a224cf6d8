"""Postgres ends sessions, restarts, dies, loses its last word, keeps locks, is slow and is full; so is Kafka's disk."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from tests import harness
from tests.faults.evidence import committed
from tests.faults.field import PARTITIONS, Field
from tests.faults.history import LEADS, ORG_UNITS
from tests.faults.matrix import Bitten, row
from tests.faults.proxy import Fate
from tests.faults.steps import calm, go_down, goes_on
from tests.traffic import home

ENDED = """
    SELECT count(*) FROM (
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'processor' AND datname = current_database()
    ) ended
"""
ENDS = 25
LOST_EVERY = 3
DELAY_S = 0.15
"""Each way: 300 ms for an answer."""
THROTTLED = 10_000
SLOW_S = 8.0
"""Of each kind: four sessions of the workers here."""


@row(f"Postgres ends all sessions, {ENDS} times")
async def ended(field: Field) -> Bitten:
    """pg_terminate_backend in mid-load, busy or not: batches are decided and recorded again."""
    await field.start(2)
    number = 0
    async with field.sending():
        for _ in range(ENDS):
            await goes_on(field, 3)
            number += await field.ask(ENDED)
    field.heal()
    return Bitten(number, "sessions ended")


@row("Postgres restarted at once, in mid-load, twice")
async def restarted(field: Field) -> Bitten:
    """SIGQUIT, which is an immediate shutdown: nothing is said to anybody, and the log is replayed."""
    return await _down(field, signal.SIGQUIT)


@row("Postgres killed and started again, twice")
async def killed(field: Field) -> Bitten:
    """SIGKILL to the postmaster."""
    return await _down(field, signal.SIGKILL)


async def _down(field: Field, number: signal.Signals) -> Bitten:
    await field.start(2)
    async with field.sending():
        await go_down(field, "postgres", number, 2)
    field.heal()
    return Bitten(field.logged("dependency_away"), "times workers waited for it")


@row(f"the answer to every {LOST_EVERY}rd commit in Postgres lost")
async def answer_lost(field: Field) -> Bitten:
    """The statement that names an input topic records a batch or a merge: it is committed, and the connection ends instead."""
    front = await field.through("postgres")
    topics = [field.world.raw.encode(), field.world.merges.encode()]
    seen = 0

    def lose(_: int, data: bytes) -> Fate:
        nonlocal seen
        binds = data[:1] == b"B" and any(topic in data for topic in topics)
        seen += binds
        return Fate.LOSE_REPLY if binds and seen % LOST_EVERY == 0 else Fate.PASS

    await field.start(2)
    async with field.sending():
        await goes_on(field)
        front.judge = lose
        for number in range(10):
            await goes_on(field, 4)
            await field.merge("acme", f"ld-{number}", f"ld-{number + 1}")
    field.heal()
    return Bitten(front.done[Fate.LOSE_REPLY.value], "commits without an answer")


@row("a lead's lock in Postgres held for longer than lanes wait for it")
async def locked(field: Field) -> Bitten:
    """The lanes whose batches touch it time out and try again; the others go on meanwhile."""
    await field.start(2)
    lead, lane = await _lonely(field)
    async with field.sending():
        await goes_on(field)
        async with _held(field, lead):
            await harness.until(lambda: _timed_out(field), 30)
            ends = field.history.ends()
            others = [other for other in ends if other != lane]
            await harness.until(lambda: _passed(field, others, ends), 30)
            assert not await _passed(field, [lane], ends), "the lock held up nobody"
        await goes_on(field)
    field.heal()
    return Bitten(_timed_out(field), "times a lane gave up on the lock")


@row("Redis and Postgres slow: 300 ms, then 10 KB/s")
async def slow(field: Field) -> Bitten:
    """Lanes fall behind, or wait; the worker goes on polling, so nobody is evicted and nothing is rebalanced."""
    fronts = [await field.through("redis"), await field.through("postgres")]
    await field.start(2)
    async with field.sending():
        await goes_on(field)
        await calm(field)
        before = await field.metric("processor_rebalances_total")
        for front in fronts:
            front.delay_s = DELAY_S
        await asyncio.sleep(SLOW_S)
        for front in fronts:
            front.delay_s, front.bytes_per_s = 0.0, THROTTLED
        await asyncio.sleep(SLOW_S)
        after = await field.metric("processor_rebalances_total")
        field.heal()
        await goes_on(field)
    field.heal()
    assert after == before, "somebody was evicted"
    return Bitten(sum(f.done["delayed"] + f.done["throttled"] for f in fronts), "slow messages")


def _timed_out(field: Field) -> int:
    return sum(worker.output.count("LockNotAvailableError") for worker in field.workers)


async def _passed(
    field: Field, lanes: Sequence[tuple[str, int]], ends: dict[tuple[str, int], int]
) -> bool:
    """Whether all that was sent to these lanes before is committed."""
    now = await committed(field.world, lanes)
    return all(now[lane] >= ends[lane] for lane in lanes)


async def _lonely(field: Field) -> tuple[str, tuple[str, int]]:
    """A lead whose lock concerns nobody on another partition, and the lane of it."""
    leads = [(org, f"ld-{number}") for org in ORG_UNITS for number in range(LEADS)]
    buckets = await field.ask(
        "SELECT array_agg(lead_bucket(o, l) ORDER BY n) FROM unnest($1::text[], $2::text[]) WITH ORDINALITY u (o, l, n)",
        *map(list, zip(*leads, strict=True)),
    )
    homes: dict[int, set[int]] = {}
    for (_, lead), bucket in zip(leads, buckets, strict=True):
        homes.setdefault(bucket, set()).add(home(lead, PARTITIONS))
    for (org, lead), bucket in zip(leads, buckets, strict=True):
        if org == ORG_UNITS[0] and len(homes[bucket]) == 1:
            return lead, (field.world.raw, home(lead, PARTITIONS))
    raise AssertionError("every lock is shared by several partitions")


@asynccontextmanager
async def _held(field: Field, lead: str) -> AsyncIterator[None]:
    """The lead's lock, exclusively, by a session of its own."""
    connection = await asyncpg.connect(field.world.postgres)
    try:
        taken = "SELECT pg_advisory_lock(7702, lead_bucket($1, $2))"
        await connection.execute(taken, ORG_UNITS[0], lead)
        yield
    finally:
        await connection.close()
