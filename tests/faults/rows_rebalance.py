"""Members that come and go while the load goes on."""

import asyncio
import signal

from tests import harness
from tests.faults.field import Field
from tests.faults.matrix import EVENTS, Bitten, row
from tests.faults.tail import Tail, percentile

TURN_S = 3.0
TURNS = 20
"""With 10,000 events; with fewer the storm is shorter."""
LOOKS = 6
"""At the lag, in a turn."""
FEWEST, MOST = 2, 4
"""Members in a storm."""
FALLEN_S = 30.0
"""How soon after a storm the lag is small again, while the load goes on."""
STORM_RATE = 250
RATE = 700
SLOWEST_S = 10.0
LEAVES = (signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)
"""The signal, and the exit code it makes."""


@row("one of 3 workers joins or leaves every 3 s for 60 s")
async def storm(field: Field) -> Bitten:
    """By SIGTERM and by SIGKILL in turn; when it is over the lag falls although the load goes on."""
    left, most = list[harness.Worker](), 0
    await field.start(3)
    before = field.logged("lane_ready")
    async with field.sending(rate=STORM_RATE):
        for _ in range(TURNS * field.events // EVENTS):
            _one_comes_or_goes(field, left)
            for _ in range(LOOKS):
                await asyncio.sleep(TURN_S / LOOKS)
                most = max(most, await field.lag())
        await harness.until(lambda: _fallen(field), FALLEN_S)
    field.heal()
    codes = [await worker.ended() for worker in left]
    assert codes == [LEAVES[n % 2][1] for n in range(len(left))], codes
    begun = field.logged("lane_ready") - before
    return Bitten(begun, f"lanes begun anew, {len(left)} leaves, lag at most {most:,}")


def _one_comes_or_goes(field: Field, left: list[harness.Worker]) -> None:
    members = [worker for worker in field.workers if worker not in left]
    comes = len(members) < MOST and field.random.random() < 0.5
    if comes or len(members) == FEWEST:
        field.launch()
    else:
        members[0].send(LEAVES[len(left) % 2][0])
        left.append(members[0])


async def _fallen(field: Field) -> bool:
    return await field.lag() < STORM_RATE


@row("rolling restart of 3 workers with the product's times: p99 under 10 s")
async def rolling(field: Field) -> Bitten:
    """One after the other leaves by SIGTERM and another one comes; a reader of committed messages takes the time of each event."""
    old = await field.start(3, TUNING="product")
    async with Tail(field.world) as tail:
        async with field.sending(rate=RATE):
            for worker in old:
                assert await worker.stop() == 0
                await field.start(1, TUNING="product")
        field.heal()
        await harness.until(lambda: _all_seen(field, tail), 60)
    times = sorted(tail.seconds)
    p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
    assert p99 < SLOWEST_S, f"p99 is {p99:.1f} s"
    came = [worker for worker in field.workers if worker not in old]
    begun = sum(worker.output.count('"event": "lane_ready"') for worker in came)
    text = f"lanes begun by the {len(came)} that came"
    return Bitten(begun, f"{text}; latency p50 {p50:.2f} s, p99 {p99:.2f} s, max {times[-1]:.2f} s")


async def _all_seen(field: Field, tail: Tail) -> bool:
    stored: int = await field.ask("SELECT count(*) FROM events")
    return not await field.lag() and len(tail.seconds) >= stored
