"""Patterns that hang a backtracking engine, and conditions on as much text as there may be: time grows with the text and no faster.

Time is that of the processor, of the least of some runs; what is compared with it is measured beside it.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import pytest
import re2

from processor.api.definitions import definition
from processor.embedded.journal import free_port
from processor.io.clock import now_ms
from processor.pure.metadata import LARGEST
from processor.pure.operators import compile_operator
from processor.pure.triage import slow
from processor.pure.types import AttributeFilter, OrgRules, Rules
from schemas import MetadataDefinition
from tests.api.client import Api, api, http_client
from tests.api.rows import row, store
from tests.harness import Message, Worker, World, processor, produce, until
from tests.unit.decision_records import an_event

__all__ = ["api"]

NESTED = ("(a+)+$", "(a|a)*b", "(a*)*b", "([a-z]+)*!", "(x+x+)+y", "(a|ab|b)*c", "(?:a?){30}a{30}$")
"""Exponential where an engine goes back."""
HEAVY = ("[ab]*[abc]{300}d", "(.{1,400}){1,2}x$", "(.{0,300}!|.{0,299}a!)")
"""The worst there is for an automaton: more states than it may keep."""
MINUTES = [
    {"key": "k", "operator": "matches", "value": f"(.{{0,1000}}!|.{{0,999}}a!|{n})"}
    for n in range(20)
]
"""Conditions that take about that long with `LONG`."""
LONG = {"k": "a" * 100_000 + "!"}
TOO_LARGE = (
    "(a{1000}){1000}",
    "((a{30}){30}){30}",
    r"(\pL{1,100}){1,5}!",
    r"[\pL\pN]{1000}",
    "(?:.{1,999}!){1,2}",
    "a{1001}",
    "|".join(f"{chr(ord('a') + n % 26)}{{1000}}" for n in range(100)),
)
BACKTRACKING_ONLY = (r"(a)\1", "(?=a)", "(?<!a)b", "(?>a+)")


def short(value: object) -> str:
    """What a case is called."""
    return str(value)[:12]


def spent(work: Callable[[], object]) -> float:
    """Seconds of this process."""
    least = float("inf")
    for _ in range(3):
        begun = time.process_time()
        work()
        least = min(least, time.process_time() - begun)
    return least


@pytest.mark.parametrize("pattern", [*NESTED, *HEAVY])
def test_the_time_of_a_search_grows_with_its_text_and_no_faster(pattern: str) -> None:
    """Four times the text: far from sixteen times the time, as it would be where time grows with its square."""
    search = compile_operator("matches", pattern)
    short, long = (
        ("ab" * 1_000, "ab" * 4_000) if pattern in HEAVY else ("a" * 25_000, "a" * 100_000)
    )
    assert spent(lambda: search(long)) < 8 * spent(lambda: search(short)) + 0.002


@pytest.mark.parametrize(
    "pattern", [*TOO_LARGE, *BACKTRACKING_ONLY, "x" * 1_001, "(" * 900, "a**"], ids=short
)
def test_a_pattern_that_takes_too_much_memory_or_going_back_is_refused(pattern: str) -> None:
    """By the worker, and before that by who makes the filter, who is told the reason."""
    with pytest.raises(ValueError, match="takes a"):
        compile_operator("matches", pattern)
    condition = {"key": "k", "operator": "matches", "value": pattern}
    with pytest.raises(ValueError, match=r"(?i)pattern|1000 characters"):
        MetadataDefinition.model_validate({"id": "a", "name": "a", "conditions": [condition]})


def test_a_pattern_is_compiled_once() -> None:
    """By who checks it, by who previews it, and by the same process however often: its compiled form is kept."""
    patterns = [f"{n}|(once)" for n in range(20)]
    conditions = [{"key": "k", "operator": "matches", "value": one} for one in patterns]
    before = re2._Regexp._make.cache_info().misses
    for _ in range(2):
        definition("metadata", {"id": "a", "name": "a", "conditions": conditions})
    assert re2._Regexp._make.cache_info().misses - before == 20


@pytest.mark.parametrize("letter", ["a", "é", "ß"])
def test_a_thousand_conditions_on_the_longest_text_cost_a_thousand_searches(letter: str) -> None:
    """And no more: that case does not count is seen to once."""
    text = letter * (LARGEST // len(letter.encode()) - 20)
    needles = [f"x{n}" for n in range(1_000)]
    tests = [compile_operator("contains", needle) for needle in needles]
    folded = text.casefold()
    plain = spent(lambda: [needle in folded for needle in needles])
    fold = spent(text.casefold)
    assert spent(lambda: [test(text) for test in tests]) < 3 * plain + 10 * fold + 0.005


@pytest.mark.parametrize(
    ("operator", "value", "text"),
    [
        ("gt", 5, "1" * 100_000),
        ("gt", 5, "0." + "1" * 100_000),
        ("lt", "1e5", "1e" + "9" * 100_000),
        ("gt", "9" * 100_000, "9" * 100_000),
        ("equals", "1" * 100_000, "1" * 100_000),
        ("in_cidr", "10.0.0.0/8", "1." * 50_000),
        ("contains", "a" * 500 + "b", "a" * 100_000),
        ("contains", "ab" * 500 + "c", "ab" * 50_000),
        ("in", ["a" * 100] * 1_000, "a" * 100_000),
    ],
    ids=short,
)
def test_no_operator_takes_long_for_the_longest_text(
    operator: str, value: object, text: str
) -> None:
    """Reading a number, an address or a needle of it takes less than a hundred times what looking through it once takes."""
    test = compile_operator(operator, value)
    once = spent(lambda: re.search("[^0-9a-z.]", text))
    assert spent(lambda: test(text)) < 100 * once


def test_what_is_slow_is_known_beforehand() -> None:
    """Any search for a pattern, and much text for many filters; not what filters mostly do."""
    quick = AttributeFilter("a", "a", 1, "", lambda _: False)
    many = OrgRules(velocity={}, attributes={"": (quick,) * 1_000})
    few = OrgRules(velocity={}, attributes={"": (quick,)})
    pattern = OrgRules(velocity={}, attributes={"": (quick, _search(lambda _: False))})
    small = [an_event()]
    assert not slow(small, _rules(few))
    assert not slow(small * 2_000, _rules(many))
    assert slow(small, _rules(pattern))
    large = orjson.dumps({"k": "x" * 100_000})
    assert slow([an_event(metadata_json=large)] * 2, _rules(many))
    assert not slow([an_event(metadata_json=large)] * 2, _rules(few))


def _rules(of_org_unit: OrgRules) -> Rules:
    return Rules(1, "velocity,metadata", {an_event().org_unit: of_org_unit})


def _search(matches: Callable[[Any], bool]) -> AttributeFilter:
    return AttributeFilter("b", "b", 1, "", matches, searches=True)


@pytest.mark.e2e
async def test_a_preview_of_the_worst_pattern_holds_up_nobody(api: Api) -> None:
    """Others are answered while it searches, and it is answered in the end."""
    worst = {"key": "k", "operator": "matches", "value": "(.{0,1000}!|.{0,999}a!)"}
    await store(
        api.database,
        [row(1, occurred_at=now_ms() // 1000 * 1000, metadata={"k": "a" * 100_000})],
    )
    body = {"filter": {"conditions": [worst]}, "range": "last_7d"}
    preview = asyncio.create_task(api.client.post("/metadata-filters/preview", json=body))
    await until(lambda: api.services.previews.taken)
    for _ in range(3):
        assert (await api.client.get("/event-types")).status_code == 200
    assert not preview.done()
    answer = await preview
    assert (answer.status_code, answer.json()["suppressed"]) == (200, 0)


@pytest.mark.e2e
@pytest.mark.timeout(120)
async def test_a_worker_ends_in_time_however_long_a_search_takes(
    world: World, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """What it has found is thrown away: whoever has the partition next searches again."""
    await world.create_topics(1)
    heavy = {"id": "heavy", "name": "Heavy", "conditions": MINUTES}
    filters = tmp_path / "filters.yaml"
    filters.write_text(json.dumps({"org_units": {"acme": {"metadata_filters": [heavy]}}}))
    processor(world.environment(), "filters", "apply", str(filters))
    worker = start_worker(world.environment())
    await worker.ready()
    process = psutil.Process(worker.pid)
    before = process.cpu_times().user
    said = {"org_unit": "acme", "lead_id": "a", "event_type": "b"}
    messages = [Message(orjson.dumps({**said, "metadata": LONG}), b"a") for _ in range(5)]
    await produce(world.kafka, world.raw, messages)
    await until(lambda: process.cpu_times().user > before + 2, 30)
    assert await worker.stop(30) == 0
    assert "worker_drained" in worker.output.splitlines()[-1]


@pytest.mark.e2e
@pytest.mark.timeout(240)
async def test_an_api_ends_in_time_however_long_a_preview_takes(
    api: Api, start_worker: Callable[..., Worker]
) -> None:
    """Who asked for it has to ask again."""
    await store(api.database, [row(1, occurred_at=now_ms() // 1000 * 1000, metadata=LONG)])
    port = free_port()
    other = start_worker({**api.world.environment(), "API_PORT": str(port)}, "api")
    async with http_client(f"http://127.0.0.1:{port}", await api.token()) as client:
        client.timeout = httpx.Timeout(120)  # of the preview, from its beginning
        await until(partial(_answers, client), 60)
        body = {"filter": {"conditions": MINUTES}, "range": "last_7d"}
        preview = asyncio.create_task(client.post("/metadata-filters/preview", json=body))
        process = psutil.Process(other.pid)
        before = process.cpu_times().user
        await until(lambda: process.cpu_times().user > before + 2, 60)
        assert await other.stop(60) == 0
        assert (await preview).is_server_error


async def _answers(client: httpx.AsyncClient) -> bool:
    with suppress(httpx.TransportError):
        return (await client.get("/healthz")).status_code == 200
    return False
