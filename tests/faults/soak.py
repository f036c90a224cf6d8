"""``make soak MINUTES=30``: a seeded load with merges and changes of filters, faults one after the other, and nothing may grow.

Three workers with the product's times, the API with somebody who asks, and the engagement service.  Fails where an invariant does not
hold, where a process ended unasked, and where the memory or the connections of one that lived through all of it have grown.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from processor.io.kafka import quietly
from tests import harness
from tests.faults.checker import check
from tests.faults.field import PARTITIONS, Field
from tests.faults.history import FILTERS, ORG_UNITS, Load, Mix
from tests.faults.matrix import field_of
from tests.faults.promise import Promise
from tests.faults.servers import FaultStack
from tests.faults.soak_beside import Visitor, beside, visiting
from tests.faults.soak_chart import drawn
from tests.faults.soak_faults import SERVERS, Fault, Strikes, schedule
from tests.faults.soak_flat import Bound, Growth, growth
from tests.faults.soak_samples import Samples, Use, sampled

LEADS = 300
STEP_MS = 2
BEHIND_MS = 600_000
"""Event time follows the clock this far behind at most, and runs slower than it at any rate up to 500 a second."""
LATENESS_S = 120
"""What windows hold, and what building them again takes, is the same from the backlog on."""
SETTLED = 0.6
"""Of the run: from then on filters stay, and every verdict is recounted."""
BACKLOG, WAVES = 120_000, 2
"""Events before anything is sampled, a half of them at once."""
WORKED_OFF_S = 120.0
COUNTED_S = 120.0
BOUNDS = {
    "rss_mb": Bound(slack=10, hourly=40),
    "kafka": Bound(slack=4, hourly=8),
    "redis": Bound(slack=4, hourly=8),
    "postgres": Bound(slack=4, hourly=8),
}
ORGANIC = """
    SELECT count(*) - (SELECT count(*) FROM engaged_events) - (SELECT count(*) FROM engagement_outbox)
      FROM events WHERE suppression_reason IS NULL AND event_type NOT IN ('Lead Merged', 'Lead Unmerged')
