"""The API answers what its own description says, whatever it is asked; and the description is whole."""

import asyncio
import re
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jsonschema_rs
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from processor.io import filters
from processor.io.clock import now_ms
from processor.pure.enriched import Organic
from schemas import FilterFile
from tests.api.client import Api, api
from tests.api.counting import count
from tests.api.filtering import made
from tests.api.merging import apply, command
from tests.api.rows import row, store

__all__ = ["api"]
pytestmark = pytest.mark.e2e

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    ignored_auth,
]
ENDLESS = {"/stream"}
FUZZING_S = 1.5
"""For each operation."""
BOT = {"key": "user_agent", "operator": "contains", "value": "bot"}
VELOCITY = {"id": "vf-10", "name": "A", "event_type": "x", "threshold": 2, "window_ms": 1000}
FILTERS = FilterFile.model_validate(
    {
        "org_units": {
            "acme": {
                "velocity_filters": [VELOCITY],
                "metadata_filters": [{"id": "mf-10", "name": "B", "conditions": [BOT]}],
            }
        }
    }
)
MERGE = command("ld_1", ["ld_456", "ld_457"])


async def document(api: Api) -> dict[str, Any]:
    """The description, which anybody may read."""
    answer = await api.bearing(None).get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def known(path: str) -> dict[str, str]:
    """Ids that exist, for the parameters of a path."""
    ids = {"lead_id": "ld_1", "merge_id": MERGE.message_id}
    filter_id = "vf-10" if path.startswith("/velocity-filters") else "mf-10"
    return {name: ids.get(name, filter_id) for name in re.findall(r"{(\w+)}", path)}


async def seed(api: Api) -> None:
    """What the operations are asked about; again before each of them, since some take it away."""
    now = now_ms() // 1000 * 1000
    await api.database.execute("DELETE FROM events WHERE event_type = 'Page View'")
    await store(api.database, [row(n, lead_id="ld_1", occurred_at=now - n) for n in range(30)])
    await filters.apply(api.owner, FILTERS, "test")
    await count(api, Organic("acme", "evt-1", "ld_1", "Page View", now))
    await apply(api, command("ld_1", ["ld_456", "ld_457"]))


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # schemathesis does
@pytest.mark.timeout(180)
async def test_every_operation_answers_as_it_is_described_and_succeeds_at_least_once(
    api: Api,
) -> None:
    """With what fits the description and with what does not, with a token of all scopes and ids that exist."""
    await apply(api, MERGE)
    described = schemathesis.openapi.from_dict(await document(api))
    failed, number = [], 0
    for result in described.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        if operation.path in ENDLESS:
            continue
        await seed(api)
        call = partial(_call, api, requests.Session())
        number += 1
        if not 200 <= await asyncio.to_thread(call, _example(operation)) < 300:
            failed.append(operation.label)
        await asyncio.to_thread(_fuzz, operation, call)
    assert failed == []
    assert number >= 10


def _example(operation: Any) -> Any:
    """The operation as its description shows it."""
    case: dict[str, Any] = {"path_parameters": known(operation.path)}
    body = operation.definition.raw.get("requestBody")
    if body:
        case["body"] = _body_of(body["content"]["application/json"])
        case["media_type"] = "application/json"
    return operation.Case(**case)


def _body_of(content: dict[str, Any]) -> Any:
    """The only example, or the first of those that have a name."""
    named = content.get("examples")
    return next(iter(named.values()))["value"] if named else content["example"]


def _call(api: Api, session: requests.Session, case: Any) -> int:
    token = api.client.headers["authorization"]
    answer = case.call(base_url=api.url, session=session, headers={"Authorization": token})
    case.validate_response(answer, checks=CHECKS, transport_kwargs={"session": session})
    status: int = answer.status_code
    return status


def _fuzz(operation: Any, call: Any) -> None:
    until = time.monotonic() + FUZZING_S
    ids = known(operation.path)
    kinds = [operation.as_strategy(mode) for mode in GenerationMode]
    if ids:
        kinds += [operation.as_strategy(mode, path_parameters=ids) for mode in GenerationMode]
    for strategy in kinds:

        @settings(
            max_examples=12,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=[*HealthCheck],
        )
        @given(strategy)
        def one(case: Any) -> None:
            if time.monotonic() < until:
                call(case)

        one()


