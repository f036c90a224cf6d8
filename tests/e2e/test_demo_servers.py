"""The demo's servers in this process: what is told of one that fails, and what is left when they end."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from processor.demo import play
from processor.demo.servers import Servers
from processor.embedded.processes import alive, children, tree
from processor.failures import Failure, StartRefused

pytestmark = [pytest.mark.e2e]


@pytest.fixture
def _other() -> Iterator[None]:
    """A process of somebody else."""
    other = psutil.Popen(["sleep", "60"])
    yield
    other.kill()
    other.wait()


@pytest.fixture
def servers(_other: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    """All but Kafka, not begun."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = Servers({"KAFKA_BOOTSTRAP_SERVERS": "somebody.else:1"})
    yield mine
    mine.stop()
    shutil.rmtree(mine.folder, ignore_errors=True)


async def test_of_servers_that_stop_since_one_cannot_start_that_one_is_to_blame(
    servers: Servers,
) -> None:
    """Redis serves, and is ended because Postgres does not come up: it has not ended by itself."""
    postgres = servers.folder / "servers" / "postgres"
    postgres.mkdir(parents=True)
    (postgres / "initialised").touch()  # and yet it has no data
    servers.begin()
    await servers.url("redis")
    waiting, dead = asyncio.create_task(servers.url("postgres")), set[str]()
    while not waiting.done():
        dead |= set(servers.dead())
        await asyncio.sleep(0)
    with pytest.raises(StartRefused, match="postgres does not come up"):
        await waiting
    assert (dead, servers.dead()) == (set(), [])
    first = play._first(ExceptionGroup("all of it", [Failure("no Redis any more")]), servers)
    assert "postgres does not come up" in str(first)


async def test_a_disk_that_takes_nothing_more_is_given_back(servers: Servers) -> None:
    """No process and no file is left, although the journal cannot be written."""
    others = children()  # a whole run has servers of its own
    servers.begin()
    for name in ("redis", "postgres"):
        await servers.url(name)
    family = [process for child in children() - others for process in tree(child)]
    (servers.folder / "servers" / "stack.new").mkdir()
    assert servers.stop()
    assert len(family) > 1
    assert not any(map(alive, family))
    assert not servers.folder.exists()


def test_a_start_that_is_cut_off_ends_no_process_but_its_own(servers: Servers) -> None:
    """Who was there before the servers goes on, and of them nothing is left."""
    others = children()
    servers.begin()
    assert servers.stop()
    assert len(others) > 0
    assert all(map(alive, others))
    assert children() == others
