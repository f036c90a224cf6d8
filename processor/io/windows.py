"""Windows in Redis: a cache of facts of committed rows, built from Postgres where Redis has lost them.

`read` answers what is committed about events, and alone creates windows; `write` adds facts of committed rows to the windows that
`read` saw.  Both may be repeated at any time.  The scripts beside this file do the work, one call for a shard and a direction.
"""

import secrets
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any, TypeAlias

from msgspec import Struct, msgpack, structs

from processor import telemetry
from processor.failures import Retryable
from processor.io.past import Past, Window
from processor.io.redis import Server
from processor.ports import Fact
from processor.pure.types import Case, Root, Seen, VelocityFilter

LAYOUT = "w1"
"""Version of keys and members: another layout never reads these."""
OUTAGE_MS = 24 * 3600 * 1000
"""How long a consumer may be away before idle windows expire."""
CLOCK_MS = 60_000
"""How far what a call believes of the server's clock may lag when a window expires."""
_NEVER = 2**53 - 1
_SENTINEL = f"{LAYOUT}:{{0}}"
_PREFIX = _SENTINEL + ":"
_TRIES = 20
_LATE_HELD = -2
"""How the script says that it holds an event which it cannot judge."""
_WINDOWS_A_CALL = 2000
_BUILT_A_CALL = 50
"""Fewer: each may have thousands of rows, and what is built stays built where a later call fails."""
_CALM = Seen(0, cached=False, from_store=False, stored=False, burst_id=None, calm=True)

_Late: TypeAlias = tuple[int, int, bool]
"""Case number, filter number, and whether Redis holds the event: to be judged from Postgres."""


class _Touched(Struct):
    """A window with the events that touch it: (case number, number of the filter in the case)."""

    org_unit: str
    root: Root
    velocity: VelocityFilter
    at: list[tuple[int, int]]

    @property
    def window(self) -> Window:
        """The window by itself."""
        return Window(self.org_unit, self.root.lead_id, self.root.epoch, self.velocity)

    @property
    def suffix(self) -> str:
        """Names the window within a generation; ids hold no NUL."""
        root = self.root
        return f"{self.velocity.revision}:{root.epoch}:{self.org_unit}\0{root.lead_id}"


