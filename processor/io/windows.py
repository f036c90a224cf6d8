"""Windows in Redis: a cache of facts of committed rows, built from Postgres where Redis has lost them.

`read` answers what is committed about events, and alone creates windows; `write` adds facts of committed rows to the windows that
`read` saw.  Both may be repeated at any time.  The scripts beside this file do the work, one call for a shard and a direction.

All windows of a lead are in one shard, of which a single server has one.  Each shard has a sentinel of its own: what a node of a
cluster loses is lost by its shards alone, and they alone begin again.
"""

import asyncio
import secrets
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

from msgspec import Struct, msgpack, structs

from processor import telemetry
from processor.failures import Retryable
from processor.io.past import Contents, Past
from processor.io.redis import Call, Server
from processor.io.windows_generations import NEVER, Generations
from processor.io.windows_packed import Packed, Request, additions, packed, questions
from processor.io.windows_touched import (
    Kind,
    Touched,
    by_shard,
    heaps,
    member,
    touched_by,
    window_of,
)
from processor.ports import Reading
from processor.pure.types import Case, Facts, Seen, VelocityFilter

OUTAGE_MS = 24 * 3600 * 1000
"""How long a consumer may be away before idle windows expire."""
CLOCK_MS = 60_000
"""How far what a call believes of the server's clock may lag when a window expires."""
_TRIES = 20
_LATE_HELD = -2
"""How the script says that it holds an event which it cannot judge."""
_WINDOWS_A_CALL = 2000
_BUILT_A_CALL = 50
"""Fewer: each may have thousands of rows, and what is built stays built where a later call fails."""
_CALM = Seen(0, cached=False, from_store=False, stored=False, burst_id=None, calm=True)

_Late: TypeAlias = tuple[int, int, bool]
"""Case number, filter number, and whether Redis holds the event: to be judged from Postgres."""


class _Reading(Reading, frozen=True):
    """With the windows that the cases touch."""

    touched: Sequence[Packed]


class _Built(Struct):
    """A window that is being built."""

    touched: Touched
    newest: int
    """The newest event time at hand."""
    expire: int
    mark: str = ""
    """What says in Redis that it is."""
    held: Contents = Contents(0, (), ())
    looks: int = 0

    @property
    def shard(self) -> int:
        return self.touched.shard


