"""Durations as text and back."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_nginx_agent.config.durations import format_duration, parse_duration

MILLISECOND = timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("0ms", 0),
        ("500ms", 500),
        ("2s", 2_000),
        ("10m", 600_000),
        ("1h30m", 5_400_000),
        ("1d", 86_400_000),
        ("1s500ms", 1_500),
        ("1m1ms", 60_001),
    ],
)
def test_duration_is_read(text: str, milliseconds: int) -> None:
    assert parse_duration(text) == milliseconds * MILLISECOND


@pytest.mark.parametrize(
    "text", ["", "5", "s", "1.5s", "1 s", " 1s", "1s\n", "1S", "-1s", "1w", "1234567s", "\u0663s"]
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0ms"),
        (1, "1ms"),
        (1_000, "1s"),
        (1_500, "1500ms"),
        (60_000, "1m"),
        (90_000, "90s"),
        (3_600_000, "1h"),
        (172_800_000, "2d"),
    ],
)
def test_duration_is_written_in_the_largest_unit_that_fits(milliseconds: int, text: str) -> None:
    assert format_duration(milliseconds * MILLISECOND) == text


@given(st.integers(0, 999_999).map(lambda count: count * MILLISECOND))
def test_written_duration_is_read_as_itself(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(
    st.lists(st.tuples(st.integers(0, 999_999), st.sampled_from("smhd")), min_size=1, max_size=5)
)
def test_read_duration_is_written_as_one_that_is_as_long(parts: list[tuple[int, str]]) -> None:
    duration = parse_duration("".join(f"{count}{unit}" for count, unit in parts))

    written = format_duration(duration)

    units = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
    number, unit = re.fullmatch("([0-9]+)([a-z]+)", written).groups()  # type: ignore[union-attr]
    assert int(number) * units[unit] * MILLISECOND == duration
