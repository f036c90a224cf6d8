"""Every command of docker-compose.yml, run as it stands there, in the image's environment, on the embedded servers."""

import re
import secrets
import shlex
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from processor.embedded import Stack
from tests import harness
from tests.deploy import compose
from tests.deploy.running import Place, Process

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]
DOCUMENT = compose.read()
OURS = compose.ours(DOCUMENT)
ONCE = [name for name in compose.in_order(DOCUMENT) if name in OURS and compose.ends(OURS[name])]
LASTING = [name for name in OURS if name not in ONCE]


@pytest.fixture(scope="module")
def place(stack: Stack, image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A world in which nothing has run yet: no schema, no topics."""
    folder = tmp_path_factory.mktemp("compose")
    for volume in DOCUMENT["volumes"]:
        (folder / volume).mkdir()
    name = harness.create_database(stack.postgres)
    redis = harness.empty_redis(stack.redis)
    url = harness.database_url(stack.postgres, name)
    yield Place(image, harness.World(stack.kafka, redis, url, f"t{secrets.token_hex(6)}"), folder)
    harness.flush_redis(redis)
    harness.drop_database(stack.postgres, name)


@pytest.fixture(scope="module")
def prepared(place: Place) -> dict[str, str]:
    """What each service that runs once has printed, run in the order of their needs."""
    return {name: Process(name, OURS[name], place).ends() for name in ONCE}


@pytest.fixture
def begin(place: Place, prepared: dict[str, str]) -> Iterator[Callable[[str, int], Process]]:
    """Starts a service that lasts, once everything it waits for has run."""
    started: list[Process] = []
    assert prepared

    def start(name: str, number: int = 1) -> Process:
        process = Process(name, OURS[name], place, number)
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.kill()


def test_what_runs_once_ends_well_and_a_second_time_changes_nothing(
    place: Place, prepared: dict[str, str], tmp_path: Path
) -> None:
    """The token stays, and so do filters that somebody has changed meanwhile."""
    assert prepared["migrate"].endswith("\n")
    assert "events.raw" not in prepared["topics"]
    environment = place.world.environment()
    own = tmp_path / "filters.yaml"
    own.write_text("org_units: {acme: {velocity_filters: []}}")
    harness.processor(environment, "filters", "apply", str(own))
    again = {name: Process(name, OURS[name], place, 2).ends() for name in ONCE}
    assert again["setup"] == prepared["setup"].splitlines(keepends=True)[-1]
    assert again["migrate"] == "schema is up to date\n"
    assert all(": exists, " in line for line in again["topics"].splitlines())
    assert "mail-scanners" not in harness.processor(environment, "filters", "export")
    assert harness.processor(environment, "tokens", "list").count("compose") == 1
    sample = str(compose.ROOT / "deploy" / "compose" / "sample-filters.yaml")
    harness.processor(environment, "filters", "apply", sample)


@pytest.mark.parametrize("name", LASTING)
def test_a_command_gets_healthy_and_drains(name: str, begin: Callable[[str], Process]) -> None:
    """By the service's own health check, within its own grace period; and it writes to no folder of the image."""
    process = begin(name)
    process.healthy()
    assert process.stop() == 0, process.output[-3000:]
    assert process.left_behind == []
    assert "Traceback" not in process.output


def requests(url: str, token: str) -> list[httpx.Request]:
    """Those of the README's section, to the API at `url`."""
    _, _, section = (compose.ROOT / "README.md").read_text().partition("## Deploying")
    section = section.replace("\\\n", " ").replace("http://127.0.0.1:8080", url)
    curl = ArgumentParser()
    curl.add_argument("url")
    curl.add_argument("-H", action="append")
    curl.add_argument("-d")
    found = []
    for line in re.findall(r"^curl (.*)$", section, re.MULTILINE):
        words = curl.parse_args(shlex.split(line.replace("$TOKEN", token)))
        headers = dict(header.split(": ", 1) for header in words.H)
        method = "POST" if words.d else "GET"
        found.append(httpx.Request(method, words.url, headers=headers, content=words.d))
    return found


async def test_what_is_up_does_what_the_readme_says(
    prepared: dict[str, str], begin: Callable[..., Process]
) -> None:
    """As many workers as the file says, and the API; the token that was printed; verdicts by the sample filters."""
    replicas = OURS["worker"]["deploy"]["replicas"]
    processes = [begin("worker", number) for number in range(1, replicas + 1)] + [begin("api")]
    assert replicas == 2
    for process in processes:
        process.healthy()
    url = f"http://127.0.0.1:{processes[-1].environment['API_PORT']}"
    ingest, events = requests(url, prepared["setup"].splitlines()[-1])
    async with httpx.AsyncClient() as client:
        assert (await client.send(ingest)).status_code == 202

        async def listed() -> list[str | None]:
            found = (await client.send(events)).json()["events"]
            return [one["suppression_reason"] for one in found] if len(found) == 2 else []

        assert set(await harness.until(listed, 20)) == {None, "metadata_filter"}
    assert [process.stop() for process in processes] == [0] * len(processes)