class Windows:
    """The windows in Redis, backed by the past in Postgres."""

    def __init__(self, server: Server, past: Past, lateness_ms: int) -> None:
        self._server = server
        self._past = past
        self._lateness_ms = lateness_ms
        self._generations = Generations(server, past)
        self._under_way: dict[str, asyncio.Event] = {}
        """Windows that a lane of this process is building, by their names."""

    async def open(self) -> None:
        """To be called before all else."""
        await self._generations.open()

    async def read(self, cases: Sequence[Case]) -> Reading:
        """What the committed past says of cases."""
        answers = [[_CALM] * len(case.watching) for case in cases]
        late: list[_Late] = []
        touched = wanted = self._touched(cases)
        now = await self._server.now() if wanted else 0
        for _ in range(_TRIES):
            if not wanted:
                break
            missing = await self._read(wanted, (answers, late), now)
            await self._build_once(cases, missing, now)
            wanted = self._packed(cases, missing)
        if wanted:
            raise Retryable("redis", "windows are lost again and again while they are built")
        if late:
            await self._judge_late(cases, late, answers)
        return _Reading(cases, answers, touched)

    async def write(self, reading: Reading, facts: Sequence[Facts]) -> None:
        """Adds facts of committed rows.  Windows that are gone since they were read are read, so created, again."""
        for _ in range(_TRIES):
            gone = await self._write(reading, facts)
            if not gone:
                return
            numbers = sorted(gone)
            facts = [facts[n] for n in numbers]
            reading = await self.read([reading.cases[n] for n in numbers])
        raise Retryable("redis", "windows are lost again and again while they are written")

    def _touched(self, cases: Sequence[Case]) -> Sequence[Packed]:
        return self._packed(cases, touched_by(cases, len(self._generations.sentinels)))

    def _packed(self, cases: Sequence[Case], wanted: Sequence[Touched]) -> Sequence[Packed]:
        return [packed(cases, part) for part in by_shard(wanted, _WINDOWS_A_CALL)]

    async def _read(
        self, wanted: Sequence[Packed], into: tuple[list[list[Seen]], list[_Late]], now: int
    ) -> list[Touched]:
        """Fills in the answers of complete windows; the windows that have to be built."""
        requests = [questions(part, partial(self._asked_of, now)) for part in wanted]
        missing: list[Touched] = []
        for part, reply in zip(wanted, await self._ask(requests), strict=True):
            part.answered(reply)
            for touched, answer in zip(part.windows, reply, strict=True):
                if answer is False:
                    missing.append(touched)
                elif type(answer) is list:
                    _fill_in(into, touched, answer)
        return missing

    async def _ask(self, requests: Sequence[Request]) -> list[Any]:
        """The answers, once every shard that is asked has a generation in force."""
        replies = await self._call("windows_read", requests)
        while unborn := [n for n, reply in enumerate(replies) if reply is False]:
            await self._generations.bear({requests[n].shard for n in unborn})
            again = await self._call("windows_read", [requests[n] for n in unborn])
            for n, reply in zip(unborn, again, strict=True):
                replies[n] = reply
        return replies

    async def _call(self, script: str, requests: Sequence[Request]) -> list[Any]:
        calls = []
        for request in requests:
            sentinel = self._generations.sentinels[request.shard]
            words = msgpack.encode([sentinel + ":", *request.words])
            calls.append(Call(request.shard, sentinel, (words, request.ids)))
        return [msgpack.decode(reply) for reply in await self._server.run(script, calls)]

    def _keep_ms(self, velocity: VelocityFilter) -> int:
        return velocity.window_ms + self._lateness_ms + OUTAGE_MS

    def _expire(self, velocity: VelocityFilter, now: int, newest: int) -> int:
        """A window outlives each of its members by what it keeps: one that expired held nothing later than now minus that."""
        return max(now, newest) + self._keep_ms(velocity) + CLOCK_MS

    def _asked_of(self, now: int, kind: Kind) -> Sequence[object]:
        velocity, keep_ms = kind.velocity, self._keep_ms(kind.velocity)
        # Whoever wrote the window that may have expired, perhaps with another lateness, kept it for so long at least.
        expired = now - velocity.window_ms - OUTAGE_MS
        trust = max(-NEVER if velocity.newest is None else velocity.newest, expired)
        return [
            velocity.window_ms,
            velocity.threshold,
            velocity.keep_first,
            NEVER if kind.doubted else trust,
            keep_ms + CLOCK_MS,
            self._expire(velocity, now, now),
        ]

    def _added_to(self, now: int, kind: Kind) -> Sequence[object]:
        velocity = kind.velocity
        return [
            velocity.window_ms,
            velocity.threshold,
            velocity.keep_first,
            self._lateness_ms,
            self._keep_ms(velocity) + CLOCK_MS,
            self._expire(velocity, now, now),
        ]

    async def _build_once(self, cases: Sequence[Case], wanted: Sequence[Touched], now: int) -> None:
        """Builds windows.  What another lane is building already is waited for: a large window is work for all who wait for it."""
        others = [self._under_way.get(touched.suffix) for touched in wanted]
        own = [touched for touched, other in zip(wanted, others, strict=True) if other is None]
        built = asyncio.Event()
        self._under_way |= {touched.suffix: built for touched in own}
        try:
            for chunk in heaps(own, _BUILT_A_CALL):
                await self._build(cases, chunk, now)
        finally:
            for touched in own:
                del self._under_way[touched.suffix]
            built.set()
        for other in {id(other): other for other in others if other}.values():
            await other.wait()

    async def _build(self, cases: Sequence[Case], wanted: Sequence[Touched], now: int) -> None:
        """Builds windows from Postgres: marked first, so that nothing committed meanwhile is missed."""
        telemetry.WINDOW_REBUILDS.inc(len(wanted))
        newest = [max(cases[n].event.occurred_at for n in touched.events) for touched in wanted]
        building = await self._begin(
            [
                _Built(touched, at, self._expire(touched.kind.velocity, now, at))
                for touched, at in zip(wanted, newest, strict=True)
            ]
        )
        contents = await self._past.windows(
            [(built.touched.window, built.newest) for built in building], self._lateness_ms
        )
        filled = zip(building, contents, strict=True)
        await self._fill([structs.replace(built, held=held) for built, held in filled])

    async def _begin(self, wanted: Sequence[_Built]) -> list[_Built]:
        """Marks windows; those that nobody has completed since."""
        token, parts = secrets.token_hex(8), by_shard(wanted, _BUILT_A_CALL)
        requests = [
            Request(part[0].shard, [token, *([b.touched.suffix, b.expire] for b in part)])
            for part in parts
        ]
        marked: list[_Built] = []
        for part, marks in zip(parts, await self._call("windows_begin", requests), strict=True):
            if marks is not False:  # else lost again: the next read sees it
                marked += [
                    structs.replace(built, mark=mark)
                    for built, mark in zip(part, marks, strict=True)
                    if mark is not False
                ]
        return marked

    async def _fill(self, building: Sequence[_Built]) -> None:
        """Completes windows with what Postgres remembers, where their marks still stand."""
        requests = []
        for part in by_shard(building, _BUILT_A_CALL):
            ids: list[bytes] = []
            words: list[object] = []
            for built in part:
                held = built.held
                ids += [member(event_id) for _, event_id in held.members]
                ids += [member(event_id) for _, event_id, _ in held.exceeding]
                times = [at for at, _ in held.members]
                exceeding = [x for at, _, burst in held.exceeding for x in (at, burst)]
                suffix = built.touched.suffix
                words.append([suffix, built.mark, held.floor, built.expire, times, exceeding])
            requests.append(Request(part[0].shard, words, b"".join(ids)))
        await self._call("windows_fill", requests)

    async def _judge_late(
        self, cases: Sequence[Case], late: Sequence[_Late], answers: list[list[Seen]]
    ) -> None:
        """Events whose time reaches below what their window holds are judged from Postgres."""
        telemetry.LATE_EVENTS.inc(len({n for n, _, _ in late}))
        touches = [(window_of(cases[n], cases[n].watching[f]), cases[n].event) for n, f, _ in late]
        seen, stored = await self._past.around(touches, [case.event for case in cases])
        for n in stored:
            answers[n] = [structs.replace(answer, stored=True) for answer in answers[n]]
        for (n, f, cached), (count, burst) in zip(late, seen, strict=True):
            answers[n][f] = Seen(count, cached, from_store=True, stored=n in stored, burst_id=burst)

    async def _write(self, reading: Reading, facts: Sequence[Facts]) -> set[int]:
        """Numbers of the facts whose windows are missing."""
        wanted = reading.touched if isinstance(reading, _Reading) else self._touched(reading.cases)
        if not wanted:
            return set()
        now = await self._server.now()
        requests = [additions(part, facts, partial(self._added_to, now)) for part in wanted]
        gone: set[int] = set()
        for part, missing in zip(wanted, await self._call("windows_write", requests), strict=True):
            lost = part.windows if missing is False else [part.windows[n - 1] for n in missing]
            gone |= {n for touched in lost for n in touched.events}
        return gone


def _fill_in(
    into: tuple[list[list[Seen]], list[_Late]], touched: Touched, answer: list[Any]
) -> None:
    answers, late = into
    kind = touched.kind
    keep_first, f = kind.velocity.keep_first, kind.place
    said = answer[::2] if keep_first else answer
    bursts = answer[1::2] if keep_first else [""] * len(said)
    for n, value, burst in zip(touched.events, said, bursts, strict=True):
        if value < 0:
            late.append((n, f, value == _LATE_HELD))
        else:
            answers[n][f] = Seen(
                value >> 1, value & 1 == 1, from_store=False, stored=False, burst_id=burst or None
            )
