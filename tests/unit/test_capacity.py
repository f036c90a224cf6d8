"""The capacity section: what the README shows is what its own measured costs give."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.capacity.arithmetic import Costs, cores, limit, parsed, rendered

README = Path(__file__).parents[2] / "README.md"
COSTS = Costs(
    worker=30.0,
    kafka=12.0,
    valkey=6.0,
    postgres=60.0,
    stored=1_000,
    wal=1_500,
    raw=300,
    enriched=500,
    lead=400,
)


def section() -> str:
    """What stands between the markers."""
    found = re.search(r"<!-- capacity -->\n(.*)\n<!-- /capacity -->", README.read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_readme_shows_what_its_costs_give() -> None:
    """Every number of it, with the sentence that says where they were measured."""
    shown = section()
    about = shown.partition("\n")[0]
    assert about.startswith("`make capacity` on ")
    assert rendered(parsed(shown), about) == shown


def test_what_is_shown_is_read_again() -> None:
    """Else the test above would compare nothing."""
    assert parsed(rendered(COSTS, "anywhere")) == COSTS
    with pytest.raises(KeyError):
        parsed("| worker, µs of CPU | 1.0 |")


def test_each_cost_changes_what_is_needed() -> None:
    """None is left out of the arithmetic."""
    before = rendered(COSTS, "").splitlines()[13:]
    for name in COSTS.__dataclass_fields__:
        more = replace(COSTS, **{name: getattr(COSTS, name) * 3})
        assert rendered(more, "").splitlines()[13:] != before, name


@pytest.mark.parametrize(
    ("rate", "micros", "needed"),
    [(10_000, 30.0, 0.5), (100_000, 30.0, 5.0), (1_000_000, 6.0, 10.0)],
)
def test_cores_are_planned_to_be_busy_for_six_tenths(
    rate: int, micros: float, needed: float
) -> None:
    """rate × µs is the time of so many cores; they have more."""
    assert cores(rate, micros) == pytest.approx(needed)


def test_a_primary_takes_what_its_cores_have_time_for() -> None:
    """Planned alike."""
    assert limit(32, 60.0) == 320_000


def test_the_arithmetic_is_shown() -> None:
    """The factors stand beside the result."""
    text = rendered(COSTS, "")
    assert "| Postgres cores | rate × 60.0 µs ÷ 0.6 | 1 | 10 | 100 |" in text
    assert (
        "| Postgres disk in a day | rate × 86,400 s × 1,000 B | 864 GB | 8.6 TB | 86.4 TB |" in text
    )
    assert (
        "| Valkey memory | rate × 86,400 s ÷ 100 events a lead × 400 B | 3.5 GB | 34.6 GB | 346 GB |"
        in text
    )
