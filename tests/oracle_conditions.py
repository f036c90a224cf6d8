"""S7 from the text: does metadata satisfy a condition?  Written for reading, not for speed.

``re`` stands in for RE2: streams under test use only patterns both read alike.
"""

import ipaddress
import json
import re
from collections.abc import Mapping
from typing import Any

JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


class Missing:
    """The key is not there."""


MISSING = Missing()


def satisfies(condition: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    """One condition ``{key, operator, value}`` against the metadata of an event."""
    operator, wanted = condition["operator"], condition.get("value")
    value = find(metadata, condition["key"])
    if operator == "exists":
        return value is not MISSING
    if operator == "not_exists":
        return value is MISSING
    if operator in ("not_equals", "not_contains"):
        return not holds(operator.removeprefix("not_"), value, wanted)
    return holds(operator, value, wanted)


def find(metadata: Mapping[str, Any], key: str) -> Any:
    """A literal top-level key wins, else dots walk objects."""
    if key in metadata:
        return metadata[key]
    value: Any = metadata
    for step in key.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return MISSING
        value = value[step]
    return value


def holds(operator: str, value: Any, wanted: Any) -> bool:
    """A positive operator: false for what is missing, null or an object."""
    if value is MISSING or value is None or isinstance(value, Mapping):
        return False
    if isinstance(value, list):
        if operator not in ("equals", "contains", "in"):
            return False
        return any(holds(operator, v, wanted) for v in value if not isinstance(v, list))
    return _scalar(operator, value, wanted)


def _scalar(operator: str, value: Any, wanted: Any) -> bool:
    match operator:
        case "equals":
            return equal(value, wanted)
        case "in":
            return any(equal(value, w) for w in wanted)
        case "gt" | "lt":
            a, b = number(value), number(wanted)
            return a is not None and b is not None and (a > b if operator == "gt" else a < b)
        case "in_cidr":
            return in_networks(value, wanted if isinstance(wanted, list) else [wanted])
        case "matches":
            return re.search(wanted, text(value), re.IGNORECASE) is not None
        case _:
            return _affix(operator, text(value).casefold(), wanted.casefold())


def _affix(operator: str, mine: str, theirs: str) -> bool:
    if operator == "contains":
        return theirs in mine
    if operator == "starts_with":
        return mine.startswith(theirs)
    if operator == "ends_with":
        return mine.endswith(theirs)
    raise AssertionError(operator)


def equal(a: Any, b: Any) -> bool:
    """Two numbers by value, anything else by text."""
    if _is_number(a) and _is_number(b):
        return bool(a == b)
    return text(a).casefold() == text(b).casefold()


def text(value: Any) -> str:
    """A string as it is, any other scalar as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def number(value: Any) -> Any:
    """An int or a float of a number or a numeric string; None for anything else, booleans too."""
    if _is_number(value):
        return value
    if isinstance(value, str) and JSON_NUMBER.fullmatch(value):
        return json.loads(value)
    return None


def in_networks(value: Any, networks: list[str]) -> bool:
    """Is the text of an address inside one of them?  An IPv4-mapped address is IPv4."""
    if not isinstance(value, str):
        return False
    try:
        address: Any = ipaddress.ip_address(value)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in _network(n) for n in networks)


def _network(written: str) -> Any:
    """Host bits are ignored; a network of IPv4-mapped addresses is one of IPv4 addresses."""
    network = ipaddress.ip_network(written, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
