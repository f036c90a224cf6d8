"""The demo's account finds whatever is lost, invented, doubled or changed on the way."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from processor.demo import checking
from processor.demo.account import Fields, Found, Letter, Message, Row, account, headers
from processor.demo.account import merged_digest as merged
from processor.demo.checking import Verdict
from processor.demo.forest import Forest
from processor.demo.ledger import Merge, Place, Sent, digest, payload_digest, sent
from processor.demo.recount_check import Report
from processor.demo.traffic import Kind, Sample

AT = 1_790_000_000_000


def _sample(kind: Kind, value: Any, topic: Any = "raw") -> Sample:
    return Sample(topic, b"a", value if kind == "bad" else orjson.dumps(value), AT, kind)


EVENT = {
    "org_unit": "acme",
    "lead_id": "a",
    "id": "e",
    "event_type": "page-VIEW",
    "timestamp": "2026-09-21T14:13:20.000Z",
    "metadata": {"b": 1, "a": [2]},
}
MERGE = {"org_unit": "acme", "target_lead_id": "b", "source_lead_ids": ["a", "a", "b"]}
ENTRIES: list[Sent] = [
    sent(_sample("event", EVENT), Place("raw", 0, 0)),
    sent(_sample("duplicate", EVENT), Place("raw", 0, 1)),
    sent(_sample("bad", b"{"), Place("raw", 0, 2)),
    sent(_sample("merge", MERGE, "merges"), Place("merges", 0, 0)),
    sent(_sample("merge", MERGE, "merges"), Place("merges", 0, 1)),
]
NONE = digest(None)
SEEN = Fields("acme", "e", "Page View", digest({"a": [2], "b": 1}), None, NONE, AT, AT + 5)
JOINED = Fields("acme", "m", "Lead Merged", digest({}), None, NONE, AT, AT + 9)
ROWS = (
    Row(Place("raw", 0, 0), "b", "a", SEEN, None),
    Row(Place("merges", 0, 0), "b", None, JOINED, merged(["a"], None)),
)
MESSAGES = (
    Message("a", None, SEEN, "a", headers(SEEN)),
    Message("b", None, JOINED, "b", headers(JOINED)),
)
LETTERS = (Letter(Place("raw", 0, 2), payload_digest(b"a", b"{")),)
RIGHT = Found(ROWS, MESSAGES, LETTERS, {("acme", "a"): "b"})


def test_what_is_right_has_no_difference() -> None:
    """Stored, a duplicate, dead, a merge and a no-op; the row was moved after it was published."""
    result = account(ENTRIES, RIGHT)
    assert result.differences == []
    counts = result.stored, result.duplicates, result.letters, result.joined, result.no_ops
    assert counts == (1, 1, 1, 1, 1)


def test_a_verdict_that_was_not_checked_is_a_difference() -> None:
    """Rows judged by rules of before are no proof, whatever their reason."""
    agreed = account(ENTRIES, RIGHT)
    assert Verdict(agreed, Report(exact=1, plausible=1), rows=2).differences == []
    (said,) = Verdict(agreed, Report(exact=1, older=1), rows=2).differences
    assert said == "1 verdicts were not checked, 1 of them by older rules"
    assert Verdict(agreed, Report(exact=1), rows=2).differences


@pytest.mark.parametrize("metadata", ["{}", '{"source_lead_ids": 5, "requested_by": null}'])
def test_a_row_that_only_has_the_type_of_a_merge_says_nothing_of_one(metadata: str) -> None:
    """Any producer may send such an event."""
    fields = {"org_unit": "acme", "id": "e", "event_type": "Lead Merged", "metadata": metadata}
    verdict = {"suppression_reason": None, "suppressed_by": None}
    times = {"created_at": AT, "received_at": AT, "lead_id": "a", "original_lead_id": None}
    place = {"source_topic": "raw", "source_partition": 0, "source_offset": 0}
    assert checking._row({**fields, **verdict, **times, **place}).merged is None


def _row(**changes: Any) -> Callable[[Found], Found]:
    return lambda found: replace(found, rows=[found.rows[0]._replace(**changes), found.rows[1]])


def _message(**changes: Any) -> Callable[[Found], Found]:
    first, second = MESSAGES
    return lambda found: replace(found, messages=[first._replace(**changes), second])


WRONG: dict[str, tuple[Callable[[Found], Found], str]] = {
    "a lost row": (lambda f: replace(f, rows=f.rows[1:]), "an event is not stored"),
    "a lost merge event": (lambda f: replace(f, rows=f.rows[:1]), "has no Lead Merged event"),
    "a stored duplicate": (_row(place=Place("raw", 0, 1)), "a duplicate message is stored"),
    "a stored bad message": (_row(place=Place("raw", 0, 2)), "a bad message is stored"),
    "a row of nothing": (_row(place=Place("raw", 0, 9)), "should have none"),
    "another time": (_row(fields=SEEN._replace(created_at=AT + 1)), "created_at of the row"),
    "other metadata": (_row(fields=SEEN._replace(metadata=NONE)), "metadata of the row"),
    "another lead": (_row(original_lead_id="c"), "stored for lead c"),
    "a row left behind": (_row(lead_id="a", original_lead_id=None), "should be b"),
    "other merged leads": (
        lambda f: replace(f, rows=[f.rows[0], f.rows[1]._replace(merged=NONE)]),
        "does not say what was merged",
    ),
    "a lost message": (lambda f: replace(f, messages=f.messages[1:]), "published 0 times"),
    "a second message": (lambda f: replace(f, messages=[*f.messages, MESSAGES[0]]), "2 times"),
    "an unknown message": (_message(fields=SEEN._replace(id="x")), "published, but not stored"),
    "another verdict": (
        _message(fields=SEEN._replace(suppression_reason="inorganic")),
        "suppression_reason of the message",
    ),
    "another receipt": (_message(fields=SEEN._replace(received_at=AT)), "received_at of the"),
    "a message of another lead": (_message(lead_id="c"), "lead c in the message"),
    "another key": (_message(key="b"), "key or headers"),
    "a header too few": (_message(headers={}), "key or headers"),
    "a lost letter": (lambda f: replace(f, letters=[]), "has 0 dead letters"),
    "a second letter": (lambda f: replace(f, letters=LETTERS * 2), "has 2 dead letters"),
    "another payload": (
        lambda f: replace(f, letters=[LETTERS[0]._replace(content=NONE)]),
        "not what was sent there",
    ),
    "a lost redirect": (lambda f: replace(f, redirects={}), "redirected to None"),
    "an invented redirect": (
        lambda f: replace(f, redirects={**f.redirects, ("acme", "z"): "b"}),
        "should be None",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_whatever_is_wrong_is_named(wrong: str) -> None:
    """A check that cannot fail proves nothing."""
    change, expected = WRONG[wrong]
    differences = account(ENTRIES, change(RIGHT)).differences
    assert any(expected in difference for difference in differences), differences


def test_merges_chain_and_say_for_whom_there_was_something_to_do() -> None:
    """Roots are those before the merge, so two names of one person are both named."""
    forest = Forest()

    def join(target: str, *sources: str) -> list[str]:
        return list(forest.join(Merge("o", target, sources, None, AT)))

    assert join("b", "a") == ["a"]
    assert join("c", "b", "a", "c", "x") == ["b", "a", "x"]
    assert join("a", "c", "b") == []
    assert {lead: forest.root("o", lead) for lead in "abcxy"} == dict(
        zip("abcxy", "ccccy", strict=True)
    )
    assert forest.root("other", "a") == "a"
