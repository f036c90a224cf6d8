"""Where a replay stands: whatever was done in whatever order is done, and nothing else."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.pure.place import LARGEST, Place, Walk, from_metadata, to_metadata

TOPIC = "0123456789abcdef"
LETTERS = st.sets(st.integers(0, 80), max_size=40).map(sorted)


def replay(place: Place, letters: list[int], chosen: set[int]) -> tuple[Place, set[int]]:
    """A pass over the letters from the place on: the new place, and what was sent."""
    walk, sent = Walk(place), set()
    for offset in letters:
        if offset < place.next:
            continue
        if walk.is_done(offset):
            walk.done(offset)
        elif offset in chosen:
            walk.done(offset)
            sent.add(offset)
        else:
            walk.left(offset)
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
        assert {offset for offset in letters if place.has(offset)} == done
    assert replay(place, letters, set(letters))[1] == set()
    assert place.done == ()


@given(LETTERS, st.sets(st.integers(0, 80)), st.integers(0, 40))
def test_a_replay_that_stops_half_way_keeps_what_was_done_beyond(
    letters: list[int], chosen: set[int], reached: int
) -> None:
    """The place is that of what was passed, and of what earlier replays did after it."""
    place, before = replay(Place(), letters, chosen)
    walk, sent = Walk(place), set()
    for offset in letters[:reached]:
        if offset >= place.next:
            walk.done(offset)
            sent.add(offset)
    found = walk.place()
    assert {offset for offset in letters if found.has(offset)} == before | sent


def told_again(place: Place) -> Place:
    """As it comes back from Kafka."""
    found = from_metadata(place.next, to_metadata(place, TOPIC), TOPIC)
    assert found == place
    return found


def test_a_topic_that_was_created_again_has_nothing_done() -> None:
    """Its offsets begin anew, and so does the place."""
    kept = to_metadata(Place(7, ((9, 10),)), TOPIC)
    assert from_metadata(7, kept, "another") == Place()


@pytest.mark.parametrize("text", ["x", "2::", f"1:{TOPIC}:%", f"1:{TOPIC}:AAAA"])
def test_what_no_replay_has_written_is_not_guessed_at(text: str) -> None:
    """None: the command refuses."""
    assert from_metadata(7, text, TOPIC) is None


def test_an_offset_that_an_operator_has_set_is_a_place() -> None:
    """A reset of the group's offset has no metadata."""
    assert from_metadata(7, "", TOPIC) == Place(7)


def test_what_lies_between_letters_does_not_count() -> None:
    """Markers of transactions: ranges go on over them."""
    place, _ = replay(Place(), [0, 2, 4, 6, 8], {2, 4, 8})
    assert place == Place(0, ((2, 5), (8, 9)))


def test_ten_thousand_letters_chosen_at_random_can_be_remembered() -> None:
    """And a hundred thousand of which every hundredth was chosen."""
    chance = random.Random(1)
    for count, share in ((10_000, 0.5), (100_000, 0.01)):
        chosen = {n for n in range(count) if chance.random() < share}
        place, _ = replay(Place(), list(range(count)), chosen)
        assert len(to_metadata(place, TOPIC)) <= LARGEST, (count, share)


def test_letters_that_can_never_go_back_are_not_done_where_ranges_are_few() -> None:
    """They are looked at again, and told of again."""
    walk = Walk(Place())
    walk.hopeless(0)
    walk.done(1)
    walk.hopeless(2)
    walk.done(3)
    assert walk.place() == Place(0, ((1, 2), (3, 4)))


@given(st.sets(st.integers(0, 39_999), max_size=5))
@settings(max_examples=5)
def test_letters_that_can_never_go_back_are_passed_where_ranges_are_too_many(
    left: set[int],
) -> None:
    """However many there are, the others are done; those that were not chosen are not."""
    chance, walk = random.Random(1), Walk(Place())
    done = set()
    for offset in range(40_000):
        if offset in left:
            walk.left(offset)
        elif chance.random() < 0.5:
            walk.hopeless(offset)
        else:
            walk.done(offset)
            done.add(offset)
    place = walk.place()
    assert len(to_metadata(place, TOPIC)) <= LARGEST
    assert all(place.has(offset) for offset in done)
    assert not any(place.has(offset) for offset in left)
