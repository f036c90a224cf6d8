"""What a soak runs beside the workers: the API with somebody who asks all the time, and the engagement service."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import httpx

from tests import harness
from tests.faults.field import Field
from tests.faults.history import ORG_UNITS

PATHS = (
    "/events?limit=100",
    "/events?page=40&suppression_reason=any",
    "/events/ld-1?limit=25",
    "/leads?limit=100",
    "/leads/ld-2",
    "/suppression/summary",
    "/event-types",
    "/rules",
)
EVERY_S = 0.25
PATIENCE_S = 30.0
GOOD = frozenset({"200", "404", "503"})
"""A lead has no events yet; something the API needs is away."""


@asynccontextmanager
async def beside(field: Field) -> AsyncIterator[Mapping[str, harness.Worker]]:
    """Both processes, ready, for as long as the block runs."""
    environment = {**field.world.environment(), **field.environment}
    port = harness.free_port()
    api = harness.Worker(
        {**environment, "API_PORT": str(port)}, field.folder / "api.log", ("api",), port
    )
    engagement = harness.Worker(environment, field.folder / "engagement.log", ("engagement",))
    try:
        for process in (api, engagement):
            process.start()
        for process in (api, engagement):
            await process.ready(60)
        yield {"api": api, "engagement": engagement}
    finally:
        api.kill()
        engagement.kill()


class Visitor:
    """A user of the API: asks one thing after the other, and watches the stream."""

    def __init__(self, port: int, token: str) -> None:
        self.answers: Counter[str] = Counter()
        """By status, or by what went wrong instead of an answer."""
        self.streamed = 0
        self._silent = 0
        self._client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=PATIENCE_S,
        )

    async def ask(self) -> None:
        """Until it is cancelled.  A connection that was left open may be closed just then: whoever asks again is answered."""
        for path in itertools.cycle(PATHS):
            if not await self._answered(path) and not await self._answered(path):
                self._silent += 1
            await asyncio.sleep(EVERY_S)

    async def _answered(self, path: str) -> bool:
        try:
            answer = await self._client.get(path)
        except httpx.HTTPError as error:
            self.answers[type(error).__name__] += 1
            return False
        self.answers[str(answer.status_code)] += 1
        return True

    async def watch(self) -> None:
        """Until it is cancelled; comes back whenever the stream ends."""
        while True:
            with suppress(httpx.HTTPError):
                async with self._client.stream("GET", "/stream") as answer:
                    async for line in answer.aiter_lines():
                        self.streamed += line.startswith("event: ")
            await asyncio.sleep(EVERY_S)

    def wrong(self) -> list[str]:
        """What no user should have seen."""
        told = [
            f"the API answered {n} times with {status}"
            for status, n in self.answers.items()
            if status.isdecimal() and status not in GOOD
        ]
        told += ["the API did not answer twice in a row"] * bool(self._silent)
        return told + ["nothing came over the stream"] * (not self.streamed)

    async def close(self) -> None:
        """Closes its connections."""
        await self._client.aclose()


@asynccontextmanager
async def visiting(field: Field, api: harness.Worker) -> AsyncIterator[Visitor]:
    """A visitor at work, as long as the block runs."""
    tokens = ("tokens", "create", "--org-unit", ORG_UNITS[0], "--name", "soak")
    told = await asyncio.to_thread(harness.processor, field.world.environment(), *tokens)
    visitor = Visitor(api.metrics_port, told.strip().splitlines()[-1])
    try:
        async with asyncio.TaskGroup() as scope:
            jobs = [scope.create_task(visitor.ask()), scope.create_task(visitor.watch())]
            try:
                yield visitor
            finally:
                for job in jobs:
                    job.cancel()
    finally:
        await visitor.close()
