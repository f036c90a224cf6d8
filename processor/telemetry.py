"""Logs, metrics and probes: what an operator sees of a running process.

Every metric is declared here with its sentence.  Org units and leads are never labels, payloads never in logs.
"""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Literal, TypeAlias, get_args

import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)

from processor.ages import Ages
from processor.failures import Failure, StartRefused
from processor.pure.shown import shown
from processor.pure.types import Reason, Stage

Probe: TypeAlias = Callable[[], Sequence[str]]
"""What speaks against it, a sentence each; nothing: all is well."""

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_SIZES = (1, 5, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)

disable_created_metrics()  # a second series for each counter and histogram, which nobody asks for

BUILD = Info("processor_build", "The version of the program that runs.")
LAG = Gauge(
    "processor_lag_records",
    "Records of an input partition that are not committed yet; told by the worker, or of the enriched topic the engagement service, that has the partition.",
    ("topic", "partition"),
)
OLDEST = Gauge(
    "processor_oldest_unprocessed_seconds",
    "Age of the first record of an input partition that is not committed yet; 0 without one. Of a record that was not read yet: the time it is known of.",
    ("topic", "partition"),
)
EVENTS = Counter(
    "processor_events",
    "Events whose first row was committed, by suppression reason (organic: none).",
    ("reason",),
)
DECISIONS = Counter(
    "processor_decisions",
    "Suppressed events by the kind of the filter that is recorded (velocity, metadata).",
    ("kind",),
)
BATCH_EVENTS = Histogram(
    "processor_batch_events", "Records of a batch, bad ones included.", buckets=_SIZES
)
STAGE_SECONDS = Histogram(
    "processor_stage_seconds",
    "Time a batch spends in a stage (parse, triage, read, decide, record, write, publish), tries that failed included.",
    ("stage",),
    buckets=_SECONDS,
)
PUBLISHED_SECONDS = Ages(
    "processor_published_seconds",
    "From the timestamp of an input record to the commit that published what became of it, for each record.",
    buckets=(*_SECONDS, 300, 1_800),
)
DEAD_LETTERS = Counter(
    "processor_dead_letters",
    "Bad messages whose dead letter was published, by the stage that refused them.",
    ("stage",),
)
DUPLICATES = Counter(
    "processor_duplicates", "Messages with an id that another message had before; not published."
)
LATE_EVENTS = Counter(
    "processor_late_events",
    "Events judged from Postgres, because Redis no longer reaches them; again where a batch is decided again.",
)
WINDOW_REBUILDS = Counter(
    "processor_window_rebuilds", "Windows that Redis lacked and that were built from Postgres."
)
WAITING = Gauge(
    "processor_waiting",
    "Lanes and background jobs that wait now for a dependency (postgres, redis, kafka) that does not answer.",
    ("dependency",),
)
WAITING_SECONDS = Counter(
    "processor_waiting_seconds",
    "Time that lanes and background jobs have waited for a dependency, added up.",
    ("dependency",),
)
MERGES = Counter(
    "processor_merges", "Merges and unmerges that changed something, by kind.", ("kind",)
)
MOVED_EVENTS = Counter("processor_moved_events", "Rows that a merge or unmerge moved.")
PENDING_MOVES = Gauge(
    "processor_pending_moves",
    "Merged leads whose rows still have to move, up to 10,000; every worker tells what Postgres holds.",
)
UNCOUNTED = Gauge(
    "processor_uncounted_changes",
    "Changes of events that the counts behind listings still have to take in, up to 10,000; every worker tells what Postgres holds.",
)
REBALANCES = Counter("processor_rebalances", "Times the group gave this worker its partitions.")
FENCED = Counter("processor_fenced", "Lanes dropped because a newer worker owns the partition.")
STOPPED_LANES = Gauge(
    "processor_stopped_lanes",
    "Lanes that wait for an operator, since going on would lose or guess (1: stopped).",
    ("topic", "partition"),
)
INGESTED = Counter(
    "processor_ingested_events", "Events that POST /ingest accepted and Kafka acknowledged."
)
RULES_REVISION = Gauge(
    "processor_rules_revision", "The rule revision this worker decides with; 0 before its first."
)
STREAM_CLIENTS = Gauge("processor_stream_clients", "Clients that follow the live stream now.")
STREAM_CUT_OFF = Counter(
    "processor_stream_cut_off",
    "Clients of the live stream that were cut off for reading too slowly.",
)

HTTP_REQUESTS = Counter(
    "processor_http_requests",
    "Requests to the API, by route template (none: no such address), method and class of status (none: gone before an answer).",
    ("route", "method", "status"),
)
HTTP_SECONDS = Histogram(
    "processor_http_seconds",
    "From a request to the head of its answer, by route template.",
    ("route",),
    buckets=_SECONDS,
)

