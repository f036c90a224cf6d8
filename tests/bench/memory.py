"""``make bench ARGS=memory``: whether the memory of a worker and of Valkey stays where it is over millions of events.

One worker; traffic is put on the topic as it goes on, and records that are done with are deleted, so that only Postgres grows.
Events are spread over 12 h, so that windows have all they may ever hold soon; one lead has a hundredth of them.  Fails where memory
grows, an event is missing, or a window has more members than is promised: 2 (N + 1) (⌈L / W⌉ + 3).
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from processor.embedded import Stack
from tests.bench.memory_rules import Trend, trend
from tests.bench.memory_runs import Memory, Sample
from tests.bench.memory_windows import Held, windows_of


def main(arguments: Sequence[str]) -> int:
    """The exit code: 1 where anything is not as it must be."""
    parser = argparse.ArgumentParser(prog='make bench ARGS="memory ..."', description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=Path(".cache/bench"))
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Stack.under_load(folder / "stack") as stack:
            return asyncio.run(_run(Memory(stack, folder, asked.events), asked.out))


async def _run(memory: Memory, out: Path) -> int:
    samples = await memory.run()
    held = await windows_of(memory.stack.redis, memory.database)
    missing = memory.events - await memory.stored()
    done = [sample.events for sample in samples]
    trends = {
        "worker": trend(done, [sample.worker_mb for sample in samples]),
        "Valkey": trend(done, [sample.valkey_mb for sample in samples]),
    }
    _write(out, samples, trends, held)
    print(f"{memory.events:,} events in {memory.seconds:,.0f} s, one worker; {missing} missing.\n")
    print(_shown(trends, held))
    flat = all(one.flat for one in trends.values())
    return int(missing > 0 or not flat or not all(one.within for one in held))


def _shown(trends: dict[str, Trend], held: Sequence[Held]) -> str:
    lines = [
        "| | at half time, MB | what the second half adds, MB | |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {one.half:,.1f} | {one.grown:+.1f} | {'flat' if one.flat else 'GROWS'} |"
        for name, one in trends.items()
    ]
    lines += [
        "",
        "| windows | N | W, s | number | members, mean | fullest | promised | bytes, mean | largest |",
        "| --- " * 9 + "|",
    ]
    lines += [
        f"| {one.kind.event_type} | {one.kind.threshold} | {one.kind.window_ms / 1000:g} | {one.windows:,} | {one.members:,.1f} |"
        f" {one.fullest:,} | {one.kind.most:,}{'' if one.within else ' EXCEEDED'} | {one.size:,.0f} | {one.largest:,} |"
        for one in held
    ]
    return "\n".join(lines)


def _write(
    folder: Path, samples: Sequence[Sample], trends: dict[str, Trend], held: Sequence[Held]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "samples": samples,
        "trends": {name: one._asdict() for name, one in trends.items()},
        "windows": [one._asdict() for one in held],
    }
    (folder / "memory.json").write_text(json.dumps(told, indent=1))
