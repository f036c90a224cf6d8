"""What strikes in a soak: a seeded endless list of faults, and how each of them is done and undone."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import NamedTuple

from tests import harness
from tests.faults.field import Field

SERVERS = ("kafka", "redis", "postgres")
LASTING = ("lasting worker", "api", "engagement")
"""Processes that live through the whole soak: they are frozen, never ended."""
BAG = (
    *(("kill", "worker"), ("leave", "worker")) * 2,
    *(("freeze", target) for target in ("worker", *LASTING, *SERVERS)),
    *(("restart", server) for server in SERVERS),
    *(("crash", server) for server in SERVERS),
    ("flush", "redis"),
    ("backends", "postgres"),
    *((kind, server) for kind in ("cut", "refuse", "delay") for server in SERVERS),
)
SHORTEST_S, LONGEST_S = 1.0, 15.0
"""The longest are longer than the session and the transaction of a worker may be."""
PAUSES_S = 2.0, 8.0
DELAY_SHARE = 0.02
"""What is delayed for 10 s is delayed by 200 ms."""
READY_S = 120.0
CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class Fault(NamedTuple):
    """One strike."""

    kind: str
    target: str
    lasts_s: float
    pause_s: float
    """From its end to the next fault."""


def schedule(seed: int) -> Iterator[Fault]:
    """Every fault once in any order, then all of them again in another one, without end."""
    chance = random.Random(seed)
    while True:
        for kind, target in chance.sample(BAG, len(BAG)):
            lasts = round(chance.uniform(SHORTEST_S, LONGEST_S), 1)
            yield Fault(kind, target, lasts, round(chance.uniform(*PAUSES_S), 1))


class Strikes:
    """Faults at work: when a strike returns, whatever it took away is there again."""

    def __init__(self, field: Field, lasting: Mapping[str, harness.Worker]) -> None:
        self._field = field
        self._lasting = lasting
        self.ended: list[tuple[harness.Worker, int]] = []
        """Workers that were asked or made to end, and the exit code that they owe."""
        self._kinds: Mapping[str, Callable[[Fault], Awaitable[None]]] = {
            "kill": self._kill,
            "leave": self._leave,
            "freeze": self._freeze,
            "restart": self._restart,
            "crash": self._crash,
            "flush": self._flush,
            "backends": self._backends,
            "cut": self._cut,
            "refuse": self._refuse,
            "delay": self._delay,
        }

    async def strike(self, fault: Fault) -> None:
        """Does it, for as long as it lasts."""
        await self._kinds[fault.kind](fault)

    def unasked(self) -> list[str]:
        """Processes that ended by themselves, or otherwise than they were asked to."""
        owed = {worker.log: code for worker, code in self.ended}
        others = [self._lasting[name] for name in ("api", "engagement")]
        return [
            f"{worker.log.stem} ended with {worker.returncode}: {worker.output[-500:]}"
            for worker in [*self._field.workers, *others]
            if worker.returncode != owed.get(worker.log)
        ]

    def _mortal(self) -> harness.Worker:
        lasting = [worker.log for worker in self._lasting.values()]
        alive = [w for w in self._field.workers if w.running and w.log not in lasting]
        assert alive, "no worker is left that may be ended"
        return self._field.random.choice(alive)

    async def _kill(self, _: Fault) -> None:
        await self._replaced(signal.SIGKILL, -signal.SIGKILL)

    async def _leave(self, _: Fault) -> None:
        await self._replaced(signal.SIGTERM, 0)

    async def _replaced(self, number: int, code: int) -> None:
        worker = self._mortal()
        self.ended.append((worker, code))
        worker.send(number)
        await worker.ended()
        new = self._field.launch()
        await new.ready(READY_S)

    async def _freeze(self, fault: Fault) -> None:
        if fault.target in SERVERS:
            kill = self._field.stack.kill
            await asyncio.to_thread(kill, fault.target, signal.SIGSTOP)
            await asyncio.sleep(fault.lasts_s)
            await asyncio.to_thread(kill, fault.target, signal.SIGCONT)
            return
        worker = self._lasting.get(fault.target) or self._mortal()
        worker.send(signal.SIGSTOP)
        await asyncio.sleep(fault.lasts_s)
        os.kill(worker.pid, signal.SIGCONT)

    async def _restart(self, fault: Fault) -> None:
        await asyncio.to_thread(self._field.stack.restart, fault.target)

    async def _crash(self, fault: Fault) -> None:
        """Postgres is told to end at once, since one killed process of it would leave others behind."""
        number = signal.SIGQUIT if fault.target == "postgres" else signal.SIGKILL
        await asyncio.to_thread(self._field.stack.kill, fault.target, number)
        await asyncio.sleep(fault.lasts_s)
        await asyncio.to_thread(self._field.stack.start_one, fault.target)

    async def _flush(self, _: Fault) -> None:
        await asyncio.to_thread(harness.flush_redis, self._field.world.redis)

    async def _backends(self, _: Fault) -> None:
        await self._field.ask(CUT)

    async def _cut(self, fault: Fault) -> None:
        self._field.proxies[fault.target].cut()

    async def _refuse(self, fault: Fault) -> None:
        proxy = self._field.proxies[fault.target]
        proxy.refuse()
        await asyncio.sleep(fault.lasts_s)
        proxy.accept()

    async def _delay(self, fault: Fault) -> None:
        proxy = self._field.proxies[fault.target]
        proxy.delay_s = fault.lasts_s * DELAY_SHARE
        await asyncio.sleep(fault.lasts_s)
        proxy.delay_s = 0.0