async def test_every_answer_has_an_example_that_fits_its_schema(api: Api) -> None:
    """As has every body that is asked for."""
    described = await document(api)
    found = 0
    for place, content in _contents(described):
        assert "example" in content or "examples" in content, place
        for example in _examples(content):
            found += 1
            schema = {**content["schema"], "components": described["components"]}
            errors = [*jsonschema_rs.validator_for(schema).iter_errors(example)]
            assert errors == [], place
    assert found > 50


def _contents(described: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path, item in described["paths"].items():
        for method, operation in item.items():
            place = f"{method} {path}"
            if "requestBody" in operation:
                yield place, operation["requestBody"]["content"]["application/json"]
            for status, response in operation["responses"].items():
                for content in response.get("content", {}).values():
                    yield f"{place} {status}", content


def _examples(content: Mapping[str, Any]) -> Iterator[Any]:
    if "example" in content:
        yield content["example"]
    for one in content.get("examples", {}).values():
        yield one["value"]


async def test_a_body_may_be_what_is_taken_and_no_more(api: Api) -> None:
    """Ids as many as are deleted at once, answers sent back, null where it is absent."""
    described = await document(api)
    event = {"lead_id": "l", "event_type": "x"}
    velocity = await made(api, "/velocity-filters", event_type="ß" + "a" * 127)
    metadata = await made(api, "/metadata-filters")
    for method, path, body, good in (
        ("delete", "/events/batch", {"event_ids": ["a"] * 1_000}, True),
        ("delete", "/events/batch", {"event_ids": ["a"] * 1_001}, False),
        ("delete", "/events/batch", {"event_ids": []}, False),
        ("put", "/velocity-filters/{filter_id}", velocity, True),
        ("patch", "/velocity-filters/{filter_id}", velocity, True),
        ("put", "/metadata-filters/{filter_id}", metadata, True),
        ("put", "/metadata-filters/{filter_id}", metadata | {"colour": "red"}, False),
        ("post", "/metadata-filters", metadata | {"id": "other"}, True),
        ("post", "/ingest", event | {"metadata": None, "id": None, "timestamp": None}, True),
        ("post", "/ingest", event | {"timestamp": "2024-01-01T00:00:00Z", "created_at": 5}, True),
        ("post", "/ingest", event | {"created_at": 5}, False),
    ):
        content = described["paths"][path][method]["requestBody"]["content"]["application/json"]
        schema = {**content["schema"], "components": described["components"]}
        assert jsonschema_rs.is_valid(schema, body) is good, (method, path, str(body)[:80])
        taken = path.format(filter_id=body.get("id"))
        answer = await api.client.request(method, taken, json=body)
        assert answer.is_success is good, answer.text


async def test_the_summary_is_asked_for_no_page(api: Api) -> None:
    """It has none."""
    operation = (await document(api))["paths"]["/suppression/summary"]["get"]
    named = {one["name"] for one in operation["parameters"]}
    assert named == {"event_type", "range", "suppression_reason"}
    assert (await api.client.get("/suppression/summary?page=x&limit=1000")).status_code == 200


async def test_every_operation_says_what_it_is_and_every_reference_leads_somewhere(
    api: Api,
) -> None:
    """In the description and in the older spelling that the viewer reads."""
    described = await document(api)
    older = (await api.bearing(None).get("/docs/openapi.json")).json()
    for one in (described, older):
        references = set(re.findall(r'"#/components/schemas/([^"]+)"', str(one).replace("'", '"')))
        assert references <= set(one["components"]["schemas"])
        assert "$defs" not in str(one)
        assert "HTTPValidationError" not in str(one)
    assert (described["openapi"][:3], older["openapi"][:3]) == ("3.1", "3.0")
    assert "'type': 'null'" not in str(older)
    for item in described["paths"].values():
        for operation in item.values():
            assert operation["description"]
            assert operation["security"] == [{"HTTPBearer": []}]
            assert {"401", "403", "503"} <= set(operation["responses"])
            assert "422" not in operation["responses"]


async def test_the_page_of_the_docs_needs_no_other_host(api: Api) -> None:
    """Every file it names is served here, without a token, and its policy allows nothing else."""
    stranger = api.bearing(None)
    page = await stranger.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "//" not in page.text
    assert "<script>" not in page.text
    assert "rounds integers beyond" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(named) == 4
    for name in named:
        answer = await stranger.get(f"/{name}")
        assert answer.status_code == 200, name
        assert len(answer.content) > 100
    kinds = [(await stranger.get(f"/{name}")).headers["content-type"] for name in named]
    assert [kind.partition(";")[0] for kind in kinds] == [
        "image/png", "text/css", "text/javascript", "text/javascript",
    ]  # fmt: skip
