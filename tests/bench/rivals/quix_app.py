"""Quix Streams: windows in its RocksDB state with a changelog, rows copied into Postgres in each checkpoint.

It runs in a virtual environment of its own and imports nothing of the project.
"""

import json
import os
from bisect import insort
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from quixstreams import Application
from quixstreams.sinks import BatchingSink

GIVEN = os.environ
RULES = json.loads(Path(GIVEN["RULES"]).read_text())
VELOCITY = {one["event_type"]: (one["threshold"], one["window_ms"]) for one in RULES["velocity"]}
LATENESS_MS = RULES["lateness_ms"]


def judged(event: dict[str, Any], state: Any) -> dict[str, Any]:
    """The event with its verdict; `state` is that of its lead."""
    event["original_lead_id"] = None
    event["suppression_reason"] = None
    if event["event_type"] in VELOCITY and _exceeds(event, state):
        event["suppression_reason"] = "inorganic"
    elif _matches(event["metadata"]):
        event["suppression_reason"] = "metadata_filter"
    return event


def _exceeds(event: dict[str, Any], state: Any) -> bool:
    threshold, window_ms = VELOCITY[event["event_type"]]
    key = f"{event['org_unit']}|{event['event_type']}"
    at = round(datetime.fromisoformat(event["created_at"]).timestamp() * 1000)
    window = state.get(key, default=[])
    if all(one[1] != event["id"] for one in window):
        insort(window, [at, event["id"]])
        oldest = window[-1][0] - window_ms - LATENESS_MS
        window = [one for one in window if one[0] >= oldest]
        state.set(key, window)
    count = sum(at - window_ms < one[0] <= at for one in window)
    return bool(count > threshold)


def _matches(metadata: dict[str, Any]) -> bool:
    return any(
        _holds(one["operator"], metadata.get(one["key"], ""), one["value"])
        for one in RULES["conditions"]
    )


def _holds(operator: str, text: str, value: str) -> bool:
    match operator:
        case "contains":
            return value in text
        case "starts_with":
            return text.startswith(value)
        case _:
            return text == value


class Rows(BatchingSink):  # type: ignore[misc]  # it is not installed where types are checked
    """Writes what a checkpoint covers before the checkpoint is committed."""

    def setup(self) -> None:
        """One connection."""
        self._postgres = psycopg.connect(GIVEN["DATABASE_URL"], autocommit=True)
        self._postgres.execute("CREATE TEMP TABLE staged (LIKE events) ON COMMIT DELETE ROWS")

    def write(self, batch: Any) -> None:
        """Copies and inserts."""
        with self._postgres.transaction(), self._postgres.cursor() as cursor:
            with cursor.copy("COPY staged FROM STDIN") as copy:
                for item in batch:
                    copy.write_row(_row(item.value))
            cursor.execute("INSERT INTO events SELECT * FROM staged ON CONFLICT DO NOTHING")


def _row(event: dict[str, Any]) -> tuple[Any, ...]:
    named = ("org_unit", "id", "lead_id", "event_type")
    metadata = json.dumps(event["metadata"], separators=(",", ":"))
    return (
        *(event[name] for name in named),
        metadata,
        event["suppression_reason"],
        event["created_at"],
    )


def main() -> None:
    """Until SIGTERM."""
    app = Application(
        broker_address=GIVEN["KAFKA_BOOTSTRAP_SERVERS"],
        consumer_group=GIVEN["CONSUMER_GROUP"],
        auto_offset_reset="earliest",
        processing_guarantee=GIVEN["GUARANTEE"],
        commit_every=5_000,
        commit_interval=0.5,
        consumer_poll_timeout=0.1,
        producer_extra_config={"linger.ms": 5},
        state_dir=GIVEN["STATE_FOLDER"],
        loglevel="WARNING",
    )
    raw = app.topic(GIVEN["RAW_TOPIC"], key_deserializer="str", value_deserializer="json")
    enriched = app.topic(GIVEN["ENRICHED_TOPIC"], key_serializer="str", value_serializer="json")
    app.dataframe(raw).apply(judged, stateful=True).to_topic(enriched).sink(Rows())
    app.run()


if __name__ == "__main__":
    main()
