"""Every metric that `processor.telemetry` declares, as Prometheus sees it."""

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import PROCESS_COLLECTOR, Info
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from processor import telemetry

TARGET = frozenset({"job", "instance"})
"""What Prometheus adds to every series."""


@dataclass(frozen=True)
class Metric:
    """One metric."""

    name: str
    """Of the family: a counter's without ``_total``."""
    kind: str
    labels: tuple[str, ...]
    sentence: str

    @property
    def samples(self) -> Mapping[str, frozenset[str]]:
        """Names as queries use them, each with its labels."""
        labels = frozenset(self.labels) | TARGET
        if self.kind == "counter":
            return {f"{self.name}_total": labels}
        if self.kind == "histogram":
            plain = {f"{self.name}_{suffix}": labels for suffix in ("sum", "count")}
            return {**plain, f"{self.name}_bucket": labels | {"le"}}
        return {f"{self.name}_info" if self.kind == "info" else self.name: labels}

    @property
    def shown(self) -> str:
        """How documentation names it."""
        name = min(self.samples, key=len) if self.kind != "histogram" else self.name
        return name + (f"{{{', '.join(self.labels)}}}" if self.labels else "")


def declared() -> dict[str, Metric]:
    """Ours by name, in the order of their declaration."""
    members = [one for one in vars(telemetry).values() if not isinstance(one, type)]
    found = [_metric(one) for one in members if hasattr(one, "collect")]
    return {metric.name: metric for metric in found}


def of_processes() -> list[Metric]:
    """What the client library tells of every process."""
    return [_read(family, ()) for family in PROCESS_COLLECTOR.collect()]


def _metric(member: Collector) -> Metric:
    (family,) = member.collect()
    labels = tuple(getattr(member, "_labelnames", ()))
    if isinstance(member, Info):
        labels = tuple(family.samples[0].labels)
    return _read(family, labels)


def _read(family: Family, labels: tuple[str, ...]) -> Metric:
    return Metric(family.name, family.type, labels, family.documentation)
