"""A histogram of ages that takes a whole batch at once: each event counts, and costs next to nothing."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import REGISTRY
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class Ages(Collector):
    """Exposed as any histogram; `buckets` are upper bounds in seconds, ascending."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float]) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = buckets
        self._within = [0] * len(buckets)
        self._count = 0
        self._sum = 0.0
        REGISTRY.register(self)

    def observe(self, ages: Iterable[float]) -> None:
        """Adds one age for each event."""
        ordered = sorted(ages)
        for n, bound in enumerate(self._bounds):
            self._within[n] += bisect_right(ordered, bound)
        self._count += len(ordered)
        self._sum += sum(ordered)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What Prometheus reads."""
        named = [str(float(bound)) for bound in self._bounds]
        buckets = [*zip(named, map(float, self._within), strict=True), ("+Inf", float(self._count))]
        yield HistogramMetricFamily(
            self._name, self._documentation, buckets=buckets, sum_value=self._sum
        )
