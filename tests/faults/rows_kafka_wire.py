"""What is lost, late or slow on the way to Kafka: requests and answers chosen by their API key."""

import asyncio
import io
import struct
from collections import Counter
from collections.abc import Sequence
from functools import partial

from processor.io.kafka import Partition
from processor.io.kafka_committed import StableRequest, StableResponse, marked
from tests import harness
from tests.faults import proxy
from tests.faults.broker import caught_up, hijack, takes_lanes
from tests.faults.evidence import committed
from tests.faults.field import PARTITIONS, Field
from tests.faults.matrix import Bitten, row
from tests.faults.proxy import Fate, Judge, Proxy
from tests.faults.steps import goes_on

STEPS = {
    "Produce": proxy.PRODUCE,
    "AddPartitionsToTxn": proxy.TXN_PARTITIONS,
    "AddOffsetsToTxn": proxy.TXN_GROUP,
    "TxnOffsetCommit": proxy.TXN_OFFSETS,
    "InitProducerId": proxy.INIT_PRODUCER_ID,
    "OffsetFetch": proxy.OFFSET_FETCH,
    "JoinGroup": proxy.JOIN_GROUP,
}
OTHERS = 4
"""Requests that pass between two that do not."""
ENOUGH = 3
FROZEN_S = 16.0
"""Longer than the workers' transaction may take, and than Kafka takes to look for those that took too long."""
SLOW_S = 12.0
LONG_AGO = 5
NO_OFFSET = -1, ""
"""How a coordinator says that nothing is committed."""
"""An offset."""
LOADING, INVALID_TXN_STATE = 14, 48
"""Error codes."""


def every(key: int, fate: Fate, others: int = OTHERS) -> Judge:
    """This fate for one request of the API key out of `others` + 1."""
    seen: Counter[int] = Counter()

    def judge(asked: int, _: bytes) -> Fate:
        seen[asked] += 1
        return fate if asked == key and seen[asked] % (others + 1) == 0 else Fate.PASS

    return judge


async def bitten(path: Proxy, fate: str, times: int) -> None:
    """Returns when this fate has come so many times more."""
    before = path.done[fate]
    await harness.until(lambda: path.done[fate] >= before + times, 60)


@row("answer to EndTxn lost, every 5th")
async def lost_end(field: Field) -> Bitten:
    """The transaction is committed, and nobody is told."""
    return await _struck(field, every(proxy.END_TXN, Fate.LOSE_REPLY), Fate.LOSE_REPLY)


@row("connection cut before EndTxn, every 5th")
async def cut_end(field: Field) -> Bitten:
    """Everything is sent, nothing committed."""
    return await _struck(field, every(proxy.END_TXN, Fate.CUT), Fate.CUT)


async def _struck(field: Field, judge: Judge, fate: Fate) -> Bitten:
    path = await field.through("kafka")
    await field.start(2)
    path.judge = judge
    async with field.sending(rate=500):
        await bitten(path, fate.value, 10)
    field.heal()
    return Bitten(path.done[fate.value], f"times {fate.value}")


@row("EndTxn that arrives when its lane has another producer, 6 times")
async def late_end(field: Field) -> Bitten:
    """The broker refuses it: the transaction it names is not the one that it would end."""
    path = await field.through("kafka")
    await field.start(2)
    refused = 0
    async with field.sending(rate=500):
        for _ in range(6):
            path.judge = every(proxy.END_TXN, Fate.HOLD)
            await harness.until(lambda: path.held, 60)
            path.judge = None
            await takes_lanes(field, len(path.held))
            while path.held:
                refused += await _late(path)
    field.heal()
    return Bitten(refused, "late EndTxn refused")


async def _late(path: Proxy) -> bool:
    """Whether the broker refused the oldest request that is held; an error code stands behind correlation id and throttle time."""
    (code,) = struct.unpack_from(">8xh", await path.deliver(path.held.pop(0)))
    return bool(code)


