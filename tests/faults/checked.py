"""A history that the checker knows by heart, and the evidence of a system that did everything right: what its tests break."""

import json
from typing import Any

from tests.faults.evidence import Evidence, Filter, Held, Published, Row, published
from tests.faults.history import Asked, History, Merge, Sent
from tests.oracle_compare import rfc3339

RAW, MERGES = "raw", "merges"
AT = 1_767_268_800_000
RECEIVED, ASKED = AT + 60_000, AT + 120_000
"""When all rows were stored, and when the merge was asked for."""
WATCH = Filter("acme", "vf", "Page View", 1, 1_000, keep_first=True, revision=2)
BURST = '{"2": "b"}'
BY = '{"filter_id": "vf"}'
TOLD = {"source_lead_ids": ["B"], "events_moved": 1, "requested_by": None}
"""Of the merge: one event of B was there already."""
MERGED: dict[str, Any] = {
    "id": "m",
    "event_type": "Lead Merged",
    "metadata": json.dumps(TOLD),
    "suppression_reason": None,
    "suppressed_by": None,
    "at": ASKED,
    "source_topic": MERGES,
    "source_offset": 0,
    "batch": 20,
    "counted": False,
    "exceeded": None,
}


def row(n: int, lead: str = "A", original: str | None = None, **more: object) -> Row:
    """The event of the record at offset `n`, 100 ms after the one before."""
    reason = "inorganic_grouped" if n else None
    plain = Row(
        org_unit="acme",
        id=f"e{n}",
        lead_id=lead,
        original_lead_id=original,
        event_type="Page View",
        metadata=json.dumps({"n": n}),
        suppression_reason=reason,
        suppressed_by=BY if n else None,
        at=AT + 100 * n,
        received_at=RECEIVED,
        source_topic=RAW,
        source_partition=0,
        source_offset=n,
        batch=10 + n,
        rules=2,
        counted=True,
        exceeded=BURST if n else None,
        deleted=False,
    )
    return plain._replace(**more)  # type: ignore[arg-type]


def sent(offset: int, n: int, lead: str) -> Sent:
    """The message of event `n`."""
    metadata = json.dumps({"n": n})
    return Sent(
        RAW, 0, offset, Asked("acme", f"e{n}", lead, "Page View", AT + 100 * n, metadata), AT
    )


def message(row: Row) -> Published:
    """What is published of a row."""
    value: dict[str, Any] = {name: getattr(row, name) for name in ("id", "org_unit", "lead_id")}
    value |= {"original_lead_id": row.original_lead_id, "event_type": row.event_type}
    value |= {"metadata": json.loads(row.metadata), "suppression_reason": row.suppression_reason}
    value |= {"created_at": rfc3339(row.at), "received_at": rfc3339(row.received_at)}
    value["suppressed_by"] = None if row.suppressed_by is None else json.loads(row.suppressed_by)
    headers = {"event-id": row.id, "org-unit": row.org_unit, "schema-version": "1"}
    headers |= {"suppression-reason": row.suppression_reason} if row.suppression_reason else {}
    encoded = [(name, text.encode()) for name, text in headers.items()]
    return published(row.lead_id.encode(), json.dumps(value).encode(), encoded)


def good() -> tuple[History, Evidence]:
    """Two events of A and one of B, which was merged into A since; a bad message; one deleted event; B's was published before."""
    history = History(
        [
            *(sent(0, 0, "A"), sent(1, 1, "A"), sent(2, 2, "B")),
            Sent(RAW, 0, 3, None, AT),
            sent(4, 0, "A"),
            Sent(MERGES, 0, 0, Merge("acme", "A", ("B",), "merge"), ASKED),
            Sent(MERGES, 0, 1, Merge("acme", "B", ("A",), "merge"), ASKED),
        ],
        {("acme", "e1")},
    )
    rows = [row(0), row(1), row(2, "A", "B"), row(3)._replace(**MERGED)]
    said = [message(one) for one in (rows[0], rows[1], row(2, "B"), rows[3])]
    rows[1] = row(1, deleted=True, metadata="{}")
    return history, Evidence(
        rows=rows,
        published=said,
        letters=[(RAW, 0, 3)],
        committed={(RAW, 0): 5, (MERGES, 0): 2},
        filters=[WATCH],
        epochs={("acme", "A"): 7},
        turns={("acme", "m"): 19},
        windows=[
            Held(
                *("acme", "A", 7, 2, AT - 10_000),
                (AT, AT + 100, AT + 200),
                (AT + 100, AT + 200),
            )
        ],
        recovery_s=3.0,
        most_rss_mb=100.0,
    )
