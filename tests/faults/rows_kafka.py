"""The broker stops, dies and comes back, and somebody takes a lane's transactional id."""

import asyncio
from functools import partial

from processor.io.kafka import Partition
from tests import harness
from tests.faults.broker import busy, caught_up, connections, crowded, hijack, kill_broker
from tests.faults.field import PARTITIONS, Field
from tests.faults.matrix import Bitten, row
from tests.faults.points import PUBLISHING
from tests.faults.promise import Promise
from tests.faults.steps import goes_on

HELD_S = "1.5"
"""Less than a transaction may take: whoever was held goes on with a producer whose broker is gone."""
CROWD = 30, 30
"""Topics, and partitions of each, that a loaded broker holds beside."""


@row("transactional id of lanes hijacked 8 times")
async def hijacked(field: Field) -> Bitten:
    """InitProducerId from outside fences the lane; its worker joins again and takes the id back."""
    await field.start(2)
    async with field.sending():
        for number in range(8):
            before = field.logged("lane_fenced")
            source = Partition(field.world.raw, number % PARTITIONS)
            await harness.until(partial(_fenced, field, source, before), 60)
    field.heal()
    return Bitten(field.logged("lane_fenced"), "times fenced")


async def _fenced(field: Field, source: Partition, before: int) -> bool:
    """A lane that is just beginning takes the id back without a word: then once more."""
    await hijack(field, source)
    return field.logged("lane_fenced") > before


@row("broker stopped by SIGTERM and started again, twice")
async def stopped(field: Field) -> Bitten:
    """Lanes wait and take up by themselves."""
    await field.start(2)
    async with field.sending(rate=500):
        for _ in range(2):
            await goes_on(field)
            away = field.logged("dependency_away")
            await asyncio.to_thread(field.stack.stop_one, "kafka")
            try:
                await harness.until(partial(_away, field, away), 30)
            finally:
                await asyncio.to_thread(field.stack.start_one, "kafka")
            await caught_up(field)
    field.heal()
    return Bitten(field.logged("dependency_away"), "times Kafka was away")


def _away(field: Field, before: int) -> bool:
    return field.logged("dependency_away") > before


@row("broker killed in each of 5 steps of a transaction")
async def died(field: Field) -> Bitten:
    """A worker stands in the step while the broker dies, and goes on when it is back or not."""
    return await _killed_in(field, PUBLISHING)


@row("at_least_once: broker killed between outputs and offset, three times")
async def died_at_least_once(field: Field) -> Bitten:
    """What was acknowledged before the offset was committed comes again."""
    field.environment["PROCESSING_GUARANTEE"] = "at_least_once"
    field.promise = Promise(exactly_once=False)
    return await _killed_in(field, ("mid_sends", "after_sends", "after_commit"))


async def _killed_in(field: Field, points: tuple[str, ...]) -> Bitten:
    await field.start(2)
    opened = 0
    async with field.sending(rate=500):
        for point in points:
            await field.strike(point, HELD_S)
            before = connections(field)
            await kill_broker(field)
            await caught_up(field)
            opened += len(connections(field) - before)
    field.heal()
    # Lanes tell nothing: one that is back soon is away for clients alone, which ask again.
    return Bitten(opened, "connections opened again")


@row("broker of 900 partitions killed twice while every core is busy")
async def loaded(field: Field) -> Bitten:
    """Its coordinators load for long, one after the other: nobody may take their silence for an answer."""
    await field.start(2)
    async with crowded(field, *CROWD), field.sending(rate=500):
        for point in ("after_offsets", "after_commit"):
            async with busy(2):
                await field.strike(point, "0.2")
                await kill_broker(field)
                await caught_up(field)
    field.heal()
    return Bitten(field.logged("dependency_away"), "times Kafka was away")