@row("connections cut, and answers lost, by 7 API keys one after the other")
async def cut_by_key(field: Field) -> Bitten:
    """Each step of a transaction, of a lane's start and of joining the group fails before and after the broker did it."""
    path = await field.through("kafka")
    await field.start(2)
    async with field.sending(rate=500):
        for key in STEPS.values():
            for fate in (Fate.CUT, Fate.LOSE_REPLY):
                path.judge = every(key, fate, 0 if key in RARE else OTHERS)
                await _until_bitten(field, path, key, fate)
                path.judge = None
                await caught_up(field)
    field.heal()
    return Bitten(path.done["cut"] + path.done["lose reply"], "requests cut or unanswered")


RARE = {proxy.INIT_PRODUCER_ID, proxy.OFFSET_FETCH, proxy.JOIN_GROUP}
"""Asked for when a lane begins or a worker joins."""


async def _until_bitten(field: Field, path: Proxy, key: int, fate: Fate) -> None:
    """Where it is rare, lanes are made to begin."""
    async with asyncio.TaskGroup() as beside:
        waiting = beside.create_task(bitten(path, fate.value, ENOUGH))
        if key == proxy.JOIN_GROUP:
            await field.workers[-1].stop()
            field.launch()
        elif key in RARE:
            await _begin_lanes(field)
        await waiting


async def _begin_lanes(field: Field) -> None:
    """Whoever has one of them is fenced, joins again and begins them all."""
    for number in range(PARTITIONS):
        await hijack(field, Partition(field.world.raw, number))


@row("coordinator of the group still loads when lanes begin again")
async def loading(field: Field) -> Bitten:
    """As after a restart: its answer names no offset, which is no proof that nothing is committed."""
    path = await field.through("kafka")
    await field.start(2)
    unanswered = 0
    async with field.sending(rate=500):
        for _ in range(3):
            await caught_up(field)
            asked: Counter[int] = Counter()
            path.judge = partial(_loads, asked)
            await harness.until(partial(_asked, asked), 60)
            path.judge = None
            unanswered += asked[proxy.OFFSET_FETCH]
    field.heal()
    return Bitten(unanswered, "questions for offsets that got no answer")


def _asked(asked: Counter[int]) -> bool:
    return asked[proxy.OFFSET_FETCH] >= 2 * PARTITIONS


def _loads(asked: Counter[int], key: int, frame: bytes) -> Fate | bytes:
    """Each transaction is committed, its lane told that it is not and begins again; where, it is not told.

    OffsetFetch is answered as by a coordinator that loads, in version 3 or one of 6 and later.
    """
    version, correlation = struct.unpack_from(">6xhi", frame)
    asked[key] += key == proxy.END_TXN or asked[proxy.END_TXN] > 0
    if key == proxy.END_TXN:
        return _framed(struct.pack(">iih", correlation, 0, INVALID_TXN_STATE))
    if key != proxy.OFFSET_FETCH or not asked[key]:
        return Fate.PASS
    if version > 5:
        return _framed(struct.pack(">ibibhb", correlation, 0, 0, 1, LOADING, 0))
    return _framed(struct.pack(">iiih", correlation, 0, 0, LOADING))


@row("coordinator of the group answers with offsets of long ago, or none, when lanes begin again")
async def forgetful(field: Field) -> Bitten:
    """As one that answers before it has read all of its log, after a crash; everything a lane needs to know is elsewhere too."""
    path = await field.through("kafka")
    await field.start(2)
    raw = [(field.world.raw, number) for number in range(PARTITIONS)]
    forgotten = 0
    async with field.sending(rate=500):
        for told in (marked(LONG_AGO), NO_OFFSET, marked(LONG_AGO), NO_OFFSET):
            await harness.until(partial(_beyond, field, raw), 60)
            asked: Counter[int] = Counter()
            path.judge = partial(_forgets, asked, field.world.raw, told)
            await _begin_lanes(field)
            await harness.until(partial(_asked, asked), 60)
            path.judge = None
            forgotten += asked[proxy.OFFSET_FETCH]
            await goes_on(field)
    field.heal()
    assert field.logged("group_offset_forgotten") > 0
    return Bitten(forgotten, "questions for offsets answered wrongly")


