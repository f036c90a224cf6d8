"""What runs beside the lanes: it is waited for until it says that it is answered again."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from processor import worker
from processor.failures import Retryable
from processor.io.kafka import DEFAULT_TUNING
from tests.fakes_places import KnownPlaces


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for the pause between tries."""
    monkeypatch.setattr(worker, "BACKGROUND_PAUSE_S", 0.0)


def working(job: worker.Job) -> worker.Worker:
    """A worker that has no lanes."""
    outlet: Any = SimpleNamespace(cluster=SimpleNamespace(tuning=DEFAULT_TUNING))
    work = worker.Work({}, lambda message: message, KnownPlaces(), [job])
    return worker.Worker(work, outlet, worker.open_sink)


async def test_a_job_that_tries_again_is_said_to_wait_until_it_is_answered() -> None:
    """However long a try takes: one line when it begins to wait, one when it need not any more."""
    tries: list[bool] = []

    async def job(answered: Callable[[], None]) -> None:
        tries.append(waits())
        if len(tries) < 4:
            raise Retryable("postgres", "refused")
        answered()
        tries.append(waits())

    def waits() -> bool:
        return any("postgres" in reason for reason in process.unready())

    process = working(job)
    with capture_logs() as lines:
        async with asyncio.timeout(5):
            await process._beside(job)
    assert tries == [False, True, True, True, False]
    assert [line["event"] for line in lines] == ["dependency_away", "dependency_back"]