"""
"""What the engagement service has not counted yet, or not told."""


class Steady(Load):
    """Event time goes with the clock, however long the run."""

    def __init__(self, seed: int, partitions: int) -> None:
        super().__init__(seed, partitions, mix=Mix(step_ms=STEP_MS))

    def take(self, count: int) -> list[Any]:
        """The next so many records."""
        self.now = max(self.now, time.time_ns() // 1_000_000 - BEHIND_MS)
        return super().take(count)


class Soak:
    """A run on a field, from its preparation to what is wrong with it."""

    def __init__(self, field: Field, minutes: float, rate: float) -> None:
        self.field = field
        self.minutes = minutes
        self.struck: list[tuple[float, Fault]] = []
        self.growth: dict[str, dict[str, Growth]] = {}
        self.answers: Mapping[str, int] = {}
        self._rate = rate
        self._broken: list[str] = []

    async def run(self) -> tuple[Samples, list[str]]:
        """All samples, and a sentence for each thing that is wrong."""
        field = self.field
        field.load = Steady(field.seed, PARTITIONS)
        for server in SERVERS:
            await field.through(server)
        lateness = f"{LATENESS_S}s"
        field.environment |= {
            "TUNING": "product",
            "ALLOWED_LATENESS": lateness,
            "MAX_FUTURE": lateness,
        }
        field.promise = Promise(lateness_ms=LATENESS_S * 1_000)
        (first,) = await field.start()
        await self._worked_off()
        async with beside(field) as others:
            await harness.until(self._counted, COUNTED_S)
            await field.start(2)
            strikes = Strikes(field, {"lasting worker": first, **others})
            async with (
                visiting(field, others["api"]) as visitor,
                sampled(field, others) as samples,
                field.sending(0, self._rate),
                told(self, samples),
            ):
                await self._struck(strikes, samples)
            field.heal()
            return samples, await self._wrong(samples, strikes, visitor)

    async def _worked_off(self) -> None:
        """By one worker, and then by the engagement service at once.

        What a process held of full batches its allocator keeps, and sooner or later faults leave it all the lanes with all they can hold.
        """

        async def worked_off() -> bool:
            return await self.field.lag() == 0

        for _ in range(WAVES):
            await self.field.send(BACKLOG // WAVES, rate=0)
            await harness.until(worked_off, WORKED_OFF_S)

    async def _struck(self, strikes: Strikes, samples: Samples) -> None:
        """Merges and filters change right before a fault, so that it strikes in the middle of them."""
        for fault in schedule(self.field.seed):
            if samples.minute >= self.minutes:
                return
            self.struck.append((round(samples.minute, 2), fault))
            try:
                await self._changed(samples)
                await strikes.strike(fault)
            except AssertionError as late:
                self._broken.append(f"it broke off after {fault.kind} of {fault.target}: {late}")
                return
            await asyncio.sleep(fault.pause_s)

    async def _changed(self, samples: Samples) -> None:
        chance = self.field.random
        await self._merged()
        if chance.random() < 0.3 and samples.minute < SETTLED * self.minutes:
            filters = json.loads(json.dumps(FILTERS))
            velocity = filters["org_units"][chance.choice(ORG_UNITS)]["velocity_filters"]
            chance.choice(velocity)["threshold"] = chance.randrange(2, 7)
            await self.field.apply(filters)

    async def _merged(self) -> None:
        chance = self.field.random
        org_unit = chance.choice(ORG_UNITS)
        target, source = (f"ld-{n}" for n in chance.sample(range(LEADS), 2))
        await self.field.merge(org_unit, target, source)

    async def _wrong(self, samples: Samples, strikes: Strikes, visitor: Visitor) -> list[str]:
        recovery_s = await self.field.drained()
        uncounted = await self._uncounted()
        unasked = strikes.unasked()  # taking the evidence holds up all connections for a minute
        evidence = await self.field.evidence(recovery_s)
        violations = check(self.field.history, evidence, self.field.promise)
        self._judge(samples)
        self.answers = visitor.answers
        grown = [
            f"{name} of {process} is not flat: {g.second:g}, later {g.last:g}, {g.hourly:+.1f} an hour"
            for process, found in self.growth.items()
            for name, g in found.items()
            if not g.flat
        ]
        late = [f"{uncounted} organic events are not counted"] if uncounted else []
        held = [f"{invariant}: {text}" for invariant, text in violations]
        return [*self._broken, *held, *late, *unasked, *visitor.wrong(), *grown]

    async def _uncounted(self) -> int:
        try:
            await harness.until(self._counted, COUNTED_S)
        except AssertionError:
            return int(await self.field.ask(ORGANIC))
        return 0

    async def _counted(self) -> bool:
        return not await self.field.ask(ORGANIC)

    def _judge(self, samples: Samples) -> None:
        """Of the processes that are in every sample."""
        minutes = [sample.minute for sample in samples.all]
        lived = set.intersection(*(set(sample.uses) for sample in samples.all))
        for process in sorted(lived):
            uses = [sample.uses[process] for sample in samples.all]
            self.growth[process] = {
                name: growth(minutes, [float(use[place]) for use in uses], BOUNDS[name])
                for place, name in enumerate(Use._fields)
            }


@asynccontextmanager
async def told(soak: Soak, samples: Samples) -> AsyncIterator[None]:
    """Tells each minute how it goes, as long as the block runs."""

    async def tell() -> None:
        while True:
            await asyncio.sleep(60)
            last = samples.all[-1]
            uses = ", ".join(
                f"{name} {use.rss_mb:.0f} MB {'+'.join(map(str, use[1:]))}"
                for name, use in last.uses.items()
            )
            lag = "unknown" if last.lag is None else f"{last.lag:,}"
            say(
                f"{last.minute:.0f} min, {last.events:,} events, {len(soak.struck)} faults, lag {lag}; {uses}"
            )

    async with asyncio.TaskGroup() as scope:
        telling = scope.create_task(tell())
        try:
            yield
        finally:
            telling.cancel()


def say(text: str) -> None:
    """A line of progress."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def soaked(asked: argparse.Namespace) -> list[str]:
    """What is wrong; files about the run are in ``asked.out``."""
    with tempfile.TemporaryDirectory(prefix="soak-servers-") as folder:
        stack = FaultStack(Path(folder))
        await asyncio.to_thread(stack.start)
        try:
            async with field_of(stack, asked.seed, 0) as field:
                soak = Soak(field, asked.minutes, asked.rate)
                samples, wrong = await soak.run()
                kept(asked.out, soak, samples, wrong)
                return wrong
        finally:
            await asyncio.to_thread(stack.stop)


def kept(out: Path, soak: Soak, samples: Samples, wrong: Sequence[str]) -> None:
    """Writes ``soak.json``, ``soak.svg``, and the logs where something is wrong."""
    out.mkdir(parents=True, exist_ok=True)
    grown: Mapping[str, Mapping[str, Any]] = {
        process: {name: g._asdict() for name, g in found.items()}
        for process, found in soak.growth.items()
    }
    report = {
        "seed": soak.field.seed,
        "minutes": soak.minutes,
        "events": len(soak.field.history.sent),
        "wrong": wrong,
        "growth": grown,
        "answers": soak.answers,
        "faults": [{"minute": minute, **fault._asdict()} for minute, fault in soak.struck],
        "samples": [
            {**s._asdict(), "uses": {name: use._asdict() for name, use in s.uses.items()}}
            for s in samples.all
        ],
    }
    (out / "soak.json").write_text(json.dumps(report, indent=1))
    (out / "soak.svg").write_bytes(drawn(samples.all, [minute for minute, _ in soak.struck]))
    for log in soak.field.folder.glob("*.log") if wrong else ():
        (out / log.name).write_bytes(log.read_bytes())


def main() -> int:
    """The exit code: 0 where nothing is wrong."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=400, help="events a second, at most 500")
    parser.add_argument(
        "--out", type=Path, default=Path(".cache/soak"), help="a folder for the report"
    )
    asked = parser.parse_args()
    if asked.minutes < 1:
        parser.error("--minutes is at least 1")
    with quietly():
        wrong = asyncio.run(soaked(asked))
    for text in wrong:
        say(f"WRONG: {text}")
    say(
        f"{asked.out / 'soak.json'} and soak.svg: {'not flat or violated' if wrong else 'flat, all invariants hold'}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
