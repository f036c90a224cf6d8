"""Liveness as progress: what stalls, and what is excused."""

from collections.abc import Hashable

from processor.pure.progress import Marks, View, observe, stalled


def after(*looks: tuple[float, dict[Hashable, View]]) -> Marks:
    """The marks after looks at given seconds."""
    marks: Marks = {}
    for now_s, views in looks:
        marks = observe(marks, views, now_s)
    return marks


def test_what_should_move_and_does_not_stalls_after_the_limit() -> None:
    """Counted from the first look at its offset."""
    stuck: dict[Hashable, View] = {"lane": View(5, expected=True)}
    marks = after((0, stuck), (50, stuck), (100, stuck))
    assert stalled(marks, 100, 99) == ["lane"]
    assert stalled(marks, 100, 100) == []


def test_what_moves_does_not_stall() -> None:
    """However slowly."""
    marks = after((0, {"lane": View(5, expected=True)}), (90, {"lane": View(6, expected=True)}))
    assert stalled(marks, 150, 99) == []


def test_what_waits_for_a_dependency_or_has_nothing_to_do_is_excused() -> None:
    """And gets the whole limit again afterwards."""
    views: list[tuple[float, dict[Hashable, View]]] = [
        (0, {"lane": View(5, expected=True)}),
        (90, {"lane": View(5, expected=False)}),
        (100, {"lane": View(5, expected=True)}),
    ]
    assert stalled(after(*views), 180, 99) == []
    assert stalled(after(*views), 190, 99) == ["lane"]


def test_what_is_gone_is_forgotten() -> None:
    """A partition may come back later as new."""
    assert after((0, {"lane": View(5, expected=True)}), (50, {})) == {}
