"""How a problem is put into words."""

from __future__ import annotations

import pytest

from kube_nginx_agent.config.flaws import (
    ConfigError,
    Path,
    Position,
    Problem,
    format_path,
)
from kube_nginx_agent.errors import printable


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("proxy", "idle_timeout"), "proxy.idle_timeout"),
        (("backends", 1, "weight"), "backends[1].weight"),
        (("backends", 0, "10.0.0.1"), 'backends[0]["10.0.0.1"]'),
        (("a\nb",), '["a\\nb"]'),
    ],
)
def test_path_is_written_as_people_know_it(path: Path, text: str) -> None:
    assert format_path(path) == text


def test_problem_without_key_and_hint_is_place_and_reason() -> None:
    assert Problem(Position(3, 7), (), "it is wrong").describe("f") == "f:3:7: it is wrong"


def test_problems_are_told_in_the_order_of_the_file() -> None:
    late, early = Problem(Position(9, 1), (), "late"), Problem(Position(2, 1), (), "early")

    error = ConfigError("f", (late, early))

    assert error.lines() == ["f:2:1: early", "f:9:1: late"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u00e9", "plain \u00e9"),
        ("a\x1b\u202e\ud800\n", "a\\x1b\\u202e\\ud800\\n"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 57 + "..."),
    ],
)
def test_printable_text_is_short_and_harmless(text: str, shown: str) -> None:
    assert printable(text) == shown
