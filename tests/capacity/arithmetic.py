"""What so many events a second need, computed from what one event costs: pure, and every number shown with its factors."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

RATES = (10_000, 100_000, 1_000_000)
BUSY = 0.6
"""How busy a core is planned to be: the rest is for peaks, failovers and catching up."""
DAY_S = 86_400
EVENTS_A_LEAD = 100
"""Of an active lead in a day; a window is kept for about that long (`ALLOWED_LATENESS` and 24 h)."""
REPLICATION = 3
RETENTION_DAYS = 7
"""Of Kafka's topics."""
CORES = (8, 16, 32, 64)
"""Of a Postgres server."""


@dataclass(frozen=True)
class Costs:
    """What one event costs, with its unit."""

    worker: float
    kafka: float
    valkey: float
    postgres: float
    stored: int
    wal: int
    raw: int
    enriched: int
    lead: int


LABELS = {
    "worker": "worker, µs of CPU",
    "kafka": "Kafka, µs of CPU, one replica",
    "valkey": "Valkey, µs of CPU",
    "postgres": "Postgres, µs of CPU",
    "stored": "stored in Postgres with indexes and counts, bytes",
    "wal": "WAL of Postgres, bytes",
    "raw": "`events.raw` in Kafka's log, bytes",
    "enriched": "`events.enriched` in Kafka's log, bytes",
    "lead": "Valkey for the windows of one active lead, bytes",
}


def rendered(costs: Costs, about: str) -> str:
    """The whole section in Markdown."""
    return "\n".join([about, "", *_measured(costs), "", *_needed(costs), "", *_one_primary(costs)])


def parsed(text: str) -> Costs:
    """The costs that such a section shows.  Raises KeyError where one is missing."""
    shown = dict(re.findall(r"^\| (.+?) \| ([\d,.]+) \|$", text, re.MULTILINE))
    numbers = {name: shown[label].replace(",", "") for name, label in LABELS.items()}
    return Costs(
        worker=float(numbers["worker"]),
        kafka=float(numbers["kafka"]),
        valkey=float(numbers["valkey"]),
        postgres=float(numbers["postgres"]),
        stored=int(numbers["stored"]),
        wal=int(numbers["wal"]),
        raw=int(numbers["raw"]),
        enriched=int(numbers["enriched"]),
        lead=int(numbers["lead"]),
    )


def cores(rate: int, micros: float) -> float:
    """Of CPU, planned to be so busy."""
    return rate * micros / 1e6 / BUSY


def limit(count: int, micros: float) -> int:
    """Thousands of events a second that so many cores take, planned to be so busy."""
    return int(count * 1e6 / micros * BUSY / 1000) * 1000


def _measured(costs: Costs) -> list[str]:
    lines = ["| one event | |", "| --- | --- |"]
    for name, label in LABELS.items():
        value = getattr(costs, name)
        lines.append(f"| {label} | {value:,} |")
    return lines


@dataclass(frozen=True)
class _Need:
    """What is needed, how it is computed from a rate, its value for one event a second, and how that is written."""

    what: str
    how: str
    factor: float
    written: Callable[[float], str]


def _needed(costs: Costs) -> list[str]:
    head = " | ".join(f"{rate:,} events/s" for rate in RATES)
    lines = [f"| | | {head} |", "| --- | --- |" + " --- |" * len(RATES)]
    for need in (*_processes(costs), *_postgres(costs), *_kafka(costs)):
        values = " | ".join(need.written(rate * need.factor) for rate in RATES)
        lines.append(f"| {need.what} | {need.how} | {values} |")
    return lines


def _processes(costs: Costs) -> list[_Need]:
    worker, valkey, lead = costs.worker, costs.valkey, costs.lead
    leads = f"{DAY_S:,} s ÷ {EVENTS_A_LEAD} events a lead"
    memory = DAY_S / EVENTS_A_LEAD * lead
    return [
        _Need("worker processes, a core each", _busy(worker), cores(1, worker), _count),
        _Need("partitions of `events.raw`", "4 a worker", cores(1, worker), _four_each),
        _Need("Valkey primaries, a core each", _busy(valkey), cores(1, valkey), _count),
        _Need("Valkey memory", f"rate × {leads} × {lead:,} B", memory, _size),
    ]


def _postgres(costs: Costs) -> list[_Need]:
    postgres, wal, stored = costs.postgres, costs.wal, costs.stored
    return [
        _Need("Postgres cores", _busy(postgres), cores(1, postgres), _count),
        _Need("Postgres WAL in a second", f"rate × {wal:,} B", wal, _size),
        _Need(
            "Postgres disk in a day", f"rate × {DAY_S:,} s × {stored:,} B", DAY_S * stored, _size
        ),
    ]


def _kafka(costs: Costs) -> list[_Need]:
    both, written = costs.raw + costs.enriched, f"({costs.raw:,} + {costs.enriched:,}) B"
    micros, coming = costs.kafka * REPLICATION, both * REPLICATION
    times = f"× {REPLICATION} replicas"
    days = f"{RETENTION_DAYS} days"
    return [
        _Need("Kafka cores", _busy(costs.kafka, times), cores(1, micros), _count),
        _Need("Kafka network in, a second", f"rate × {written} {times}", coming, _size),
        _Need("Kafka network out, a second", f"rate × {written}, one reader each", both, _size),
        _Need(
            f"Kafka disk, {days}",
            f"the network in × {days}",
            coming * DAY_S * RETENTION_DAYS,
            _size,
        ),
    ]


def _one_primary(costs: Costs) -> list[str]:
    head = " | ".join(f"{count} cores" for count in CORES)
    taken = " | ".join(f"{limit(count, costs.postgres):,}" for count in CORES)
    wal = " | ".join(_size(limit(count, costs.postgres) * costs.wal) + "/s" for count in CORES)
    return [
        f"| one Postgres primary | {head} |",
        "| --- |" + " --- |" * len(CORES),
        f"| events/s: cores × 1 s ÷ {costs.postgres} µs × {BUSY} | {taken} |",
        f"| WAL at that rate | {wal} |",
    ]


def _busy(micros: float, times: str = "") -> str:
    return f"rate × {micros} µs {times} ÷ {BUSY}".replace("  ", " ")


def _four_each(workers: float) -> str:
    return _count(4 * math.ceil(workers))


def _count(number: float) -> str:
    return f"{math.ceil(number):,}"


def _size(size: float) -> str:
    unit, step = "B", 1000
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if size < step:
            break
        size, unit = size / step, larger
    return f"{size:,.0f} {unit}" if size >= 100 else f"{size:.1f} {unit}"
