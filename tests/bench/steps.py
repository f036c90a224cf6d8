"""``make bench ARGS=steps``: where a worker's microseconds go, step by step, in a process that talks to nobody.

The traffic of the other measurements, in batches of 2,000, no window with enough in it to exceed; of each step the median batch.  What
comes on top in a worker is its drivers, and the event loop between them.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, TypeVar

from aiokafka.producer.message_accumulator import BatchBuilder
from msgspec import msgpack

from processor import bench
from processor.bench.traffic import filters
from processor.io.kafka_batches import Packing, pack
from processor.io.store import _columns
from processor.io.windows import _CALM
from processor.io.windows_packed import Packed, additions, packed, questions
from processor.io.windows_touched import Kind, by_shard, touched_by
from processor.leads import Leads
from processor.outputs import Outputs
from processor.pipeline import _row
from processor.ports import Recorded
from processor.pure.parse import parse
from processor.pure.triage import looks, slow, triage
from processor.pure.types import Case, Event, Message, Rejected, Rules
from processor.pure.velocity import decide
from processor.worker import rarely_collect
from tests import fakes_rules
from tests.oracle_parse import Message as Record

T = TypeVar("T")
BATCH = 2_000
HOUR_MS = 3_600_000
OUTPUTS = Outputs("enriched", "dead", lambda _: 1 << 20)


class Steps:
    """How long each step of each batch took."""

    def __init__(self) -> None:
        self.took: dict[str, list[float]] = {}

    def of(self, name: str, step: Callable[[], T]) -> T:
        """What the step gives."""
        begun = time.process_time()
        given = step()
        self.took.setdefault(name, []).append(1e6 * (time.process_time() - begun) / BATCH)
        return given


def main(arguments: Sequence[str]) -> int:
    """Prints a table; the exit code."""
    parser = argparse.ArgumentParser(prog='make bench ARGS="steps ..."', description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    records = _records(parser.parse_args(arguments).events)
    rules, steps = _rules(), Steps()
    rarely_collect()
    for first in range(0, len(records) - BATCH + 1, BATCH):
        _batch(records[first : first + BATCH], rules, steps)
    found = {name: median(took) for name, took in steps.took.items()}
    whole = sum(found.values())
    print("| step | µs an event | |\n| --- | --- | --- |")
    for name, micros in found.items():
        print(f"| {name} | {micros:.2f} | {micros / whole:.0%} |")
    print(f"| all | {whole:.2f} | |")
    return 0


def _batch(records: Sequence[Record], rules: Rules, steps: Steps) -> None:
    """As `processor.pipeline` has it."""
    leads = Leads()
    events = steps.of("parse", lambda: _parsed(records))
    steps.of("how much filters look at", lambda: (looks(events, rules), slow(events, rules)))
    cases = steps.of("triage", lambda: _triaged(events, leads, rules))
    touched = steps.of("windows that are touched, packed", lambda: _touched(cases))
    steps.of("the question to Redis", lambda: [_told(questions(p, _about)) for p in touched])
    seen = [[_CALM] * len(case.watching) for case in cases]
    rulings = steps.of("decide", lambda: decide(cases, seen, {}, rules.revision))
    steps.of("columns for Postgres", lambda: _columns(rulings, rules.revision))
    facts = [ruling.facts for ruling in rulings]
    steps.of("the facts for Redis", lambda: [_told(additions(p, facts, _about)) for p in touched])
    recorded = Recorded(1_790_000_000_000, {})
    messages = steps.of(
        "enriched messages",
        lambda: [
            OUTPUTS.enriched(ruling.case.event.record, row)
            for n, ruling in enumerate(rulings)
            if (row := _row(ruling, recorded, n))
        ],
    )
    steps.of("record batch", lambda: pack(messages, _packing()))


def _parsed(records: Sequence[Record]) -> list[Event]:
    found: dict[tuple[str, str], Event] = {}
    for record in records:
        event = parse(record, HOUR_MS)
        if not isinstance(event, Rejected):
            found.setdefault((event.org_unit, event.id), event)
    return [*found.values()]


def _triaged(events: Sequence[Event], leads: Leads, rules: Rules) -> list[Case]:
    return [triage(event, leads.root(event.org_unit, event.lead_id), rules) for event in events]


def _touched(cases: Sequence[Case]) -> list[Packed]:
    return [packed(cases, part) for part in by_shard(touched_by(cases), BATCH)]


def _about(_: Kind) -> Sequence[object]:
    return 60_000, 20, False, 0, 90_000_000, 1_790_000_000_000


def _told(request: Any) -> bytes:
    return msgpack.encode(["w1:{0}:", *request.words])


def _packing() -> Packing:
    return Packing(8, lambda _: 8, lambda _: 1 << 20, lambda: BatchBuilder(4 << 20, 0), _itself)


def _itself(message: Message) -> Message:
    return message


def _rules() -> Rules:
    """Those of the traffic's org units."""
    rules = fakes_rules.NO_RULES
    units: Any = filters()["org_units"]
    for name, own in units.items():
        documents = own["velocity_filters"] + own["metadata_filters"]
        rules = fakes_rules.changed(rules, None, name, documents)
    return rules


def _records(events: int) -> list[Record]:
    return [
        Record("raw", 0, offset, 1 << 42, one.key, one.value)
        for offset, one in enumerate(bench.sent(events))
    ]
