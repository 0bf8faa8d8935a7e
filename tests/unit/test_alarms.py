"""The loop wakes for what is to come, and never spins for what is over."""

from __future__ import annotations

import pytest

from kube_nginx_agent.loop.alarms import BUSY, PastAlarmError, earliest


def test_the_earliest_time_wins() -> None:
    assert earliest({"a": 12.0, "b": None, "c": 11.0}, now=10.0) == 11.0


def test_without_any_time_the_loop_sleeps_long() -> None:
    assert earliest({"a": None}, now=10.0) > 1000.0


@pytest.mark.parametrize("past", [10.0, 9.0])
def test_a_time_that_is_over_costs_no_core(past: float) -> None:
    assert earliest({"a": past, "b": 20.0}, now=10.0) == 10.0 + BUSY


@pytest.mark.parametrize("past", [10.0, 9.0])
def test_a_time_that_is_over_is_a_fault_where_tests_look(past: float) -> None:
    with pytest.raises(PastAlarmError, match="^a: due in the past"):
        earliest({"a": past, "b": 20.0}, now=10.0, is_strict=True)
