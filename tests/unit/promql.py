"""What is wrong with a PromQL expression, given the metrics that are declared."""

from collections.abc import Callable, Iterator

import promql_parser as promql

from tests.declared import TARGET, declared, of_processes

OURS = list(declared().values())
METRICS = [*OURS, *of_processes()]
SAMPLES = {name: labels for metric in METRICS for name, labels in metric.samples.items()}
PROMETHEUS = {
    "up": TARGET,
    "ALERTS": frozenset({"alertname", "alertstate", "severity", "service"}),
}
"""What Prometheus itself knows of its targets and rules."""
GROWING = {
    name for metric in METRICS if metric.kind in ("counter", "histogram") for name in metric.samples
}
OF_GROWING = {"rate", "increase"}


class Wrong(Exception):
    """The expression asks for what there is not."""


def labels_of(text: str) -> frozenset[str]:
    """The labels of an expression's result; raises `Wrong`, and ValueError where it is no PromQL."""
    return _labels(promql.parse(text))


def names_in(text: str) -> set[str]:
    """Every name that it selects."""
    return {one.name or "" for one in _selectors(promql.parse(text))}


def _selectors(expression: promql.Expr) -> Iterator[promql.VectorSelector]:
    found: list[promql.VectorSelector] = []

    def visit(one: promql.Expr) -> None:
        if isinstance(one, promql.VectorSelector):
            found.append(one)

    promql.walk(expression, visit)
    return iter(found)


def _labels(one: promql.Expr) -> frozenset[str]:
    for kind, read in _READERS.items():
        if isinstance(one, kind):
            return read(one)
    raise Wrong(f"nobody knows what {type(one).__name__} gives")


def _nothing(_: promql.Expr) -> frozenset[str]:
    return frozenset()


def _inner(one: promql.ParenExpr | promql.UnaryExpr | promql.SubqueryExpr) -> frozenset[str]:
    return _labels(one.expr)


def _selected(one: promql.VectorSelector) -> frozenset[str]:
    if one.name in GROWING:
        raise Wrong(f"{one.name} only grows: ask for its rate or increase")
    return _matched(one)


def _matched(one: promql.VectorSelector) -> frozenset[str]:
    known = {**SAMPLES, **PROMETHEUS}
    if one.name not in known:
        raise Wrong(f"{one.name} is not declared")
    asked = {matcher.name for matcher in one.matchers.matchers}
    if strange := asked - known[one.name]:
        raise Wrong(f"{one.name} has no label {sorted(strange)}")
    return known[one.name]


def _called(one: promql.Call) -> frozenset[str]:
    name, arguments = one.func.name, one.args
    if name == "histogram_quantile":
        return _quantile(arguments[1])
    vectors = [argument for argument in arguments if not isinstance(argument, promql.NumberLiteral)]
    if not vectors:
        return frozenset()
    if not isinstance(vectors[0], promql.MatrixSelector):
        found = _labels(vectors[0])
        return frozenset() if name == "absent" else found
    selector = vectors[0].vector_selector
    found = _matched(selector)
    if (selector.name in GROWING) != (name in OF_GROWING):
        raise Wrong(f"{name} of {selector.name}")
    return found


def _quantile(of: promql.Expr) -> frozenset[str]:
    found = _labels(of)
    if "le" not in found:
        raise Wrong("histogram_quantile needs le")
    return found - {"le"}


def _aggregated(one: promql.AggregateExpr) -> frozenset[str]:
    inner = _labels(one.expr)
    named = frozenset(one.modifier.labels) if one.modifier else frozenset()
    if strange := named - inner:
        raise Wrong(f"nothing to group by: {sorted(strange)}")
    without = one.modifier is not None and one.modifier.type == promql.AggModifierType.Without
    return inner - named if without else named


def _combined(one: promql.BinaryExpr) -> frozenset[str]:
    left, right = _labels(one.lhs), _labels(one.rhs)
    numbers = [isinstance(side, promql.NumberLiteral) for side in (one.lhs, one.rhs)]
    matching = one.modifier.matching if one.modifier else None
    if matching is None and not any(numbers) and left != right:
        raise Wrong(f"sides that never match: {sorted(left)} and {sorted(right)}")
    if matching is not None and (strange := set(matching.labels) - (left & right)):
        raise Wrong(f"nothing to match on: {sorted(strange)}")
    return right if numbers[0] else left


_READERS: dict[type, Callable[..., frozenset[str]]] = {
    promql.VectorSelector: _selected,
    promql.Call: _called,
    promql.AggregateExpr: _aggregated,
    promql.BinaryExpr: _combined,
    promql.ParenExpr: _inner,
    promql.UnaryExpr: _inner,
    promql.SubqueryExpr: _inner,
    promql.NumberLiteral: _nothing,
}
