"""What rows do to a field and wait for, beside what the field itself can."""

import asyncio
import time

from processor.io.kafka_offsets import reset_offset
from tests import harness
from tests.faults.evidence import committed
from tests.faults.field import PARTITIONS, Field

BATCHES = 8
GOES_ON_S = 60.0
UNREADY_S = 30.0


async def goes_on(field: Field, batches: int = BATCHES) -> None:
    """Returns when so many further batches are committed: the next fault strikes a system at work."""
    begun: int = await field.ask("SELECT last_value FROM batches")

    async def gone_on() -> bool:
        last: int = await field.ask("SELECT last_value FROM batches")
        return last >= begun + batches

    await harness.until(gone_on, GOES_ON_S)


async def unready(field: Field, reason: str) -> None:
    """Returns when a worker says that it is not ready, and that this is why."""

    async def said() -> bool:
        answers = [await worker.get("/readyz") for worker in field.workers if worker.running]
        return any(status == 503 and reason in body for status, body in answers)

    await harness.until(said, UNREADY_S)


async def go_down(field: Field, server: str, number: int, times: int) -> None:
    """A server at work is ended by a signal, workers say that it is away, and it is started again; at last lanes go on."""
    for _ in range(times):
        await goes_on(field)
        field.stack.kill(server, number)
        try:
            await unready(field, f"{server} is away")
        finally:
            await asyncio.to_thread(field.stack.start_one, server)
    await goes_on(field)


async def calm(field: Field, seconds: float = 3.0) -> None:
    """Returns when the group has not been rebalanced for so long."""
    seen, since = -1.0, time.monotonic()

    async def so_long() -> bool:
        nonlocal seen, since
        now = await field.metric("processor_rebalances_total")
        if now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > seconds

    await harness.until(so_long, GOES_ON_S)


async def stands_still(field: Field, seconds: float = 2.0) -> None:
    """Returns when no lane of raw events has committed anything for so long, though the load goes on."""
    lanes = [(field.world.raw, number) for number in range(PARTITIONS)]
    seen, since = await committed(field.world, lanes), time.monotonic()

    async def still() -> bool:
        nonlocal seen, since
        now = await committed(field.world, lanes)
        if now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > seconds

    await harness.until(still, UNREADY_S)
    assert any(end > seen[lane] for lane, end in field.history.ends().items() if lane in seen)


async def stop(field: Field) -> None:
    """SIGTERM to every worker: all drain."""
    running = [worker for worker in field.workers if worker.running]
    async with asyncio.TaskGroup() as all_of_them:
        ended = [all_of_them.create_task(worker.stop()) for worker in running]
    assert [task.result() for task in ended] == [0] * len(running)


async def rewind(field: Field) -> None:
    """Ends the workers and sets every input back to its start, knowing that all of it is published once more."""
    await stop(field)
    for topic, number in field.history.ends():
        await reset_offset(field.world.settings(), topic, number, "earliest")
