"""The events that are measured: a backlog on `events.raw`, spread over the last hour of event time."""

import json
import random
import time
from collections.abc import Iterable

from aiokafka import AIOKafkaProducer

from tests import harness

LEADS = 20_000
SPAN_MS = 3_600_000
FILTERS = """
org_units:
  acme:
    velocity_filters:
      - {id: vf-1, name: Page bursts, event_type: page_view, threshold: 10, window_ms: 60000, keep_first: true}
      - {id: vf-2, name: Scanners, event_type: email_open, threshold: 3, window_ms: 10000}
    metadata_filters:
      - {id: mf-1, name: Bots, conditions: [{key: user_agent, operator: contains, value: bot}]}
"""
AGENTS = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36",
    "Googlebot/2.1 (+http://www.google.com/bot.html)",
)


async def fill(world: harness.World, backlog: Iterable[tuple[bytes, bytes]]) -> None:
    """A backlog, keyed by lead."""
    async with AIOKafkaProducer(
        bootstrap_servers=world.kafka, linger_ms=20, max_batch_size=1 << 18
    ) as producer:
        sent = [await producer.send(world.raw, value, key) for value, key in backlog]
        for future in sent:
            await future


def events(numbers: range, total: int) -> Iterable[tuple[bytes, bytes]]:
    """Value and key of these of so many events, which are spread over the last hour."""
    chance, started = random.Random(numbers.start), time.time_ns() // 1_000_000 - SPAN_MS
    for number in numbers:
        lead = f"ld_{chance.randrange(LEADS)}"
        at = started + number * SPAN_MS // total
        seconds, ms = divmod(at, 1000)
        event = {
            "id": f"evt-{number:012}",
            "org_unit": "acme",
            "lead_id": lead,
            "event_type": chance.choices(("page_view", "email_open", "form_submit"), (6, 3, 1))[0],
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{ms:03}Z",
            "metadata": {
                "path": f"/pricing/{number % 97}",
                "referrer": "https://google.com",
                "user_agent": chance.choices(AGENTS, (6, 3, 1))[0],
            },
        }
        yield json.dumps(event).encode(), lead.encode()
