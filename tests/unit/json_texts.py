"""JSON as text, written token by token: what no encoder would write, decoders must read alike."""

from collections.abc import Sequence

from hypothesis import strategies as st

NUMBERS = st.sampled_from(
    [
        *(
            "0",
            "-0",
            "1",
            "-1",
            "0.0",
            "-0.0",
            "1.0",
            "1e5",
            "1E-5",
            "1e16",
            "1e22",
            "1e-400",
            "-1e-400",
        ),
        *(
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
            "-9223372036854775809",
        ),
        *(
            "18446744073709551615",
            "18446744073709551616",
            "99999999999999999999",
            "1" * 30,
            "1" * 400,
        ),
        *(
            "9007199254740993",
            "9007199254740993.0",
            "0.30000000000000004",
            "1.7976931348623159e308",
        ),
        *("1e308", "1e309", "-1e999", "2.2250738585072011e-308", "4.9e-324", "2.4e-324", "1e400"),
        *("9223372036854775807.0", "1" * 25 + ".5", "100000000000000000000e-5", "0e5", "1e+3"),
    ]
) | st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
PIECES = st.sampled_from(
    [
        *("a", "Z", "é", "😀", " ", "_", "-", "u0000", "e+", "\u2028", "\x7f", "\ufeff", "\u00a0"),
        *(
            r"\u0000",
            r"\ud83d",
            r"\ude00",
            r"\ud83d\ude00",
            r"\uD83D\uDE00",
            r"\u0041",
            r"\\",
            r"\"",
        ),
        *(r"\/", r"\b", r"\n", r"\t", r"\u001f", r"\\u0000", r"\udfff"),
    ]
)
GOOD_PIECES = st.sampled_from(
    ["a", "Z", "é", "😀", "1", ".", "_", r"\u0041", r"\\", r"\ud83d\ude00"]
)


def quoted(pieces: Sequence[str]) -> str:
    """A JSON string of these pieces."""
    return f'"{"".join(pieces)}"'


STRINGS = st.lists(PIECES, max_size=5).map(quoted)
GOOD_STRINGS = st.lists(GOOD_PIECES, min_size=1, max_size=5).map(quoted)
SCALARS = NUMBERS | STRINGS | st.sampled_from(["true", "false", "null"])


def arrays(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Arrays of these."""
    return st.lists(items, max_size=3).map(lambda found: f"[{' , '.join(found)}]")


def objects(
    values: st.SearchStrategy[str], keys: st.SearchStrategy[str] = STRINGS
) -> st.SearchStrategy[str]:
    """Objects of these, with any keys, repeated ones too."""
    members = st.tuples(keys, values).map(" : ".join)
    return st.lists(members, max_size=4).map(lambda found: "{" + ",\n".join(found) + "}")


VALUES = st.recursive(SCALARS, lambda inner: arrays(inner) | objects(inner), max_leaves=8)
METADATA = objects(VALUES, GOOD_STRINGS | STRINGS)
PLAIN_METADATA = objects(GOOD_STRINGS | NUMBERS | arrays(NUMBERS), GOOD_STRINGS)
TIMES = st.sampled_from(
    [
        *(
            '"2026-01-01T12:00:00Z"',
            '"2026-01-01T12:00:00.1239+01:00"',
            '"2026-01-01T13:00:00.001Z"',
        ),
        *(
            '"2026-01-01t11:59:59.999z"',
            '"1969-12-31T23:59:59.9Z"',
            '"2026-01-01"',
            '""',
            "5",
            "null",
        ),
    ]
)
FIELDS: dict[str, st.SearchStrategy[str]] = {
    "org_unit": GOOD_STRINGS | VALUES,
    "lead_id": GOOD_STRINGS | VALUES,
    "event_type": GOOD_STRINGS | VALUES,
    "id": GOOD_STRINGS | VALUES,
    "timestamp": TIMES | VALUES,
    "created_at": TIMES | VALUES,
    "metadata": METADATA | PLAIN_METADATA | VALUES,
    "unknown": VALUES,
}
GOOD_FIELDS = st.tuples(GOOD_STRINGS, PLAIN_METADATA).map(
    lambda found: [
        f'"org_unit":"acme","lead_id":{found[0]},"event_type":"page_view"',
        f'"metadata":{found[1]}',
    ]
)
MEMBERS = st.sampled_from(sorted(FIELDS)).flatmap(
    lambda name: FIELDS[name].map(lambda text: f'"{name}": {text}')
)


def event_texts(most: int = 3) -> st.SearchStrategy[str]:
    """Objects that are a good event but for a few members, later ones overriding earlier ones."""
    changes = st.lists(MEMBERS, max_size=most)
    return st.tuples(GOOD_FIELDS, changes).map(
        lambda found: "{" + ",".join(found[0] + found[1]) + "}"
    )


LISTS = st.lists(GOOD_STRINGS, max_size=3).map(lambda ids: f"[{','.join(ids)}]")
KINDS = st.sampled_from(['"merge"', '"unmerge"', '"join"', "null"])
REQUEST_FIELDS = st.sampled_from(
    ["org_unit", "target_lead_id", "source_lead_ids", "requested_by", "kind", "unknown"]
)
REQUEST = '"org_unit": "acme", "target_lead_id": "lead-1", "source_lead_ids": ["lead-2", "lead-3"]'


def request_texts() -> st.SearchStrategy[str]:
    """Objects that are a good merge request but for a few members, later ones overriding earlier ones."""
    change = st.tuples(REQUEST_FIELDS, GOOD_STRINGS | VALUES | LISTS | KINDS)
    changes = st.lists(change.map(lambda pair: f'"{pair[0]}": {pair[1]}'), max_size=3)
    return changes.map(lambda members: "{" + ", ".join([REQUEST, *members]) + "}")