class Windows:
    """The windows of one Redis server, backed by the past in Postgres."""

    def __init__(self, server: Server, past: Past, lateness_ms: int) -> None:
        self._server = server
        self._past = past
        self._lateness_ms = lateness_ms

    async def read(self, cases: Sequence[Case]) -> list[list[Seen]]:
        """What the committed past says: for each case one answer for each filter it watches."""
        answers = [[_CALM] * len(case.watching) for case in cases]
        late: list[_Late] = []
        wanted = _touched(cases)
        now = await self._server.now() if wanted else 0
        for _ in range(_TRIES):
            if not wanted:
                break
            wanted = [
                t
                for chunk in _chunks(wanted)
                for t in await self._read(cases, chunk, (answers, late), now)
            ]
            for chunk in _chunks(wanted, _BUILT_A_CALL):
                await self._build(cases, chunk, now)
        if wanted:
            raise Retryable("redis", "windows are lost again and again while they are built")
        if late:
            await self._judge_late(cases, late, answers)
        return answers

    async def write(self, facts: Sequence[Fact]) -> None:
        """Adds facts of committed rows.  Windows that are gone since they were read are read, so created, again."""
        for _ in range(_TRIES):
            gone: set[int] = set()
            for chunk in _chunks(_touched([fact.case for fact in facts])):
                gone |= await self._write(facts, chunk)
            if not gone:
                return
            facts = [facts[n] for n in sorted(gone)]
            await self.read([fact.case for fact in facts])
        raise Retryable("redis", "windows are lost again and again while they are written")

    async def _read(
        self,
        cases: Sequence[Case],
        wanted: Sequence[_Touched],
        into: tuple[list[list[Seen]], list[_Late]],
        now: int,
    ) -> list[_Touched]:
        """Fills in the answers of complete windows; the windows that have to be built."""
        ids = b"".join([member(cases[n].event.id) for touched in wanted for n, _ in touched.at])
        questions = [_PREFIX, *(self._question(cases, touched, now) for touched in wanted)]
        while (reply := await self._ask(questions, ids)) is False:
            await self._bear()
        missing: list[_Touched] = []
        for touched, answer in zip(wanted, reply, strict=True):
            if answer is False:
                missing.append(touched)
            elif answer:
                _fill_in(into, touched, answer)
        return missing

    async def _ask(self, questions: list[Any], ids: bytes) -> Any:
        """The answer of the server that was meant: the call itself may have found another behind a new connection."""
        while True:
            server = self._server.identity
            reply = await self._call("windows_read", questions, ids, server)
            if server == self._server.identity:
                return reply

    async def _call(self, script: str, request: list[Any], ids: bytes, *more: bytes) -> Any:
        return msgpack.decode(
            await self._server.run(script, _SENTINEL, msgpack.encode(request), ids, *more)
        )

    def _question(self, cases: Sequence[Case], touched: _Touched, now: int) -> list[object]:
        velocity = touched.velocity
        trust = max(
            -_NEVER if velocity.newest is None else velocity.newest, now - self._keep_ms(velocity)
        )
        times = [cases[n].event.occurred_at for n, _ in touched.at]
        return [
            touched.suffix,
            velocity.window_ms,
            velocity.threshold,
            velocity.keep_first,
            _NEVER if touched.root.epoch else trust,
            self._expire(velocity, now, max(times)),
            times,
        ]

    def _keep_ms(self, velocity: VelocityFilter) -> int:
        return velocity.window_ms + self._lateness_ms + OUTAGE_MS

    def _expire(self, velocity: VelocityFilter, now: int, newest: int) -> int:
        """A window outlives each of its members by what it keeps: one that expired held nothing later than now minus that."""
        return max(now, newest) + self._keep_ms(velocity) + CLOCK_MS

    async def _bear(self) -> None:
        """Begins a generation; what absent windows may be trusted past is read after its birth."""
        await self._server.identify()
        fresh, server = secrets.token_hex(4).encode(), self._server.identity
        generation: bytes = await self._server.run(
            "windows_birth", _SENTINEL, fresh, server, b"", b""
        )
        newest = await self._past.newest()
        stored = str(-_NEVER if newest is None else newest).encode()
        # Another name: were the sentinel lost meanwhile, the generation begun now must not get what was read before it.
        fresh = secrets.token_hex(4).encode()
        await self._server.run("windows_birth", _SENTINEL, fresh, server, generation, stored)

    async def _build(self, cases: Sequence[Case], wanted: Sequence[_Touched], now: int) -> None:
        """Builds windows from Postgres: marked first, so that nothing committed meanwhile is missed."""
        telemetry.WINDOW_REBUILDS.inc(len(wanted))
        newest = [max(cases[n].event.occurred_at for n, _ in touched.at) for touched in wanted]
        expire = [
            self._expire(touched.velocity, now, at)
            for touched, at in zip(wanted, newest, strict=True)
        ]
        begin = [
            _PREFIX,
            secrets.token_hex(8),
            *([t.suffix, at] for t, at in zip(wanted, expire, strict=True)),
        ]
        marks = await self._call("windows_begin", begin, b"")
        if marks is False:
            return  # lost again: the next read sees it
        building = [n for n, mark in enumerate(marks) if mark is not False]
        contents = await self._past.windows(
            [(wanted[n].window, newest[n]) for n in building], self._lateness_ms
        )
        ids: list[bytes] = []
        fill: list[object] = [_PREFIX]
        for n, held in zip(building, contents, strict=True):
            ids += [member(event_id) for _, event_id in held.members]
            ids += [member(event_id) for _, event_id, _ in held.exceeding]
            times = [at for at, _ in held.members]
            exceeding = [x for at, _, burst in held.exceeding for x in (at, burst)]
            fill.append([wanted[n].suffix, marks[n], held.floor, expire[n], times, exceeding])
        await self._call("windows_fill", fill, b"".join(ids))

    async def _judge_late(
        self, cases: Sequence[Case], late: Sequence[_Late], answers: list[list[Seen]]
    ) -> None:
        """Events whose time reaches below what their window holds are judged from Postgres."""
        telemetry.LATE_EVENTS.inc(len(late))
        touches = [(_window(cases[n], cases[n].watching[f]), cases[n].event) for n, f, _ in late]
        seen, stored = await self._past.around(touches, [case.event for case in cases])
        for n in stored:
            answers[n] = [structs.replace(answer, stored=True) for answer in answers[n]]
        for (n, f, cached), (count, burst) in zip(late, seen, strict=True):
            answers[n][f] = Seen(count, cached, from_store=True, stored=n in stored, burst_id=burst)

    async def _write(self, facts: Sequence[Fact], touched: Sequence[_Touched]) -> set[int]:
        """Numbers of the facts whose windows are missing."""
        now = await self._server.now()
        ids = b"".join([member(facts[n].case.event.id) for t in touched for n, _ in t.at])
        missing = await self._call(
            "windows_write", [_PREFIX, *(self._addition(facts, t, now) for t in touched)], ids
        )
        lost = touched if missing is False else [touched[number - 1] for number in missing]
        return {n for t in lost for n, _ in t.at}

    def _addition(self, facts: Sequence[Fact], touched: _Touched, now: int) -> list[object]:
        velocity = touched.velocity
        times = [facts[n].case.event.occurred_at for n, _ in touched.at]
        bursts = None
        if velocity.keep_first:
            bursts = [facts[n].facts.exceeded.get(velocity.revision, "") for n, _ in touched.at]
        return [
            touched.suffix,
            velocity.window_ms,
            velocity.threshold,
            self._lateness_ms,
            self._expire(velocity, now, max(times)),
            times,
            bursts,
        ]


