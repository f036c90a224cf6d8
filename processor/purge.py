"""`processor purge`: removes events that are older than a horizon, where nothing can bring them back and no verdict needs them.

An event is old when it occurred and was received before the horizon.  What is refused, and why, is decided in `processor.pure.purge`.
"""

from msgspec import Struct

from processor.failures import StartRefused, refusing
from processor.io import purge as rows
from processor.io.kafka import quietly
from processor.io.kafka_past import Raw
from processor.io.postgres import Postgres
from processor.pure import timestamps
from processor.pure.findings import length
from processor.pure.purge import Limits, cutoff, refusal
from processor.pure.shown import shown
from processor.setting_values import duration_ms
from processor.settings import Settings
from processor.terminal import in_place


class Purged(Struct, frozen=True):
    """What a purge did."""

    before: int
    """Events received and occurred before, ms."""
    gone: dict[str, int]
    """Events by org unit."""
    kept: int
    """Old events that stayed, since Kafka still holds their messages."""

    def __str__(self) -> str:
        gone = self.gone.items()
        lines = [f"{shown(org_unit)}: {number} events" for org_unit, number in gone if number]
        if self.kept:
            lines.append(f"{self.kept} more stay: Kafka still holds their messages")
        total = sum(self.gone.values())
        return "\n".join(
            [*lines, f"{total} events from before {timestamps.to_text(self.before)} purged"]
        )


def horizon(text: str) -> int:
    """Milliseconds; raises `StartRefused`."""
    try:
        ms = duration_ms(text)
    except ValueError as error:
        raise StartRefused(f"--older-than is {text!r}; allowed: {error}") from error
    if not ms:
        raise StartRefused("--older-than must be longer than nothing")
    return ms


async def purge(settings: Settings, postgres: Postgres, horizon_ms: int, by: str) -> Purged:
    """Raises `StartRefused`, before anything is removed or after a part of it."""
    raw = Raw(settings)
    with quietly(), refusing("nothing is purged; try again"):
        begin = await rows.begin(postgres)
        await raw.look()
        late, surge = settings.allowed_lateness_ms, settings.surge_window_ms
        limits = Limits(raw.configs, begin.widest, late, surge)
        refused = refusal(horizon_ms, limits)
        if refused:
            raise StartRefused(refused)
        before = cutoff(begin.now, await raw.oldest_unread(), horizon_ms)
    details = rows.details(length(horizon_ms), before)
    order = rows.Order(before, raw.topic, raw.held, by, details)
    found = await rows.purge(postgres, order, _progress)
    in_place("")
    return Purged(before, found.gone, found.kept)


def _progress(org_unit: str, number: int) -> None:
    in_place(f"{org_unit}: {number} events")
