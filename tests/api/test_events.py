"""``GET /events`` as users know it, word by word, and what it refuses."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.api.client import Api, api
from tests.api.rows import row, store

__all__ = ["api"]
pytestmark = pytest.mark.e2e

AT = 1_736_937_000_000
"""2025-01-15T10:30:00Z."""


async def test_the_known_example(api: Api) -> None:
    """The fields and the envelope, in the words of the contract."""
    metadata = {"path": "/pricing", "referrer": "https://google.com"}
    first = row(1, id="evt-123", lead_id="ld_456", metadata=metadata, occurred_at=AT)
    await store(api.database, [first, *(row(n) for n in range(2, 151))])
    answer = await api.client.get("/events?page=1&limit=25&event_type=Page%20View")
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["events", "total", "page", "limit"]
    assert (body["total"], body["page"], body["limit"], len(body["events"])) == (150, 1, 25, 25)
    assert body["events"][0] == {
        "id": "evt-123",
        "lead_id": "ld_456",
        "event_type": "Page View",
        "metadata": metadata,
        "suppression_reason": None,
        "original_lead_id": None,
        "created_at": "2025-01-15T10:30:00Z",
    }


async def test_a_type_is_found_by_the_name_it_is_told_by(api: Api) -> None:
    """Also where title case has made it another name than would be made of that; and by how it was sent."""
    await store(api.database, [row(1, event_type="ʼN Dag"), row(2, event_type="Ss" + "a" * 127)])
    for found in (await api.client.get("/event-types")).json()["event_types"]:
        assert await total(api, event_type=found["event_type"]) == 1
    assert await total(api, event_type="ŉ_dag") == 1


async def test_milliseconds_are_told_where_they_are_not_zero(api: Api) -> None:
    """And none where they are."""
    await store(api.database, [row(1, occurred_at=AT), row(2, occurred_at=AT + 7)])
    times = [event["created_at"] for event in await events(api)]
    assert times == ["2025-01-15T10:30:00.007Z", "2025-01-15T10:30:00Z"]


async def test_newest_first_and_of_one_moment_the_largest_id_by_bytes(api: Api) -> None:
    """Upper case before lower case, letters before letters with accents."""
    ids = ["a", "Z", "é", "z", "b"]
    await store(api.database, [row(n, id=one, occurred_at=AT) for n, one in enumerate(ids)])
    await store(api.database, [row(9, id="newer", occurred_at=AT + 1)])
    assert [event["id"] for event in await events(api)] == ["newer", "é", "z", "b", "a", "Z"]


async def test_pages_follow_each_other_and_end(api: Api) -> None:
    """Each event once; a page past the end is empty and has the same total."""
    await store(api.database, [row(n) for n in range(55)])
    pages = [(await api.client.get(f"/events?page={n}&limit=25")).json() for n in (1, 2, 3, 4)]
    assert [len(page["events"]) for page in pages] == [25, 25, 5, 0]
    assert {page["total"] for page in pages} == {55}
    ids = [event["id"] for page in pages for event in page["events"]]
    assert ids == [f"evt-{n:06d}" for n in reversed(range(55))]
    far = await api.client.get("/events", params={"page": 10**15})
    assert (far.status_code, far.json()["events"], far.json()["total"]) == (200, [], 55)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"page": "0"}, "page"),
        ({"page": "-1"}, "page"),
        ({"page": "two"}, "page"),
        ({"page": "1.5"}, "page"),
        ({"page": "1_0"}, "page"),
        ({"page": " 1"}, "page"),
        ({"limit": "1.0"}, "limit"),
        ({"page": "1" + "0" * 30}, "page"),
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"range": "last_8d"}, "range"),
        ({"range": "Today"}, "range"),
        ({"suppression_reason": "organic"}, "suppression_reason"),
    ],
)
async def test_a_bad_value_is_a_400_that_names_the_parameter(
    api: Api, asked: dict[str, str], name: str
) -> None:
    """For both listings."""
    for path in ("/events", "/events/A"):
        answer = await api.client.get(path, params=asked)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "bad_request")
        assert error["message"].startswith(f"{name}: ")


async def test_an_empty_parameter_is_absent_and_an_unknown_one_ignored(api: Api) -> None:
    """Whatever a form sends along."""
    await store(api.database, [row(1)])
    asked = "page=&limit=&event_type=&lead_id=&range=&suppression_reason=&colour=red"
    answer = await api.client.get(f"/events?{asked}")
    assert (answer.json()["total"], answer.json()["page"], answer.json()["limit"]) == (1, 1, 25)


async def test_events_are_chosen_by_type_reason_and_lead(api: Api) -> None:
    """Alone and together; any spelling of a type."""
    reasons = [None, "inorganic", "inorganic_grouped", "metadata_filter"]
    types, leads = ["Page View", "Email Open"], ["A", "B"]
    rows = [
        row(
            n, event_type=types[n % 2], lead_id=leads[n // 2 % 2], suppression_reason=reasons[n % 4]
        )
        for n in range(40)
    ]
    await store(api.database, rows)
    assert await total(api, event_type="page_view") == 20
    assert await total(api, event_type="EMAIL-OPEN", lead_id="A") == 10
    assert await total(api, suppression_reason="none") == 10
    assert await total(api, suppression_reason="any") == 30
    assert await total(api, suppression_reason="inorganic_grouped", event_type="Page View") == 10
    assert await total(api, suppression_reason="inorganic_grouped", event_type="Email Open") == 0
    assert await total(api, lead_id="B", suppression_reason="metadata_filter") == 10
    assert await total(api, event_type="Form Submit") == 0
    assert await total(api, event_type="--") == 0


async def test_ranges_are_utc_days_or_the_last_times_24_hours(api: Api) -> None:
    """By when an event occurred; both ends to the millisecond."""
    midnight = 1_736_899_200_000
    api.now.at = midnight + 3_600_000
    day = 86_400_000
    times = {
        "tomorrow": midnight + day,
        "later-today": midnight + day - 1,
        "today": midnight,
        "yesterday": midnight - 1,
        "yesterday-first": midnight - day,
        "before": midnight - day - 1,
        "7d": api.now.at - 7 * day,
        "over-7d": api.now.at - 7 * day - 1,
        "30d": api.now.at - 30 * day,
        "over-30d": api.now.at - 30 * day - 1,
        "90d": api.now.at - 90 * day,
        "over-90d": api.now.at - 90 * day - 1,
    }
    rows = [row(n, id=name, occurred_at=at) for n, (name, at) in enumerate(times.items())]
    await store(api.database, rows)
    names = list(times)
    for asked, expected in {
        "today": names[1:3],
        "yesterday": names[3:5],
        "last_7d": names[:7],
        "last_30d": names[:9],
        "last_90d": names[:11],
    }.items():
        for path in ("/events", "/events/A"):
            found = (await api.client.get(path, params={"range": asked})).json()
            assert [event["id"] for event in found["events"]] == expected, asked
            assert found["total"] == len(expected)


@pytest.mark.parametrize(
    "lead", ["a/b", "a\nb", "\n", "50%", "a?b#c", "..", "ä ö", "batch", "x" * 128, "+", "%2F"]
)
async def test_a_lead_may_have_any_characters(api: Api, lead: str) -> None:
    """In the path and as a parameter."""
    await store(api.database, [row(1, lead_id=lead), row(2, lead_id="other")])
    path = "/events/" + quote(lead, safe="").replace(".", "%2E")
    of_path = await api.client.get(path)
    assert (of_path.status_code, of_path.json()["total"]) == (200, 1)
    assert of_path.json()["events"][0]["lead_id"] == lead
    assert await total(api, lead_id=lead) == 1


async def test_a_lead_without_events_is_not_found_whatever_is_asked_of_them(api: Api) -> None:
    """One with events is found, even where none is chosen; deleted ones do not count."""
    await store(api.database, [row(1), row(2, lead_id="gone", deleted=True)])
    assert (await api.client.get("/events/A?event_type=none")).json()["total"] == 0
    for lead in ("nobody", "gone", "%00", "y" * 129):
        answer = await api.client.get(f"/events/{lead}?event_type=page_view")
        assert answer.status_code == 404
        assert answer.json() == {
            "error": {"code": "not_found", "message": "The lead has no events"}
        }
        assert (await api.client.get(f"/events?lead_id={lead}")).json()["total"] == 0


async def test_a_merged_away_lead_means_its_survivor(api: Api) -> None:
    """Also while rows still stand under the old lead."""
    await store(api.database, [row(1), row(2, lead_id="B")])
    await api.database.execute("INSERT INTO lead_redirects VALUES ('acme', 'B', 'A')")
    await api.database.execute(
        """INSERT INTO merges (org_unit, message_id, kind, target_lead_id, source_lead_ids, survivor_lead_id, merged_lead_ids,
            batch, committed_at) VALUES ('acme', 'm', 'merge', 'A', '{B}', 'A', '{B}', 1, now())"""
    )
    await api.database.execute(
        "INSERT INTO lead_moves (org_unit, from_lead, merge_id) SELECT 'acme', 'B', id FROM merges"
    )
    await api.database.execute(
        "INSERT INTO lead_epochs (org_unit, lead_id, epoch) SELECT 'acme', 'A', id FROM merges"
    )
    for asked in ("/events/A", "/events/B", "/events?lead_id=B", "/events"):
        found = (await api.client.get(asked)).json()
        told = [(e["id"], e["lead_id"], e["original_lead_id"]) for e in found["events"]]
        assert told == [("evt-000002", "A", "B"), ("evt-000001", "A", None)]


async def test_metadata_is_told_as_it_is_stored(api: Api) -> None:
    """Integers exactly, other numbers as their double."""
    metadata = {
        "big": 2**64 - 1,
        "small": -(2**63),
        "tiny": 5e-324,
        "huge": 1e300,
        "text": "\u2028ü",
    }
    await store(api.database, [row(1, metadata=metadata)])
    assert (await events(api))[0]["metadata"] == metadata


async def test_another_org_unit_has_its_own_events(api: Api) -> None:
    """The same ids and leads are other events."""
    await store(api.database, [row(1), row(1, org_unit="other", metadata={"of": "other"})])
    other = await api.as_org_unit("other")
    assert (await other.get("/events")).json()["events"][0]["metadata"] == {"of": "other"}
    assert (await other.get("/events/A")).json()["total"] == 1
    assert (await events(api))[0]["metadata"] == {}
    third = await api.as_org_unit("third")
    assert (await third.get("/events")).json()["total"] == 0
    assert (await third.get("/events/A")).status_code == 404


async def test_types_and_hours_are_summed(api: Api) -> None:
    """Hourly by reason, filter and type; a range and a type choose among them."""
    api.now.at = AT + 60_000
    rows = [row(n, occurred_at=AT + n, event_type="Email Open") for n in range(3)]
    rows += [
        row(9 + n, occurred_at=AT - 3_600_000, suppression_reason="inorganic") for n in range(2)
    ]
    await store(api.database, rows)
    types = (await api.client.get("/event-types")).json()
    assert types == {
        "event_types": [
            {"event_type": "Email Open", "count": 3},
            {"event_type": "Page View", "count": 2},
        ]
    }
    newest = {
        "hour": "2025-01-15T10:00:00Z",
        "suppression_reason": None,
        "filter_id": None,
        "event_type": "Email Open",
        "count": 3,
    }
    older = {
        "hour": "2025-01-15T09:00:00Z",
        "suppression_reason": "inorganic",
        "filter_id": "vf-1",
        "event_type": "Page View",
        "count": 2,
    }
    for asked, expected in {
        "": [newest, older],
        "?range=today&event_type=page_view": [older],
        "?suppression_reason=any": [older],
        "?range=yesterday": [],
    }.items():
        assert (await api.client.get(f"/suppression/summary{asked}")).json() == {"hours": expected}


async def events(api: Api, **asked: str) -> list[dict[str, Any]]:
    """A page of events."""
    found: list[dict[str, Any]] = (await api.client.get("/events", params=asked)).json()["events"]
    return found


async def total(api: Api, **asked: str) -> int:
    """How many there are, which the page agrees with."""
    body = (await api.client.get("/events", params={**asked, "limit": "100"})).json()
    assert len(body["events"]) == body["total"]
    return int(body["total"])