def member(event_id: str) -> bytes:
    """How windows know an event."""
    return blake2b(event_id.encode(), digest_size=16).digest()


def _window(case: Case, velocity: VelocityFilter) -> Window:
    return Window(case.event.org_unit, case.root.lead_id, case.root.epoch, velocity)


def _touched(cases: Sequence[Case]) -> list[_Touched]:
    found: dict[tuple[str, str, int, int], _Touched] = {}
    for n, case in enumerate(cases):
        if case.watching:
            org_unit, root = case.event.org_unit, case.root
            for f, velocity in enumerate(case.watching):
                key = (org_unit, root.lead_id, root.epoch, velocity.revision)
                touched = found.get(key)
                if touched is None:
                    found[key] = _Touched(org_unit, root, velocity, [(n, f)])
                else:
                    touched.at.append((n, f))
    return list(found.values())


def _chunks(
    touched: Sequence[_Touched], size: int = _WINDOWS_A_CALL
) -> Iterator[Sequence[_Touched]]:
    """Calls small enough not to hold up the server."""
    return (touched[at : at + size] for at in range(0, len(touched), size))


def _fill_in(
    into: tuple[list[list[Seen]], list[_Late]], touched: _Touched, answer: list[Any]
) -> None:
    answers, late = into
    keep_first = touched.velocity.keep_first
    said = answer[::2] if keep_first else answer
    bursts = answer[1::2] if keep_first else [""] * len(said)
    for (n, f), value, burst in zip(touched.at, said, bursts, strict=True):
        if value < 0:
            late.append((n, f, value == _LATE_HELD))
        else:
            answers[n][f] = Seen(
                value >> 1, value & 1 == 1, from_store=False, stored=False, burst_id=burst or None
            )