ENGAGEMENT_EVENTS = Counter(
    "processor_engagement_events", "Organic events that were counted, each once."
)
ENGAGEMENT_FOREIGN = Counter(
    "processor_engagement_foreign", "Records of the enriched topic that are no enriched events."
)
ENGAGEMENT_TORN = Counter(
    "processor_engagement_torn",
    "Times a partition was fetched again, because a record before the next one was not counted.",
)
ENGAGEMENT_TOLD = Counter(
    "processor_engagement_told", "Messages that the engagement service has published."
)

BUILD.info({"version": version("processor")})
# Series that are there from the start: what happens for the first time is seen as an increase.
_DEPENDENCIES = ("postgres", "redis", "kafka")
for _metric, _values in (
    (EVENTS, ("none", *get_args(Reason))),
    (DECISIONS, ("velocity", "metadata")),
    (DEAD_LETTERS, get_args(Stage)),
    (WAITING, _DEPENDENCIES),
    (WAITING_SECONDS, _DEPENDENCIES),
    (MERGES, ("merge", "unmerge")),
):
    for _value in _values:
        _metric.labels(_value)


def stage(name: str) -> AbstractContextManager[object]:
    """Observes how long a batch is in a stage."""
    return STAGE_SECONDS.labels(stage=name).time()


def published(timestamps: Iterable[int | None]) -> None:
    """Observes the ages of records whose results have just been published; what has no timestamp has no age."""
    now = time.time() * 1000  # noqa: TID251 - telemetry reads the clock
    known = [ms for ms in timestamps if ms is not None and ms >= 0]
    PUBLISHED_SECONDS.observe([(now - ms) / 1000 if ms < now else 0.0 for ms in known])


def age_s(timestamp_ms: int | None) -> float:
    """Seconds since a record's timestamp; 0 where it has none or one in the future."""
    if timestamp_ms is None or timestamp_ms < 0:
        return 0.0
    return max(0.0, time.time() - timestamp_ms / 1000)  # noqa: TID251 - telemetry reads the clock


def configure_logging(log_format: Literal["console", "json"]) -> None:
    """Sends every log of this process, those of libraries included, to stderr in one format."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    prepare = structlog.stdlib.ProcessorFormatter.wrap_for_formatter
    structlog.configure(
        processors=[*shared, prepare],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(log_format),
            ],
        )
    )
    handler.addFilter(_worth_a_line)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)


def _worth_a_line(record: logging.LogRecord) -> bool:
    """aiokafka logs each of its retries; what it did not expect comes with a traceback.

    Faust logs a failure that ends it as a defect: that is told by whoever runs it.
    """
    library = record.name.partition(".")[0]
    if library in ("faust", "mode"):
        return not (record.exc_info and isinstance(record.exc_info[1], Failure))
    return library != "aiokafka" or record.exc_info is not None


def _renderers(log_format: Literal["console", "json"]) -> list[structlog.typing.Processor]:
    if log_format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # The default formatter would print local variables, and with them payloads.
    plain = structlog.dev.plain_traceback
    console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    return [_on_one_line, console]


def _on_one_line(
    _: object, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """What came from outside writes no line of its own; JSON escapes it anyway."""
    return {
        name: shown(value) if isinstance(value, str) else value for name, value in event.items()
    }


@asynccontextmanager
async def serving(port: int | None, alive: Probe, ready: Probe) -> AsyncIterator[None]:
    """Answers ``/metrics``, ``/healthz`` and ``/readyz`` on every interface; nothing without a port.

    Raises `StartRefused` where the port cannot be had.
    """
    if port is None:
        yield
        return
    try:
        server = await asyncio.start_server(partial(_answer, alive, ready), port=port)
    except OSError as error:
        raise StartRefused(f"cannot listen on METRICS_PORT {port}: {error.strerror}") from error
    async with server:
        yield


async def _answer(
    alive: Probe, ready: Probe, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One request to a connection."""
    try:
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            path = b"".join(head.split(b" ", 2)[1:2]).partition(b"?")[0]
            status, kind, body = _response(path, alive, ready)
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return  # the other side went away or speaks no HTTP
    finally:
        writer.close()


def _response(path: bytes, alive: Probe, ready: Probe) -> tuple[str, str, bytes]:
    """Status, content type and body."""
    if path == b"/metrics":
        return "200 OK", CONTENT_TYPE_LATEST, generate_latest()
    probe = {b"/healthz": alive, b"/readyz": ready}.get(path)
    if probe is None:
        return "404 Not Found", "text/plain", b"try /metrics, /healthz or /readyz\n"
    faults = probe()
    status = "503 Service Unavailable" if faults else "200 OK"
    return status, "text/plain; charset=utf-8", ("\n".join(faults or ["ok"]) + "\n").encode()
