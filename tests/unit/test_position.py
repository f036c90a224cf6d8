"""Positions in the live stream: there and back as text, and what lies between two of them."""

import base64
import binascii
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.pure import position
from processor.pure.position import NO_TOPIC, Position, Sent, Topic

OFFSETS = st.integers(0, 2**63 - 1)
TOPICS = st.builds(
    Topic, st.binary(min_size=6, max_size=6), st.lists(OFFSETS, max_size=5).map(tuple)
)
ONE, OTHER = b"one---", b"other-"


@st.composite
def positions(draw: st.DrawFn) -> Position:
    """Of up to three topics, some with a record that is half sent."""
    topics: tuple[Topic, ...] = draw(st.lists(TOPICS, max_size=3).map(tuple))
    places = Position(topics).places
    sents = st.builds(Sent, st.sampled_from(places), st.integers(1, 3)) if places else st.none()
    return Position(topics, draw(st.none() | sents))


def at(*nexts: int, identity: bytes = ONE, sent: Sent | None = None) -> Position:
    """A position in one topic."""
    return Position((Topic(identity, nexts),), sent)


@given(positions())
def test_a_position_is_read_as_it_was_written(found: Position) -> None:
    text = position.encode(found)
    assert position.decode(text) == found
    assert set(text) <= {*string.ascii_letters, *string.digits, "-", "_"}


@given(positions(), st.data())
def test_a_position_with_a_wrong_character_is_none(found: Position, data: st.DataObject) -> None:
    text = position.encode(found)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(
        st.sampled_from(sorted({*string.ascii_letters, "é", " ", "="} - {text[place]}))
    )
    changed = text[:place] + other + text[place + 1 :]
    assert position.decode(changed) in (None, found)  # the last bits of base64 may mean nothing


@given(st.text() | st.binary(max_size=40).map(lambda data: data.decode("latin-1")))
def test_anything_else_is_no_position(text: str) -> None:
    assert position.decode(text) is None


@pytest.mark.parametrize("text", ["", "A", "AQ", "A" * 30_000, "AQAAAAAA"])
def test_what_is_too_short_or_too_long_is_no_position(text: str) -> None:
    assert position.decode(text) is None


def test_a_checksum_does_not_make_a_position() -> None:
    """Whoever makes one up is refused like anybody else."""
    for body in (b"\x01\x05", b"\x01\x00\x01\x00\x00", b"\x01\x00\x00\x00", b"\x01" + b"\xff" * 30):
        checksum = binascii.crc32(body).to_bytes(4)
        text = base64.urlsafe_b64encode(body + checksum).rstrip(b"=").decode()
        assert position.decode(text) is None


def test_between_two_positions_are_the_offsets_of_each_partition() -> None:
    """A partition that is newer than a position is wanted from its first record on."""
    assert position.behind(at(5, 7), at(5, 9, 2)) == {(0, 1): (7, 9), (0, 2): (0, 2)}
    assert position.behind(at(5, 7), at(4, 7)) == {}


def test_a_position_is_ahead_where_the_other_has_yet_to_come() -> None:
    """A record that is half sent has been read."""
    assert position.ahead(at(5, 7), at(5, 6)) == {(0, 1): 7}
    assert position.ahead(at(5, 7, sent=Sent((0, 0), 1)), at(5, 7)) == {(0, 0): 6}
    assert position.ahead(at(5), at(6, 1)) == {}


def test_a_position_goes_on_only_in_its_own_topics() -> None:
    """With the partitions that were added since."""
    assert position.adopted(at(3), at(9, 9)) == at(3, 0)
    assert position.adopted(at(3), at(9, identity=OTHER)) == "foreign"
    assert position.adopted(at(3), Position(())) == "foreign"
    assert position.adopted(at(3, 4), at(9)) == "ahead"
    none = at(identity=NO_TOPIC)
    assert position.adopted(none, at(9)) == at(0)
    assert position.adopted(at(3), none) == "foreign"


def test_topics_are_followed_as_they_grow_and_anew_when_they_are_created_again() -> None:
    """One that is gone for a while keeps its place."""
    assert position.followed(at(3), [Topic(ONE, (0, 0))]) == (at(3, 0), False)
    assert position.followed(at(3), [Topic(OTHER, (0,))]) == (at(0, identity=OTHER), True)
    assert position.followed(at(3, 4), [Topic(NO_TOPIC, ())]) == (at(3, 4), False)
    assert position.followed(at(identity=NO_TOPIC), [Topic(ONE, (0,))]) == (at(0), False)


def test_a_step_forward_changes_one_partition() -> None:
    """And forgets what was half sent, unless it says so."""
    begun = at(3, 4, sent=Sent((0, 1), 1))
    assert position.advanced(begun, (0, 1), 5) == at(3, 5)
    assert position.advanced(at(3, 4), (0, 0), 3, 1) == at(3, 4, sent=Sent((0, 0), 1))
