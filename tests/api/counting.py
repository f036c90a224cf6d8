"""Counted events without the engagement service: for what only reads them."""

from processor.engagement import rules
from processor.io.engagement_store import Store
from processor.pure.enriched import Organic, Relinked
from processor.pure.places import Delivered
from tests.api.client import Api


async def count(api: Api, *found: Organic | Relinked) -> None:
    """As the service does with a batch."""
    store = Store(api.owner, api.world.enriched, rules(api.services.settings))
    place = (await store.opened(b"", {0: 0}))[0].offset
    records = [Delivered(0, place + n, place + n - 1, one) for n, one in enumerate(found)]
    await store.apply(records)
