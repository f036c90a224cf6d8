"""Where a replay stands: whatever was done in whatever order is done, and nothing else."""

import base64
import random
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.pure.place import LARGEST, Place, Walk, from_metadata, to_metadata

TOPIC = "0123456789abcdef"
PILE = "events.raw parse"
OTHER = "crm.merges merge"
NO_RANGES = base64.b64encode(zlib.compress(b"[]")).decode()
HALF = base64.b64encode(zlib.compress(msgspec.msgpack.encode({PILE: [1]}))).decode()
LETTERS = st.sets(st.integers(0, 80), max_size=40).map(sorted)


def replay(place: Place, letters: list[int], chosen: set[int]) -> tuple[Place, set[int]]:
    """A pass over the letters from the place on: the new place, and what was sent."""
    walk, sent = Walk(place), set()
    for offset in letters:
        if offset < place.next:
            continue
        if walk.is_done(offset, PILE):
            walk.done(offset, PILE)
        elif offset in chosen:
            walk.done(offset, PILE)
            sent.add(offset)
        else:
            walk.left(offset, PILE)
    return walk.place(), sent


@given(LETTERS, st.lists(st.sets(st.integers(0, 80)), max_size=4))
def test_what_was_sent_is_done_and_what_was_left_is_not(
    letters: list[int], choices: list[set[int]]
) -> None:
    """After any replays one after the other: each letter is sent once at most, and none is lost."""
    place, done = Place(), set[int]()
    for chosen in [*choices, set(letters)]:
        place, sent = replay(place, letters, chosen)
        place = told_again(place)
        assert sent == chosen & set(letters) - done
        done |= sent
        assert {offset for offset in letters if place.has(offset, PILE)} == done
    assert replay(place, letters, set(letters))[1] == set()
    assert place.done == {}


@given(LETTERS, st.sets(st.integers(0, 80)), st.integers(0, 40))
def test_a_replay_that_stops_half_way_keeps_what_was_done_beyond(
    letters: list[int], chosen: set[int], reached: int
) -> None:
    """The place is that of what was passed, and of what earlier replays did after it."""
    place, before = replay(Place(), letters, chosen)
    walk, sent = Walk(place), set()
    for offset in letters[:reached]:
        if offset >= place.next:
            walk.done(offset, PILE)
            sent.add(offset)
    found = walk.place()
    assert {offset for offset in letters if found.has(offset, PILE)} == before | sent


def told_again(place: Place) -> Place:
    """As it comes back from Kafka."""
    found = from_metadata(place.next, to_metadata(place, TOPIC), TOPIC)
    assert found == place
    return found


def test_a_topic_that_was_created_again_has_nothing_done() -> None:
    """Its offsets begin anew, and so does the place."""
    kept = to_metadata(Place(7, {PILE: ((9, 10),)}), TOPIC)
    assert from_metadata(7, kept, "another") == Place()


@pytest.mark.parametrize(
    "text",
    ["x", "1::", f"2:{TOPIC}:%", f"2:{TOPIC}:AAAA", f"2:{TOPIC}:{NO_RANGES}", f"2:{TOPIC}:{HALF}"],
)
def test_what_no_replay_has_written_is_not_guessed_at(text: str) -> None:
    """None: the command refuses."""
    assert from_metadata(7, text, TOPIC) is None


def test_an_offset_that_an_operator_has_set_is_a_place() -> None:
    """A reset of the group's offset has no metadata."""
    assert from_metadata(7, "", TOPIC) == Place(7)


def test_what_lies_between_letters_does_not_count() -> None:
    """Markers of transactions: ranges go on over them."""
    place, _ = replay(Place(), [0, 2, 4, 6, 8], {2, 4, 8})
    assert place == Place(0, {PILE: ((2, 5), (8, 9))})


def test_ten_thousand_letters_chosen_at_random_can_be_remembered() -> None:
    """And a hundred thousand of which every hundredth was chosen."""
    chance = random.Random(1)
    for count, share in ((10_000, 0.5), (100_000, 0.01)):
        chosen = {n for n in range(count) if chance.random() < share}
        place, _ = replay(Place(), list(range(count)), chosen)
        assert len(to_metadata(place, TOPIC)) <= LARGEST, (count, share)


def told(place: Place) -> Place:
    """As it comes back from Kafka, which takes it."""
    assert len(to_metadata(place, TOPIC)) <= LARGEST
    return told_again(place)


def test_letters_of_one_pile_lie_in_no_way_of_those_of_another() -> None:
    """However many lie between them: none of another pile is done, and all are met again."""
    chance = random.Random(1)
    piles = [chance.choice([PILE, OTHER]) for _ in range(40_000)]
    walk = Walk(Place())
    for offset, pile in enumerate(piles):
        (walk.done if pile == PILE else walk.left)(offset, pile)
    place = told(walk.place())
    assert all(place.has(offset, pile) == (pile == PILE) for offset, pile in enumerate(piles))
    assert place.next <= piles.index(OTHER)


PILES = st.sampled_from([PILE, OTHER, "events.raw publish"])


@given(
    st.lists(PILES, max_size=60),
    st.lists(
        st.tuples(st.sets(PILES), st.sets(st.integers(0, 59)), st.integers(0, 60)), max_size=5
    ),
)
def test_what_is_done_is_exactly_what_was_whatever_piles_and_letters_are_taken(
    piles: list[str], passes: list[tuple[set[str], set[int], int]]
) -> None:
    """Also where a pass ends half way."""
    place, done = Place(), set[int]()
    for taken, left, reached in passes:
        walk = Walk(place)
        for offset, pile in enumerate(piles[:reached]):
            if offset < place.next:
                continue
            assert walk.is_done(offset, pile) == (offset in done)
            if offset in done or (pile in taken and offset not in left):
                walk.done(offset, pile)
                done.add(offset)
            else:
                walk.left(offset, pile)
        place = told(walk.place())
        assert {n for n, pile in enumerate(piles) if place.has(n, pile)} == done


def test_letters_chosen_at_random_from_many_piles_are_remembered_as_those_of_one() -> None:
    """Ranges of all piles together are fewer there, and what was done beyond them stays."""
    chance, walk = random.Random(1), Walk(Place(0, {OTHER: ((20_000, 20_002),)}))
    piles, done = [f"events.raw {n}" for n in range(50)], dict[int, str]()
    for offset in range(8_000):
        pile = chance.choice(piles)
        if chance.random() < 0.5:
            walk.done(offset, pile)
            done[offset] = pile
        else:
            walk.left(offset, pile)
    place = told(walk.place())
    found = {n for n in range(8_000) if any(place.has(n, pile) for pile in piles)}
    assert found == done.keys()
    assert place.has(20_001, OTHER)
    assert not place.has(20_001, PILE)
