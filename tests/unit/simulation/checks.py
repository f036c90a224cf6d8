"""What has to be true when everything is processed, whatever happened on the way."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from processor.pure.types import Ruling
from tests.unit.simulation.broker import Broker
from tests.unit.simulation.stores import Shared
from tests.unit.simulation.traffic import World
from tests.unit.simulation.truth import verdict_problems


def wrong(world: World, broker: Broker, shared: Shared) -> Sequence[object]:
    """Rows, verdicts, leads and messages that are not as they must be."""
    rows = {key[1]: row.ruling for key, row in shared.database.rows.items()}
    asked = {message.body["id"] for message in world.sent if message.to.topic == "raw"}
    judged = shared.truth.judged
    if set(rows) != asked or set(judged) != asked:
        return [("stored", set(rows) ^ asked)]
    problems: list[object] = []
    for event_id, verdict in judged.items():
        row = rows[event_id]
        problems += verdict_problems(event_id, verdict, row.reason, row.suppressed_by)
    said = [orjson.loads(message.value or b"") for message in broker.published]
    ends = {partition: len(log) for partition, log in broker.logs.items()}
    if world.exactly_once and broker.committed != ends:
        problems.append(("committed", broker.committed, "instead of", ends))
    return [
        *problems,
        *_misplaced(shared),
        *_unlike_rows(rows, said),
        *_miscounted([*rows, *_merge_events(shared)], said, world),
        *_misnamed(shared, said),
    ]


def _merge_events(shared: Shared) -> Iterable[str]:
    return [merged.event.id for merged in shared.merged.values() if merged.event]


def _misplaced(shared: Shared) -> Iterable[object]:
    """Rows that stand elsewhere than under the survivor of the lead they named."""
    for row, place in shared.places.items():
        root = shared.root(place.raw)
        if (place.lead, place.original) != (root, place.raw if place.raw != root else None):
            yield row, "stands under", place.lead, "instead of", root


def _miscounted(ids: Sequence[str], said: Sequence[Any], world: World) -> Iterable[object]:
    """Each row is published once, or at least once."""
    times = Counter(event["id"] for event in said)
    for row in ids:
        if times[row] < 1 or (world.exactly_once and times[row] > 1):
            yield row, "is published", times[row], "times"
    yield from ((row, "is published without a row") for row in set(times) - set(ids))


def _unlike_rows(rows: dict[str, Ruling], said: Sequence[Any]) -> Iterable[object]:
    for event in said:
        row = rows.get(event["id"])
        if row is None:
            continue
        by = row.suppressed_by and dict(row.suppressed_by)
        if (event["suppression_reason"], event["suppressed_by"]) != (row.reason, by):
            yield event, "is stored as", row.reason, by


def _misnamed(shared: Shared, said: Sequence[Any]) -> Iterable[object]:
    """A message names the survivor at some time, and who was named where that is another."""
    for event in said:
        place = shared.places.get(event["id"])
        if place is None:
            continue
        roots = {place.raw, *shared.roots.get(place.raw, ())}
        original = place.raw if event["lead_id"] != place.raw else None
        if event["lead_id"] not in roots or event["original_lead_id"] != original:
            yield event["id"], "is published for", event["lead_id"], event["original_lead_id"]
