"""IP addresses and networks as whole numbers; an IPv4-mapped IPv6 address or network is the IPv4 one."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

_LONGEST_ADDRESS = 64
_MAPPED_BITS = 96
_CACHED = 16_384


def within(networks: Iterable[str]) -> Callable[[str], bool]:
    """Whether a text is an address in one of these; host bits are ignored; raises ValueError for what is no network."""
    starts: dict[tuple[int, int], set[int]] = defaultdict(set)
    for network in map(_network, networks):
        starts[network.version, int(network.netmask)].add(int(network.network_address))
    # One look-up per prefix length, however many networks there are.
    masks = [(version, mask, frozenset(known)) for (version, mask), known in starts.items()]

    def contains(text: str) -> bool:
        address = _address(text) if len(text) <= _LONGEST_ADDRESS else None
        if address is None:
            return False
        version, number = address
        return any(version == of and number & mask in known for of, mask, known in masks)

    return contains


@lru_cache(_CACHED)
def _address(text: str) -> tuple[int, int] | None:
    """IP version and number; a zone (``%eth0``) is left out."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = None if address.version == 4 else address.ipv4_mapped  # noqa: PLR2004 - the IP version
    return (address.version, int(address)) if mapped is None else (4, int(mapped))


def _network(text: str) -> IPv4Network | IPv6Network:
    network = ip_network(text, strict=False)
    if isinstance(network, IPv4Network) or network.prefixlen < _MAPPED_BITS:
        return network
    mapped = network.network_address.ipv4_mapped
    return network if mapped is None else IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
