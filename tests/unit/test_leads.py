"""What a worker believes of leads: nothing it was not told, and never more than fits."""

from processor import leads
from processor.leads import Leads
from processor.pure.types import Root


def test_a_lead_nobody_told_of_is_its_own_root() -> None:
    """In epoch 0, as nearly all are."""
    assert Leads().root("acme", "A") == Root("A", 0)


def test_what_was_learnt_is_believed_until_it_is_corrected() -> None:
    """Per org unit; the last word counts."""
    known = Leads()
    known.learn({("acme", "A"): Root("B", 3)})
    assert (known.root("acme", "A"), known.root("other", "A")) == (Root("B", 3), Root("A", 0))
    known.learn({("acme", "A"): Root("A", 4)})
    assert known.root("acme", "A") == Root("A", 4)


def test_the_least_recently_learnt_is_forgotten_first() -> None:
    """A forgotten lead costs one refused batch, and is learnt again."""
    known = Leads()
    known.learn({("acme", f"{n}"): Root("B", n + 1) for n in range(leads._MOST)})
    known.learn({("acme", "0"): Root("C", 9)})
    known.learn({("acme", "new"): Root("B", 1)})
    assert known.root("acme", "0") == Root("C", 9)
    assert known.root("acme", "1") == Root("1", 0)
    assert known.root("acme", "2") == Root("B", 3)
    assert known.root("acme", "new") == Root("B", 1)
