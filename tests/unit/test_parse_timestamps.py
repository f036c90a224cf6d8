"""RFC 3339, strictly: what is a time, and which millisecond it is."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from processor.pure.timestamps import EARLIEST, LATEST, from_text, to_text
from tests.oracle_parse import RefusedError, milliseconds

NOON = 1_767_268_800_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01T12:00:00Z", NOON),
        ("2026-01-01t12:00:00z", NOON),
        ("2026-01-01T12:00:00+00:00", NOON),
        ("2026-01-01T12:00:00-00:00", NOON),
        ("2026-01-01T13:30:00+01:30", NOON),
        ("2026-01-01T10:30:00-01:30", NOON),
        ("2025-12-31T12:01:00-23:59", NOON),
        ("2026-01-01T12:00:00.1Z", NOON + 100),
        ("2026-01-01T12:00:00.12Z", NOON + 120),
        ("2026-01-01T12:00:00.123Z", NOON + 123),
        ("2026-01-01T12:00:00.1239Z", NOON + 123),
        ("2026-01-01T12:00:00.0009z", NOON),
        ("2026-01-01T12:00:00." + "9" * 5_000 + "Z", NOON + 999),
        ("1969-12-31T23:59:59.9999Z", -1),
        ("1969-12-31T23:59:59.999+00:00", -1),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000),
        ("0001-01-01T00:00:00Z", EARLIEST),
        ("9999-12-31T23:59:59.9999Z", LATEST),
    ],
)
def test_further_decimals_are_cut_and_offsets_taken_off(text: str, expected: int) -> None:
    """Cut, never rounded: also before 1970."""
    assert from_text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-01",
        "2026-01-01T12:00Z",
        "2026-01-01T12:00:00",
        "2026-01-01 12:00:00Z",
        "2026-01-01T12:00:00 Z",
        " 2026-01-01T12:00:00Z",
        "2026-01-01T12:00:00Z\n",
        "2026-01-01T12:00:00.Z",
        "2026-01-01T12:00:00,5Z",
        "2026-01-01T12:00:00+0100",
        "2026-01-01T12:00:00+01",
        "2026-01-01T12:00:00+24:00",
        "2026-01-01T12:00:00+01:60",
        "2026-01-01T24:00:00Z",
        "2026-01-01T23:60:00Z",
        "2016-12-31T23:59:60Z",
        "2026-02-29T12:00:00Z",
        "2026-13-01T12:00:00Z",
        "2026-00-01T12:00:00Z",
        "2026-01-00T12:00:00Z",
        "26-01-01T12:00:00Z",
        "12026-01-01T12:00:00Z",
        "+2026-01-01T12:00:00Z",
        "20260101T120000Z",
        "2026-W01-1T12:00:00Z",
        "2026-01-01T12:00:00UTC",
        "\u0662\u0660\u0662\u0666-01-01T12:00:00Z",
        "2026-01-01T12:00:0\u0660Z",
        "2026-01-01T12:00:00.\u0661Z",
        "2026-01-01T12:00:00.1\0Z",
        "0000-12-31T23:59:59Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "noon",
    ],
    ids=ascii,
)
def test_any_other_text_is_no_time(text: str) -> None:
    """No leap second, no 24:00, no other separator, only ASCII digits, only the years 1 to 9999 in UTC."""
    assert from_text(text) is None


@given(st.integers(EARLIEST, LATEST))
@example(EARLIEST)
@example(LATEST)
@example(-1)
@example(0)
def test_every_millisecond_is_written_as_it_is_read(time: int) -> None:
    """Three decimals and Z, whatever the year."""
    text = to_text(time)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time)
    assert text == moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    assert from_text(text) == time


PARTS = st.tuples(
    st.sampled_from(["0001", "1969", "2024", "2026", "9999", "0000", "202"]),
    st.sampled_from(["-"]),
    st.sampled_from(["01", "02", "12", "13", "00"]),
    st.sampled_from(["-"]),
    st.sampled_from(["01", "29", "31", "30", "00"]),
    st.sampled_from(["T", "t", " ", ""]),
    st.sampled_from(["00", "12", "23", "24"]),
    st.sampled_from([":"]),
    st.sampled_from(["00", "59", "60"]),
    st.sampled_from([":00", ":59", ":60", ""]),
    st.sampled_from(["", ".", ".0", ".5", ".05", ".999", ".9999", ".1234567"]),
    st.sampled_from(["Z", "z", "+00:00", "-00:01", "+23:59", "-23:59", "+24:00", "", "+01"]),
).map("".join)


@given(PARTS | st.text("0123456789TtZz:.+- ", max_size=30))
def test_reading_agrees_with_the_contract_followed_word_by_word(text: str) -> None:
    """The look-ups of the common forms change no answer."""
    try:
        expected: int | None = milliseconds(text)
    except RefusedError:
        expected = None
    if expected is not None and not EARLIEST <= expected <= LATEST:
        expected = None
    assert from_text(text) == expected
