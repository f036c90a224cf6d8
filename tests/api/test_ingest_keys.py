"""`Idempotency-Key`: one answer for a key and a body, one publication, whoever is asked, at once or later."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from processor.api import server
from processor.failures import Retryable
from processor.io import idempotency
from tests.api.client import Api, api, running
from tests.harness import hour_ago, read_topic, until

__all__ = ["api"]
pytestmark = pytest.mark.e2e

AT = 1_736_937_000_000
DAY = 86_400_000
VIEW: dict[str, Any] = {"lead_id": "ld_1", "event_type": "page_view"}
BODY = [VIEW, VIEW | {"id": "evt-1"}]


async def sent(api: Api, body: Any, key: str) -> Any:
    """The answer to a body under a key."""
    return await api.client.post("/ingest", json=body, headers={"Idempotency-Key": key})


async def published(api: Api) -> list[tuple[str, int]]:
    """Id and timestamp of every record of the raw topic."""
    records = await read_topic(api.world.kafka, api.world.raw)
    return [(json.loads(record.value or b"")["id"], record.timestamp) for record in records]


async def keys(api: Api) -> int:
    """How many are kept."""
    count: int = await api.database.fetchval("SELECT count(*) FROM idempotency_keys")
    return count


async def test_a_repeated_key_has_the_same_answer_and_publishes_nothing_again(api: Api) -> None:
    """From another API process, too; ids that were assigned are those of the first time."""
    first = await sent(api, BODY, "k 1~")
    assert first.status_code == 202
    async with running(api.world) as other:
        for one in (api, other):
            again = await sent(one, BODY, "k 1~")
            assert (again.status_code, again.content) == (202, first.content)
    assert [event_id for event_id, _ in await published(api)] == first.json()["ids"]


async def test_another_body_under_a_key_is_a_conflict(api: Api) -> None:
    """Any other body, a bad one too; nothing of it is published, and the first answer stays."""
    first = await sent(api, BODY, "k")
    for body in (VIEW, BODY[:1], [], "x"):
        answer = await sent(api, body, "k")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
        assert answer.json()["error"]["message"].startswith("Idempotency-Key: ")
    assert (await sent(api, BODY, "k")).content == first.content
    assert len(await published(api)) == 2


async def test_a_key_is_the_org_units_own(api: Api) -> None:
    """Another org unit may use the same one for something else, and learns nothing."""
    await sent(api, BODY, "k")
    other = await api.as_org_unit("globex")
    answer = await other.post("/ingest", json=VIEW, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 202
    assert answer.json()["ids"][0] not in (await sent(api, BODY, "k")).json()["ids"]
    assert len(await published(api)) == 3


async def test_a_refused_request_claims_nothing(api: Api) -> None:
    """The key is still free for a body that is good."""
    assert (await sent(api, [{}], "k")).status_code == 400
    large = VIEW | {"metadata": {"text": "x" * 102_400}}
    assert (await sent(api, large, "k")).status_code == 413
    assert await keys(api) == 0
    assert (await sent(api, BODY, "k")).status_code == 202


async def test_a_key_has_1_to_128_printable_ascii_characters(api: Api) -> None:
    """And is given once."""
    for key in ("", "x" * 129, "tab\tin", "é"):
        headers = [(b"Idempotency-Key", key.encode("latin-1"))]
        answer = await api.client.post("/ingest", json=VIEW, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request"), key
        assert answer.json()["error"]["message"].startswith("Idempotency-Key: ")
    twice = [(b"Idempotency-Key", b"a"), (b"Idempotency-Key", b"b")]
    assert (await api.client.post("/ingest", json=VIEW, headers=twice)).status_code == 400
    assert await published(api) == []
    assert (await sent(api, VIEW, "~" * 128)).status_code == 202


async def test_after_24_hours_a_key_is_new(api: Api) -> None:
    """To the millisecond, also where its row is still there; the answer of one that is nearly as old stays."""
    at = api.now.at = hour_ago() - 2 * DAY
    first = await sent(api, BODY, "k")
    api.now.at = at + DAY - 1
    assert (await sent(api, BODY, "k")).content == first.content
    assert (await sent(api, VIEW, "k")).status_code == 409
    api.now.at = at + DAY
    second = await sent(api, BODY, "k")
    assert (second.status_code, second.json() == first.json()) == (202, False)
    assert (await sent(api, BODY, "k")).content == second.content
    assert [timestamp for _, timestamp in await published(api)] == [at, at, at + DAY, at + DAY]


async def test_old_keys_are_forgotten_by_housekeeping(api: Api) -> None:
    """Of every org unit; those of today stay."""
    await sent(api, BODY, "new")
    for org_unit in ("acme", "globex"):
        await api.database.execute(
            "INSERT INTO idempotency_keys (org_unit, key, body_hash, ids, claimed_at, done)"
            " VALUES ($1, 'old', '', '{}', now() - interval '24 hours 1 second', true)",
            org_unit,
        )
    keeping = asyncio.create_task(server._housekeeping(api.services))

    async def only_the_new_one() -> bool:
        rows = await api.database.fetch("SELECT key FROM idempotency_keys")
        return [row["key"] for row in rows] == ["new"]

    await until(only_the_new_one)
    keeping.cancel()


async def test_requests_at_once_with_a_key_publish_once(api: Api) -> None:
    """Of two API processes."""
    async with running(api.world) as other, asyncio.TaskGroup() as scope:
        asked = [scope.create_task(sent(one, BODY, "k")) for one in [api, other] * 10]
        bodies = {(await each).content for each in asked}
        assert {(await each).status_code for each in asked} == {202}
    assert len(bodies) == 1
    assert [event_id for event_id, _ in await published(api)] == json.loads(bodies.pop())["ids"]


class Gate:
    """What is published, by a publisher that a test holds back and lets go."""

    def __init__(self, fails: BaseException | None = None) -> None:
        self.calls: list[tuple[Sequence[str], int]] = []
        self.opened = asyncio.Event()
        self._fails = fails

    async def publish(self, ids: Sequence[str], timestamp: int) -> None:
        """Published, and then perhaps not known to be."""
        self.calls.append((ids, timestamp))
        await self.opened.wait()
        if self._fails is not None:
            raise self._fails


class Died(BaseException):
    """The process ends here: it tells nobody."""


def once(api: Api, gate: Gate, event_id: str, at: int, body: bytes = b"x") -> Any:
    """A request under one key that would have this id and this time."""
    claim = idempotency.Claim(idempotency.named("acme", "k", body), [event_id], at)
    return idempotency.once(api.services.postgres, claim, gate.publish)


async def test_who_asks_meanwhile_waits_for_the_one_that_publishes(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For longer than a lease lasts unless it is renewed; another body need not wait to be refused."""
    monkeypatch.setattr(idempotency, "RENEWED_S", 0.2)  # a commit may take its time
    first, second = Gate(), Gate()
    async with asyncio.TaskGroup() as scope:
        one = scope.create_task(once(api, first, "a", AT))
        await until(lambda: first.calls)
        two = scope.create_task(once(api, second, "b", AT + 1))
        assert await once(api, second, "c", AT + 2, b"y") == idempotency.Taken()
        begun = asyncio.get_running_loop().time()
        lapsed = begun + idempotency.LEASE_MS / 1000 + 0.5
        await until(lambda: asyncio.get_running_loop().time() > lapsed)
        assert not two.done()
        first.opened.set()
        assert (await one, await two) == (["a"], ["a"])
    assert second.calls == []


