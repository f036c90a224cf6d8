"""Runs over a backlog: each contender in its turn, on the same servers, with a fresh database, an empty Valkey and a fresh topic for
its output.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from aiokafka import AIOKafkaProducer

from processor.bench.checking import wrong
from processor.bench.contenders import Contender, Kind
from processor.bench.looking import Look, Seen, looking
from processor.bench.program import Program
from processor.bench.site import TABLE, Site, execute, own_site
from processor.bench.traffic import Sent, filters, verdicts
from processor.bench.used import cpu, peak_mb
from processor.embedded import Stack
from processor.failures import Failure
from processor.io import filter_file
from processor.io.filters import apply
from processor.io.migrate import migrate
from processor.io.postgres import Postgres

RAW = "bench.backlog"
POLL_S = 0.05
QUIET_S = 3.0
"""Nothing more comes after so long without anything."""
LONGEST_S = 900.0


@dataclass(frozen=True)
class Result:
    """What a run took.  CPU is user and system of all processes of a part from the start to the end, µs an event."""

    contender: str
    kind: str
    events: int
    events_s: float
    """From when it has its partitions to the last message."""
    first_output_s: float
    """From the start of the process."""
    cpu: Mapping[str, float]
    memory_mb: int
    wrong: int
    """Rows, messages and verdicts unlike the brute force."""


Round = Mapping[str, Result]
"""By contender."""


class Bench:
    """A stack with a filled raw topic; its servers serve all contenders alike."""

    def __init__(self, stack: Stack, folder: Path, sent: Sequence[Sent], name: str = RAW) -> None:
        self._stack = stack
        self._folder = folder
        self._sent = sent
        self._wanted = verdicts(sent)
        self._raw = name
        self._pids = {name: own[:1] for name, own in stack.pids.items()}
        self._runs = 0

    async def rounds(
        self, contenders: Sequence[Contender], number: int, warm_up: Sequence[Contender] = ()
    ) -> list[Round]:
        """So many, in each of which all take their turns; says on stderr how each run went.

        Those of `warm_up` run before them and count for nothing: servers that have just started are still compiling, at the
        expense of whoever comes first.
        """
        await self._fill()
        for contender in warm_up:
            sys.stderr.write(f"warm-up: {await self.run(contender)}\n")
        done: list[Round] = []
        for count in range(number):
            ran = {}
            for contender in contenders:
                ran[contender.name] = await self.run(contender)
                sys.stderr.write(f"round {count + 1}: {ran[contender.name]}\n")
            done.append(ran)
        return done

    async def run(self, contender: Contender) -> Result:
        """Raises `Failure` where it ends or does not come to an end."""
        async with self.prepared(contender, self._raw) as (site, program), looking(site) as look:
            before = self._used()
            begun = time.monotonic()
            program.start()
            seen = await self._caught_up(program, look)
            spent = {part: s - before[part] for part, s in self._used().items()}
            spent["worker"] = cpu([program.pid])
            memory = peak_mb(program.pid)
            await program.stop()
            differences = await wrong(site, contender.kind, self._wanted)
        events = len(self._wanted)
        return Result(
            contender=contender.name,
            kind=contender.kind.value,
            events=events,
            events_s=events / (seen.last - seen.assigned),
            first_output_s=seen.first - begun,
            cpu={part: 1e6 * seconds / events for part, seconds in spent.items()},
            memory_mb=memory,
            wrong=differences,
        )

    @asynccontextmanager
    async def prepared(
        self, contender: Contender, raw: str | None = None
    ) -> AsyncIterator[tuple[Site, Program]]:
        """A site, and the program for it that is not started; it reads the topic `raw`, or one of its own."""
        self._runs += 1
        async with own_site(self._stack, f"{self._raw}.{self._runs}", raw) as site:
            if contender.kind is Kind.OWN:
                await self._set_up(site)
            else:
                await execute(site.postgres, TABLE)
            await execute(self._stack.postgres, "CHECKPOINT")
            with TemporaryDirectory(dir=self._folder) as state:
                own = {"STATE_FOLDER": state, **contender.environment}
                log = self._folder / f"{site.id}.log"
                program = Program(contender.command, {**site.environment(), **own}, log)
                try:
                    yield site, program
                finally:
                    program.kill()

    async def _set_up(self, site: Site) -> None:
        await migrate(site.postgres)
        path = self._folder / "filters.yaml"
        path.write_text(json.dumps(filters()))
        postgres = await Postgres.connect(site.postgres, size=1)
        try:
            await apply(postgres, filter_file.read(path), "bench")
        finally:
            await postgres.close()

    async def _fill(self) -> None:
        """Puts the traffic on the raw topic."""
        stack, raw = self._stack, self._raw
        await Site(stack.kafka, stack.redis, stack.postgres, raw, raw).create_topics()
        async with AIOKafkaProducer(
            bootstrap_servers=stack.kafka,
            linger_ms=20,
            max_batch_size=1 << 19,
            enable_idempotence=True,
        ) as producer:
            sent = [await producer.send(raw, one.value, one.key) for one in self._sent]
            for each in sent:
                await each

    async def _caught_up(self, program: Program, look: Look) -> Seen:
        """When all messages can be read and nothing more has come for a while."""
        events, seen = len(self._wanted), Seen()
        end = time.monotonic() + LONGEST_S
        while seen.published < events or time.monotonic() < seen.last + QUIET_S:
            program.check()
            if time.monotonic() > end:
                raise Failure(f"{seen.published:,} messages of {events:,} after {LONGEST_S:g} s")
            await look.at(seen)
            await asyncio.sleep(POLL_S)
        return seen

    def _used(self) -> dict[str, float]:
        return {part: cpu(own) for part, own in self._pids.items()}
