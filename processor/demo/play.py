"""The run from start to end: set up, play, settle, check; and how it ends before its time."""

import asyncio
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

from processor.demo import curls, lines, screen, summary
from processor.demo.checking import Verdict, check, settled
from processor.demo.ledger import Sent
from processor.demo.output import Unread
from processor.demo.producing import produce, sending
from processor.demo.scene import Address, Scene
from processor.demo.servers import Servers
from processor.demo.stage import Stage, set_up
from processor.demo.steps import Steps
from processor.demo.traffic import traffic
from processor.demo.watching import reading, scrape, watch
from processor.embedded.processes import endings
from processor.failures import Failure
from processor.settings import Settings
from processor.terminal import complain

DRAIN_WITHIN_S = 20.0
LOOK_EVERY_S = 0.25

T = TypeVar("T")


def now_ms() -> int:
    """The time that records carry."""
    return int(time.time() * 1000)  # noqa: TID251 - the demo is where the events happen


def run(servers: Servers, seconds: float | None) -> int:
    """The exit code, see `processor.demo.main`; raises `Failure`."""
    Settings.load()  # refuses a wrong environment before anything is shown
    logging.basicConfig(filename=servers.folder / "demo.log", level=logging.INFO)
    play = Play(servers, seconds)
    try:
        return asyncio.run(play.run())
    except Exception as error:
        first = _first(error, servers)
        if isinstance(first, Unread):
            return play.interrupted
        # Logs that the line points to, or that a defect needs, stay.
        servers.keep = not isinstance(first, Failure) or str(servers.folder) in str(first)
        raise first from error
    finally:
        complain(play.stays)  # the screen is gone by now


def _first(error: Exception, servers: Servers) -> BaseException:
    """Of what failed together, a server says more than a failure, and that more than what it took down with it."""
    if servers.failed:
        return servers.failed
    if dead := servers.dead():
        logs = ", ".join(str(servers.log(name)) for name in dead)
        return Failure(f"{' and '.join(dead)} ended unexpectedly; see {logs}")
    while isinstance(error, ExceptionGroup):
        error = (error.subgroup(Failure) or error).exceptions[0]
    return error


async def beside(job: Coroutine[Any, Any, T], *others: Coroutine[Any, Any, None]) -> T:
    """The result of `job`; the others run as long as it does, and end it when they fail."""
    async with asyncio.TaskGroup() as scope:
        tasks = [scope.create_task(other) for other in others]
        result = await job
        for task in tasks:
            task.cancel()
    return result


class Play:
    """One run."""

    def __init__(self, servers: Servers, seconds: float | None) -> None:
        self._servers = servers
        self._scene = Scene(seconds, Steps(servers.began))
        self._sent: list[Sent] = []
        self._signal = 0
        self.stays: list[str] = []
        """What could not be taken away from servers of others."""

    async def run(self) -> int:
        """Until its end or a signal; the exit code."""
        self._on_signals()
        show = screen.show if _is_terminal() else lines.show
        try:
            verdict = await beside(self._played(), show(self._scene), self._guarded())
        except asyncio.CancelledError:
            if not self._signal:
                raise
            summary.interrupted(self._scene)
            return self.interrupted
        with suppress(Unread):
            summary.show(self._scene, verdict, self._servers.folder)
        self._servers.keep = bool(verdict.differences)
        return 1 if verdict.differences else 0

    @property
    def interrupted(self) -> int:
        """The exit code of a run that ended before its time, by a signal or because nobody reads what it says."""
        return 0 if self._scene.seconds is None else 128 + (self._signal or signal.SIGPIPE)

    def _on_signals(self) -> None:
        task = asyncio.current_task()

        def receive(number: int) -> None:
            if task and not self._signal:
                self._signal = number
                task.cancel()

        for number in endings():
            asyncio.get_running_loop().add_signal_handler(number, receive, number)

    async def _guarded(self) -> None:
        """Fails when a server ends."""
        while True:
            if self._servers.dead():
                raise Failure("a server ended")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _played(self) -> Verdict:
        scene = self._scene
        async with set_up(self._servers, scene.steps, self.stays.append) as stage:
            await self._tell(stage)
            async with (
                sending(stage.settings, self._note) as sender,
                reading(stage.settings) as consumer,
            ):
                scene.counts = sender.counts
                await beside(
                    self._acted(sender, stage),
                    watch(consumer, stage.settings, scene.seen, now_ms),
                    scrape(stage.worker, scene.seen),
                    stage.worker.watch(),
                    stage.api.watch(),
                )
            scene.phase = "checking"
            if code := await stage.worker.stop(DRAIN_WITHIN_S):
                raise Failure(f"the worker ended with exit code {code}; see {stage.worker.log}")
            return await check(stage.settings, self._sent)

    async def _acted(self, sender: Any, stage: Stage) -> None:
        scene = self._scene
        scene.phase, scene.playing_since = "playing", scene.steps.elapsed
        samples = traffic(now_ms(), now_ms, stage.settings.max_future_ms)
        await produce(sender, samples, scene.seconds or math.inf)
        scene.phase = "catching up"
        await settled(stage.settings, self._sent)

    async def _tell(self, stage: Stage) -> None:
        """Where somebody may look meanwhile."""
        folder, scene = self._servers.folder, self._scene
        file = folder / "environment"
        file.touch(mode=0o600)
        file.write_text("".join(f"{k}={v}\n" for k, v in stage.environment.items()))
        database = stage.settings.database_url.get_secret_value()
        allowed = curls.scopes(checked=scene.seconds is not None)
        scene.token = await curls.token(database, allowed)
        curls.write_config(folder / "curl", scene.token)
        url = f"http://127.0.0.1:{stage.api.port}"
        scene.curls = curls.whole(url, scene.token)
        scene.short_curls = curls.short(url, folder / "curl")
        scene.addresses = [Address("API", url), *_addresses(stage)]
        scene.note = f"worker pid {stage.worker.pid}   logs and environment in {folder}"

    def _note(self, sent: Sent) -> None:
        if self._scene.seconds is not None:  # only what will be checked is kept
            self._sent.append(sent)


def _addresses(stage: Stage) -> list[Address]:
    settings = stage.settings
    redis, postgres = settings.redis_url, settings.database_url
    return [
        Address("Kafka", settings.kafka_bootstrap_servers),
        Address("Valkey", _without_password(redis.get_secret_value())),
        Address("Postgres", _without_password(postgres.get_secret_value())),
    ]


def _without_password(url: str) -> str:
    """Host and port."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _is_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
