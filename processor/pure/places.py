"""Which records of a topic are due: each once, in order, with none left out, whatever is delivered.

A record comes with the offset of the one that was fetched before it.  Offsets alone do not tell a record that was left out from a
transaction's marker, which takes an offset too; the record before does.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from processor.pure.enriched import Found, Relinked
from processor.pure.parts import parts

MOST_LEADS = 5_000
"""That are looked at together: less than a second of work, and no transaction may stand idle for longer than five."""


class Delivered(Struct, frozen=True):
    """What a record says, and where it stands."""

    partition: int
    offset: int
    previous: int
    """The offset of the record before it; before the first one fetched: less than where fetching began."""
    found: Found


class Due(Struct, frozen=True):
    """What is to be applied."""

    records: Sequence[Delivered]
    places: Mapping[int, int]
    """The next offset of each partition, afterwards."""
    torn: frozenset[int]
    """Partitions that end with a gap: to be fetched again from their places."""


def due(delivered: Iterable[Delivered], places: Mapping[int, int]) -> Due:
    """Records that are not applied yet and whose predecessors are.

    Behind a gap there may be what was fetched again for it already: that counts, or whoever has much to read goes round in circles.
    """
    records: list[Delivered] = []
    torn: set[int] = set()
    after = dict(places)
    for one in delivered:
        place = after[one.partition]
        if one.offset < place:
            continue
        if one.previous >= place:
            torn.add(one.partition)
            continue
        torn.discard(one.partition)
        records.append(one)
        after[one.partition] = one.offset + 1
    return Due(records, after, frozenset(torn))


def in_parts(delivered: Iterable[Delivered]) -> Iterator[Sequence[Delivered]]:
    """The records in order, in several parts where merges among them name more than `MOST_LEADS`."""
    return parts(delivered, _named, MOST_LEADS)


def _named(one: Delivered) -> int:
    return len(one.found.leads) if isinstance(one.found, Relinked) else 0


class Standing(Struct, frozen=True):
    """How far a partition is fetched."""

    end: int
    """The offset after the last readable record, transactions' markers included."""
    position: int
    """The offset that is fetched next."""
    last: int
    """The offset of the last record that was fetched, or less than where fetching began."""

    def lag(self, place: int) -> int:
        """How much is not counted yet where this is; nought where only markers are left."""
        done = self.position >= self.end and self.last < place
        return 0 if done else max(0, self.end - place)