async def _beyond(field: Field, lanes: Sequence[tuple[str, int]]) -> bool:
    """All lanes have left the place that will be named."""
    return min((await committed(field.world, lanes)).values()) > LONG_AGO


def _forgets(
    asked: Counter[int], raw: str, told: tuple[int, str], key: int, frame: bytes
) -> Fate | bytes:
    """The group is said to stand there; of merges the truth is told."""
    version, correlation = struct.unpack_from(">6xhi", frame)
    if (key, version) != (proxy.OFFSET_FETCH, StableRequest.API_VERSION):
        return Fate.PASS
    offset, mark = told
    topics: list[object] = [
        (topic, [(partition, offset, -1, mark, 0, {}) for partition in partitions], {})
        for topic, partitions, _ in _asked_for(frame)
        if topic == raw
    ]
    if not topics:
        return Fate.PASS
    asked[key] += 1
    answer = StableResponse(0, topics, 0, {}).encode()
    return _framed(struct.pack(">ib", correlation, 0) + answer)


def _asked_for(frame: bytes) -> list[tuple[str, list[int], object]]:
    """Topics and partitions of a `StableRequest`."""
    body = io.BytesIO(frame)
    body.seek(struct.calcsize(">ihhi"))
    client = struct.unpack(">h", body.read(2))[0]
    body.read(max(0, client) + 1)  # its name, and no tags
    found: list[tuple[str, list[int], object]] = StableRequest.SCHEMA.decode(body)[1]
    return found


def _framed(answer: bytes) -> bytes:
    return struct.pack(">i", len(answer)) + answer


@row("Kafka silent for longer than a transaction may take, in mid-transaction")
async def timed_out(field: Field) -> Bitten:
    """It aborts what is open by itself; whoever opened it is fenced or begins again."""
    path = await field.through("kafka")
    await field.start(2)
    async with field.sending(rate=500):
        await field.strike("after_sends", "0.5")
        path.freeze()
        await asyncio.sleep(FROZEN_S)
        path.thaw()
        await caught_up(field)
    field.heal()
    return Bitten(await _taken_back(field), "messages published and taken back")


async def _taken_back(field: Field) -> int:
    """Aborted by the time all is drained; what is not is not counted."""
    await field.settle()
    topic = field.world.enriched
    whole = await harness.read_topic(field.world.kafka, topic, "read_uncommitted")
    return len(whole) - len(await harness.read_topic(field.world.kafka, topic))


@row("Kafka slow: 300 ms for everything, then 10 KB/s")
async def slow(field: Field) -> Bitten:
    """Less is done, and nobody leaves the group, with the times of the product."""
    path = await field.through("kafka")
    await field.start(2, TUNING="product")
    await harness.until(partial(_settled, field), 60)
    async with field.sending(rate=500):
        await caught_up(field)
        before = await field.metric("processor_rebalances_total")
        path.delay_s = 0.3
        await asyncio.sleep(SLOW_S)
        path.delay_s, path.bytes_per_s = 0.0, 10_000.0
        await asyncio.sleep(SLOW_S)
        path.heal()
        field.heal()
        assert await field.metric("processor_rebalances_total") == before
    return Bitten(path.done["delayed"] + path.done["throttled"], "requests and answers held up")


async def _settled(field: Field) -> bool:
    """Both have lanes: nobody is about to join."""
    lanes = [worker.output.count('"event": "lane_ready"') for worker in field.workers]
    return min(lanes) >= 2 and all([(await w.get("/readyz"))[0] == 200 for w in field.workers])