async def test_no_connection_is_held_while_something_is_published(api: Api) -> None:
    """More of them than there are connections, and others are answered."""
    gate = Gate()
    postgres = api.services.postgres
    async with asyncio.TaskGroup() as scope:
        for n in range(40):
            named = idempotency.named("acme", f"k{n % 20}", b"x")
            claim = idempotency.Claim(named, [f"evt-{n}"], AT)
            scope.create_task(idempotency.once(postgres, claim, gate.publish))
        await until(lambda: len(gate.calls) == 20)
        assert (await api.client.get("/events")).status_code == 200
        gate.opened.set()
    assert len(gate.calls) == 20


async def test_a_failed_publication_can_be_tried_again_at_once(api: Api) -> None:
    """With the ids and the time of the first try, since some of it may have been written."""
    failing, second = Gate(Retryable("kafka", "away")), Gate()
    failing.opened.set()
    second.opened.set()
    with pytest.raises(Retryable):
        await once(api, failing, "a", AT)
    async with asyncio.timeout(idempotency.LEASE_MS / 1000):
        assert await once(api, second, "b", AT + 1) == ["a"]
    assert second.calls == [(["a"], AT)]


async def test_the_claim_of_one_that_died_is_taken_over(api: Api) -> None:
    """When its lease has run out, by one of those that wait; the others get its answer."""
    dying, others = Gate(Died()), Gate()
    dying.opened.set()
    others.opened.set()
    with pytest.raises(Died):
        await once(api, dying, "a", AT)
    async with asyncio.timeout(idempotency.LEASE_MS / 1000 + 3), asyncio.TaskGroup() as scope:
        waiting = [scope.create_task(once(api, others, f"b{n}", AT + n)) for n in range(1, 4)]
    assert [each.result() for each in waiting] == [["a"]] * 3
    assert dying.calls == others.calls == [(["a"], AT)]


async def test_the_api_sees_no_key_of_another_org_unit(api: Api) -> None:
    """Through its own pool, without any WHERE."""
    await sent(api, BODY, "k")
    async with api.services.postgres.of_org_unit("globex") as connection:
        assert await connection.fetch("SELECT * FROM idempotency_keys") == []
        assert await connection.execute("DELETE FROM idempotency_keys") == "DELETE 0"
    assert await keys(api) == 1
