"""The parts of a worker put together: what its lanes do, with the real systems behind it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from processor import telemetry
from processor.io import merges, workers
from processor.io.counts import folder
from processor.io.kafka_topics import Limits
from processor.io.migrate import check
from processor.io.past import Past
from processor.io.places import Places, keeper
from processor.io.postgres import Postgres
from processor.io.redis import Server
from processor.io.rulebook import Rulebook
from processor.io.store import Events
from processor.io.windows import Windows
from processor.merging import Merging
from processor.outputs import Outputs
from processor.pipeline import Pipeline
from processor.settings import Settings
from processor.worker import Work


@asynccontextmanager
async def composed(settings: Settings, limits: Limits) -> AsyncIterator[Work]:
    """Verdicts and merges on Postgres and Redis, which are checked first; raises `StartRefused`."""
    outputs = Outputs(settings.enriched_topic, settings.dead_topic, limits.max_bytes)
    async with _postgres(settings) as postgres, _redis(settings) as server:
        windows = Windows(server, Past(postgres), settings.allowed_lateness_ms)
        await windows.open()
        rulebook = await Rulebook.load(postgres, settings.filter_order)
        pipeline = Pipeline(Events(postgres), windows, rulebook, outputs, settings.max_future_ms)
        merging = Merging(partial(merges.apply, postgres), outputs)
        identity = workers.identity()
        places = Places(postgres, settings.consumer_group)
        yield Work(
            processes={settings.raw_topic: pipeline.process, settings.merge_topic: merging.process},
            too_large=outputs.too_large,
            places=places,
            background=[
                lambda _: merges.mover(postgres, telemetry.MOVED_EVENTS.inc),
                lambda _: folder(postgres),
                lambda answered: workers.heart(postgres, rulebook, identity, answered),
                lambda answered: keeper(places, answered),
            ],
        )


@asynccontextmanager
async def _postgres(settings: Settings) -> AsyncIterator[Postgres]:
    postgres = await Postgres.connect(settings.database_url.get_secret_value())
    try:
        await check(postgres)
        yield postgres
    finally:
        await postgres.close()


@asynccontextmanager
async def _redis(settings: Settings) -> AsyncIterator[Server]:
    server = await Server.connect(settings.redis_url.get_secret_value())
    try:
        yield server
    finally:
        await server.close()
