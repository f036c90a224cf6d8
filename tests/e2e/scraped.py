"""What processes tell at /metrics, as a test asks for it."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from tests.harness import Worker, until

Samples: TypeAlias = Mapping[str, float]
Scrape: TypeAlias = Callable[[], Awaitable[str]]


def samples(text: str) -> dict[str, dict[str, float]]:
    """By family and by sample with its labels, as /metrics has them."""
    return {
        family.name.removesuffix("_info"): {
            one.name + json.dumps(one.labels, sort_keys=True): one.value for one in family.samples
        }
        for family in text_string_to_metric_families(text)
    }


class Watched:
    """What one process tells, and which metrics have not moved yet since the watch began."""

    def __init__(self, scrape: Scrape, before: str, metrics: Iterable[Collector]) -> None:
        self._scrape = scrape
        self._before = samples(before)
        self.still = {next(iter(one.collect())).name for one in metrics}
        self.seen: Mapping[str, Samples] = {}

    async def look(self) -> Mapping[str, Samples]:
        """What it tells now."""
        self.seen = samples(await self._scrape())
        for name in list(self.still):
            before = self._before.get(name, {})
            if any(v > 0 and v != before.get(s) for s, v in self.seen.get(name, {}).items()):
                self.still.discard(name)
        return self.seen

    async def all_moved(self) -> bool:
        """Whether each has had a value above zero that it had not before."""
        await self.look()
        return not self.still

    async def value(self, name: str, **labels: str) -> float:
        """The sum of the samples with that name and these labels."""
        return total(await self.look(), name, **labels)


def of_name(seen: Mapping[str, Samples], name: str) -> Iterator[tuple[dict[str, str], float]]:
    """Labels and value of each sample with that name."""
    for family in seen.values():
        for sample, value in family.items():
            at = sample.index("{")
            if sample[:at] == name:
                yield json.loads(sample[at:]), value


def total(seen: Mapping[str, Samples], name: str, **labels: str) -> float:
    """The sum of the samples with that name and these labels."""
    return sum(v for has, v in of_name(seen, name) if labels.items() <= has.items())


def by(seen: Mapping[str, Samples], name: str, label: str) -> dict[str, float]:
    """Samples that are not nought, by one label."""
    return {has.get(label, ""): value for has, value in of_name(seen, name) if value}


@asynccontextmanager
async def watched(
    scrape: Scrape, before: str, metrics: Iterable[Collector]
) -> AsyncIterator[Watched]:
    """At its end every one of the metrics has moved."""
    watch = Watched(scrape, before, metrics)
    yield watch
    with suppress(AssertionError):
        await until(watch.all_moved, 20)
    assert not watch.still, "these did not move"


def of(worker: Worker) -> Scrape:
    """What a worker tells."""

    async def scrape() -> str:
        return (await worker.get("/metrics"))[1]

    return scrape
