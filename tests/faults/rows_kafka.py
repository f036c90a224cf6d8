"""The broker stops and comes back, and somebody takes a lane's transactional id."""

import asyncio
from functools import partial

from processor.io.kafka import Partition
from tests import harness
from tests.faults.broker import caught_up, hijack
from tests.faults.field import PARTITIONS, Field
from tests.faults.matrix import Bitten, row


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
