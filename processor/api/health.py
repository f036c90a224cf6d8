"""Probes: whether the process lives, and whether what it needs answers, and how soon."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeAlias

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from processor.api.answers import json
from processor.api.services import Services, Serving
from processor.failures import Failure

SLOW_S = 0.5
DEAD_S = 2.0

State: TypeAlias = Literal["ok", "slow", "away"]

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def alive() -> Response:
    """The process serves."""
    return json({"status": "ok"})


@router.get("/readyz")
async def ready(request: Request, serving: Serving) -> Response:
    """200 while everything answers, slowly or not; 503 where something is away.  Never later than after `DEAD_S`."""
    states = await look(_probes(request.app.state, serving))
    away = "away" in states.values()
    return json(
        {"status": "unready" if away else "ok", "dependencies": states}, 503 if away else 200
    )


@router.get("/metrics")
async def metrics() -> Response:
    """For Prometheus."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


class Probe:
    """Asks one dependency one question at a time, and does not wait for the answer for ever.

    A question is never taken back: a driver that is cancelled waits for a server that has gone, and each new question
    would take another connection.
    """

    def __init__(self, answers: Callable[[], Awaitable[None]]) -> None:
        self._answers = answers
        self._asked: asyncio.Task[State] | None = None
        self._since = 0.0

    async def state(self) -> State:
        """``ok``, ``slow`` (answered after more than `SLOW_S`) or ``away`` (an error, or silent for `DEAD_S`)."""
        clock = asyncio.get_running_loop().time
        if self._asked is None:
            self._asked, self._since = asyncio.create_task(self._ask()), clock()
        asked, since = self._asked, self._since
        await asyncio.wait({asked}, timeout=max(0.0, since + DEAD_S - clock()))
        if not asked.done():
            return "away"
        if self._asked is asked:
            self._asked = None
        return asked.result()

    async def _ask(self) -> State:
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            await self._answers()
        except Failure:
            return "away"
        return "slow" if clock() - begun > SLOW_S else "ok"


async def look(probes: Mapping[str, Probe]) -> dict[str, State]:
    """The state of every dependency, all asked at once."""
    async with asyncio.TaskGroup() as scope:
        looks = {name: scope.create_task(probe.state()) for name, probe in probes.items()}
    return {name: task.result() for name, task in looks.items()}


def _probes(state: Any, services: Services) -> Mapping[str, Probe]:
    if not hasattr(state, "probes"):
        state.probes = {
            "postgres": Probe(services.postgres.answers),
            "kafka": Probe(services.producing.answers),
        }
    probes: Mapping[str, Probe] = state.probes
    return probes
