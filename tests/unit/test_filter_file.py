"""The file of filters: what is wrong is said where it stands, and what is written is read back."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processor.io import filter_file
from schemas import FilterFile

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
WORDS = TEXT | st.sampled_from(
    ["\x85 \u2028", "yes", "null", "1e3", "0x1F", "1_000", "12:30:45", "~", " a ", "- b"]
)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = WORDS | NUMBERS | st.booleans()


@given(WORDS, st.lists(VALUES, min_size=1, max_size=3), WORDS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(
    tmp_path: Path, name: str, values: list[Any], key: str
) -> None:
    """Whatever a text looks like to YAML."""
    conditions = [{"key": key[:99], "operator": "in", "value": values}]
    filters = {"metadata_filters": [{"id": "mf", "name": name[:99], "conditions": conditions}]}
    file = FilterFile.model_validate({"org_units": {name[:64]: filters}})
    path = tmp_path / "filters.yaml"
    path.write_text(
        filter_file.write(file.model_dump(mode="json", exclude_none=True)), encoding="utf-8"
    )
    read = filter_file.read(path)
    assert read == file
    assert read.model_dump_json() == file.model_dump_json()


GOOD = """
org_units:
  acme:
    velocity_filters:
      - {id: vf-10, name: Bursts, event_type: page_view, threshold: 3, window_ms: 1000}
    metadata_filters:
      - id: mf-10
        name: Bots
        event_type: ""
        conditions:
          - {key: user_agent, operator: contains, value: bot}
          - {key: net.ip, operator: in_cidr, value: 10.0.0.0/8}
"""


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("threshold: 3", "threshold: 3.5", "velocity filter vf-10, threshold: Input should be"),
        ("threshold: 3", "treshold: 3", "velocity filter vf-10, treshold: there is no such field"),
        (", threshold: 3", "", "org unit acme, velocity filter vf-10, threshold: is required"),
        ("id: vf-10, ", "", "org unit acme, velocity filter number 1, id: is required"),
        ("{id: vf-10", "{id: mf-10", "org unit acme: an id is unique over both kinds, but twice"),
        ("velocity_filters", "velocity_filter", "org unit acme, velocity_filter: there is no such"),
        ("operator: contains", "operator: has", "conditions 1: there is no operator 'has', only"),
        ("value: bot", "value: [bot]", "mf-10, conditions 1, value: Input should be a valid str"),
        ("value: 10.0.0.0/8", "value: 10.0.0.0/80", "mf-10, conditions 2, value: '10.0.0.0/80' "),
        ("value: bot", f"value: {'x' * (1 << 20)}", "mf-10, conditions: have at most 1048576 byt"),
        ("value: 10.0.0.0/8", "valeu: x", "conditions 2, valeu: there is no such field"),
        ("  acme:", "  12:", "org unit 12, [key]: Input should be a valid string"),
        ("  acme:", "  acme: {}\n  acme:", "line 4: acme is given twice"),
        ("name: Bots", "name: Bots\n        name: Bots", "line 9: name is given twice"),
        ("org_units:", "- org_units:", "the file: Input should be a mapping"),
        ("org_units:", "other:", "org_units: is required"),
        (GOOD, "", "the file: Input should be a mapping"),
        (GOOD, "[1]", "the file: Input should be a mapping"),
        (GOOD, "org_units: {a: }", "org unit a: Input should be a mapping"),
        (GOOD, "org_units: {a: {velocity_filters: [5]}}", "velocity filter number 1: Input"),
        (GOOD, "org_units: {? [a] : {}}", "is not YAML: "),
        (GOOD, "org_units: !!python/name:os.system", "is not YAML: "),
        (GOOD, "\0", "is not YAML: "),
        ("threshold: 3", "threshold: !!bool x", "this is no bool in "),
        ("threshold: 3", "threshold: !!timestamp x", "this is no timestamp in "),
        ("threshold: 3", 'threshold: !!int ""', "this is no int in "),
        ("threshold: 3", 'threshold: !!float ""', "this is no float in "),
        ("threshold: 3", "threshold: 2024-13-45", "this is no timestamp in "),
        ("threshold: 3", "threshold: !!set {1, 2}", "a set has no order in "),
        ("value: 10.0.0.0/8", "value: !!set {10.0.0.0/8}", "a set has no order in "),
        (GOOD, "!!map [1]", "expected a mapping node, but found sequence in "),
        (GOOD, "!!map x", "expected a mapping node, but found scalar in "),
        (GOOD, "org_units: !!map [[a, b]]", "expected a mapping node, but found sequence in "),
        (GOOD, "org_units: {a: {velocity_filters: !!binary aGk=}}", "velocity_filters: Input"),
        (GOOD, "org_units: {a: {velocity_filters: !!omap [b: 1]}}", "velocity filter number 1: "),
        (GOOD, "org_units: {a: {velocity_filters: !!pairs x}}", "is not YAML: "),
        (GOOD, "org_units: {a: {velocity_filters: {0: x}}}", "velocity_filters: Input"),
    ],
)
def test_a_mistake_is_named_where_it_stands(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    """Org unit, filter, condition and field, one mistake to a line."""
    path = tmp_path / "filters.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(filter_file.BadFile) as bad:
        filter_file.read(path)
    assert any(complaint in line for line in str(bad.value).splitlines()), str(bad.value)


TAGS = ["map", "seq", "str", "int", "float", "bool", "null", "set", "omap", "pairs", "binary"]
NODES = ["[1]", "x", "{a: 1}", "[[a, b]]", "[]", "{}", '""', "[{a: 1}]", "{? [1] : 2}", "{<<: x}"]


PLACES = ["{}", "org_units: {{a: {}}}", "org_units: {{? {} : {{}}}}", "org_units: [{}]"]


@pytest.mark.parametrize("tag", [*TAGS, "timestamp", "merge", "value", "other"])
def test_whatever_a_tag_stands_before_a_file_is_read_or_refused(tmp_path: Path, tag: str) -> None:
    """As a document, a value, a key or an item."""
    path = tmp_path / "filters.yaml"
    for place, node in product(PLACES, NODES):
        path.write_text(place.format(f"!!{tag} {node}"))
        units, refusal = set[str](), str(path)
        try:
            units.update(filter_file.read(path).org_units)
        except filter_file.BadFile as bad:
            refusal = str(bad)
        assert units <= {"a", "1", "x"}
        assert str(path) in refusal


def test_every_mistake_is_a_line_of_its_own(tmp_path: Path) -> None:
    """So that a file is put right in one go."""
    path = tmp_path / "filters.yaml"
    path.write_text(GOOD.replace("threshold: 3", "threshold: x").replace("contains", "has"))
    with pytest.raises(filter_file.BadFile) as bad:
        filter_file.read(path)
    assert len(str(bad.value).splitlines()) == 2


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    """Missing, or no UTF-8."""
    path = tmp_path / "filters.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(filter_file.BadFile, match=r"filters\.yaml"):
        filter_file.read(path)


def test_the_example_of_the_contract_is_read(tmp_path: Path) -> None:
    """With an event type in any spelling."""
    path = tmp_path / "filters.yaml"
    path.write_text(GOOD)
    filters = filter_file.read(path).org_units["acme"]
    assert [one.event_type for one in filters.velocity_filters] == ["Page View"]
    assert [one.operator for one in filters.metadata_filters[0].conditions] == [
        "contains",
        "in_cidr",
    ]
