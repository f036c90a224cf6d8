"""One real stack for the whole session, a world of its own for each test, and no error that goes unseen."""

import gc
import inspect
import logging
import os
import secrets
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import hypothesis
import pytest
import structlog

from processor.embedded import Stack
from processor.failures import StartRefused
from processor.io.migrate import migrate
from tests import harness
from tests.harness_cluster import Cluster, cluster_in

# A run under nohup ignores the end of its terminal, and so would all that tests start; what is handled is not inherited.
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)
# Time says nothing on a machine that servers and tests share.
hypothesis.settings.register_profile("suite", deadline=None)
# `make check` looks at each rule, `make test` looks for the rare case.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=6)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Kafka, Valkey and Postgres, embedded unless the environment names others."""
    servers = Stack(tmp_path_factory.mktemp("stack"))
    try:
        servers.start()
    except StartRefused as refused:
        pytest.fail(f"no servers to test on: {refused}; `make test` installs them", pytrace=False)
    yield servers
    servers.stop()


@pytest.fixture(scope="session")
def template(stack: Stack) -> Iterator[str]:
    """The name of a migrated database that every test's own is a copy of."""
    name = harness.create_database(stack.postgres)
    harness.run(migrate(harness.database_url(stack.postgres, name)))
    yield name
    harness.drop_database(stack.postgres, name)


@pytest.fixture
def database(stack: Stack, template: str) -> Iterator[str]:
    """The URL of a fresh migrated database."""
    name = harness.create_database(stack.postgres, template)
    yield harness.database_url(stack.postgres, name)
    harness.drop_database(stack.postgres, name)


@pytest.fixture
def empty_database(stack: Stack) -> Iterator[str]:
    """The URL of a fresh database without a schema."""
    name = harness.create_database(stack.postgres)
    yield harness.database_url(stack.postgres, name)
    harness.drop_database(stack.postgres, name)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of Valkey that the tests of a module share; each of them begins with `Cluster.empty`."""
    with cluster_in(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture
def redis_url(stack: Stack) -> Iterator[str]:
    """The URL of an empty Redis."""
    url = harness.empty_redis(stack.redis)
    yield url
    harness.flush_redis(url)


@pytest.fixture(scope="session")
def used() -> list[str]:
    """Ids of worlds of tests that are over, whose topics are still there: they go some worlds at a time."""
    return []


@pytest.fixture
def world(stack: Stack, database: str, redis_url: str, used: list[str]) -> Iterator[harness.World]:
    """All a processor needs, shared with no other test; its topics are not created yet."""
    mine = harness.World(stack.kafka, redis_url, database, f"t{secrets.token_hex(6)}")
    yield mine
    used.append(mine.id)
    if len(used) >= harness.WORLDS_KEPT:
        harness.run(harness.delete_topics(stack.kafka, used))
        used.clear()


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., harness.Worker]]:
    """Starts ``processor worker`` (or another command) with an environment; all are killed at the end."""
    started: list[harness.Worker] = []

    def start(
        environment: Mapping[str, str], *command: str, program: Path | None = None
    ) -> harness.Worker:
        log = tmp_path / f"worker-{len(started)}.log"
        worker = harness.Worker(environment, log, command or ("worker",), program=program)
        started.append(worker)
        worker.start()
        return worker

    yield start
    for worker in started:
        worker.kill()


@pytest.fixture
def own_logging() -> Iterator[None]:
    """How this process logs is the test's to set, and as before when it ends."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def _no_swallowed_error(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails the async test whose task failed with nobody there to see it."""
    if not inspect.iscoroutinefunction(request.function):
        yield
        return
    heard, logger = _Heard(), logging.getLogger("asyncio")
    logger.addHandler(heard)
    yield
    gc.collect()  # asyncio reports a lost failure when its task is collected
    logger.removeHandler(heard)
    assert not heard.records, [record.getMessage() for record in heard.records]


@pytest.fixture(autouse=True, scope="session")
def _own_environment() -> None:
    """Settings of the shell that runs the tests reach no test, but for where servers are."""
    gc.freeze()  # what is imported by now stays: looking for lost tasks after each test need not pass it
    for name in (
        "RAW_TOPIC",
        "MERGE_TOPIC",
        "ENRICHED_TOPIC",
        "DEAD_TOPIC",
        "ENGAGEMENT_TOPIC",
        "CONSUMER_GROUP",
        "METRICS_PORT",
    ):
        os.environ.pop(name, None)
