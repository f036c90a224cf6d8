"""Do the conditions of a metadata filter hold?  The recount's own reading of the contract, apart from the worker's.

It may import nothing of the program it checks.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import orjson
import re2

Test: TypeAlias = Callable[[Mapping[str, Any]], bool]
_ABSENT = object()
_MAPPED_BITS = 96  # of ::ffff:0:0/96
_NUMERIC = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NEGATIONS = {"not_equals": "equals", "not_contains": "contains", "not_exists": "exists"}
_OVER_ELEMENTS = frozenset({"equals", "contains", "in"})


def compiled(conditions: Sequence[Mapping[str, Any]]) -> Test:
    """One test for all conditions of a filter."""
    tests = [_condition(c["key"], c["operator"], c.get("value")) for c in conditions]
    return lambda metadata: all(test(metadata) for test in tests)


def _condition(key: str, operator: str, value: Any) -> Test:
    if operator in _NEGATIONS:
        positive = _condition(key, _NEGATIONS[operator], value)
        return lambda metadata: not positive(metadata)
    if operator == "exists":
        return lambda metadata: _at(metadata, key) is not _ABSENT
    holds = _SCALAR[operator](value)
    over_elements = operator in _OVER_ELEMENTS

    def test(metadata: Mapping[str, Any]) -> bool:
        found = _at(metadata, key)
        if isinstance(found, list):
            return over_elements and any(_is_scalar(e) and holds(e) for e in found)
        return _is_scalar(found) and holds(found)

    return test


def _at(metadata: Mapping[str, Any], key: str) -> Any:
    found: Any = metadata.get(key, _ABSENT)
    if found is not _ABSENT or "." not in key:
        return found
    found = metadata
    for part in key.split("."):
        found = found.get(part, _ABSENT) if isinstance(found, dict) else _ABSENT
    return found


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | bool | int | float)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _folded(value: Any) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text.casefold()


def _equals(wanted: Any) -> Callable[[Any], bool]:
    text = _folded(wanted)
    if not _is_number(wanted):
        return lambda value: _folded(value) == text
    return lambda value: value == wanted if _is_number(value) else _folded(value) == text


def _in(wanted: Sequence[Any]) -> Callable[[Any], bool]:
    tests = [_equals(w) for w in wanted]
    return lambda value: any(test(value) for test in tests)


def _number(value: Any) -> int | float | None:
    if isinstance(value, str):
        if not _NUMERIC.fullmatch(value):
            return None
        return int(value) if value.lstrip("-").isdigit() else float(value)
    return value if _is_number(value) else None


def _compared(sign: int) -> Callable[[Any], Callable[[Any], bool]]:
    def against(wanted: Any) -> Callable[[Any], bool]:
        limit = _number(wanted)

        def holds(value: Any) -> bool:
            number = _number(value)
            if number is None or limit is None:
                return False
            return number > limit if sign > 0 else number < limit

        return holds

    return against


def _matches(wanted: str) -> Callable[[Any], bool]:
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    pattern = re2.compile(wanted, options)

    def holds(value: Any) -> bool:
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        return pattern.search(text) is not None

    return holds


def _in_cidr(wanted: Any) -> Callable[[Any], bool]:
    networks = [_network(w) for w in (wanted if isinstance(wanted, list) else [wanted])]

    def holds(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        try:
            address: Any = ipaddress.ip_address(value)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in networks)

    return holds


def _network(written: str) -> Any:
    network = ipaddress.ip_network(written, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return ipaddress.ip_network(f"{mapped}/{network.prefixlen - _MAPPED_BITS}")


def _affix(method: str) -> Callable[[str], Callable[[Any], bool]]:
    def against(wanted: str) -> Callable[[Any], bool]:
        folded = wanted.casefold()
        return lambda value: bool(getattr(_folded(value), method)(folded))

    return against


_SCALAR: Mapping[str, Callable[[Any], Callable[[Any], bool]]] = {
    "equals": _equals,
    "in": _in,
    "contains": _affix("__contains__"),
    "starts_with": _affix("startswith"),
    "ends_with": _affix("endswith"),
    "gt": _compared(1),
    "lt": _compared(-1),
    "matches": _matches,
    "in_cidr": _in_cidr,
}
