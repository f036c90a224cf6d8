"""Starting faulty workers on a world of topics, and what may be asked of what they published."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import Message, Worker, World, produce, read_topic, until

Start = Callable[..., Worker]
WAVE = 50
WAVES_S = 0.05


@pytest.fixture
def start_faulty(tmp_path: Path) -> Iterator[Start]:
    """Starts ``tests.faulty_worker`` on a world, with more variables; all are killed at the end."""
    started: list[Worker] = []

    def start(world: World, **more: str) -> Worker:
        log = tmp_path / f"worker-{len(started)}.log"
        environment = {**world.environment(), "FAULT_FOLDER": str(tmp_path), **more}
        worker = Worker(environment, log, (), module="tests.faulty_worker")
        started.append(worker)
        worker.start()
        return worker

    yield start
    for worker in started:
        worker.kill()


def numbered(count: int, first: int = 0) -> list[Message]:
    """Messages with distinct values, spread over keys and so over partitions."""
    return [Message(b"v%d" % n, key=b"k%d" % (n % 97)) for n in range(first, first + count)]


class Feed:
    """Produces waves of distinct messages until it is ended."""

    def __init__(self, world: World) -> None:
        self.count = 0
        self._world = world
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Some hundred messages a second, so that there are many batches."""
        while not self._ended.is_set():
            await produce(self._world.kafka, self._world.raw, numbered(WAVE, self.count))
            self.count += WAVE
            await asyncio.sleep(WAVES_S)

    def end(self) -> None:
        """No more waves."""
        self._ended.set()


async def published(world: World) -> Counter[bytes | None]:
    """How often each value is visible to a read_committed reader of the enriched topic."""
    return Counter(record.value for record in await read_topic(world.kafka, world.enriched))


async def all_published(world: World, count: int, seconds: float = 30) -> Counter[bytes | None]:
    """As `published`, once `count` distinct values are there."""
    deadline = time.monotonic() + seconds
    while len(found := await published(world)) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} after {seconds} s"
        await asyncio.sleep(0.2)
    return found


@contextmanager
def telling(worker: Worker) -> Iterator[None]:
    """What fails is told with all that the worker said."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{error}; the worker said:\n{worker.output}") from error


async def struck(folder: Path, step: str, workers: Iterable[Worker], seconds: float = 30) -> Worker:
    """Arms the fault at the step; the worker that it strikes."""
    (folder / "next").write_text(step)
    (folder / "next").replace(folder / "armed")
    flag = folder / step
    await until(flag.exists, seconds)
    pid = int(flag.read_text())
    return next(worker for worker in workers if worker.process and worker.pid == pid)
