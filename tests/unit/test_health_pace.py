"""How soon backends are asked again."""

from __future__ import annotations

import random

import pytest

from kube_nginx_agent.health.pace import Haste, Limits, Pace, Wish, limits
from kube_nginx_agent.model import HealthCheck
from kube_nginx_agent.observation import Layer

CHECK = HealthCheck()
CALM = Wish(*limits(CHECK, None, None))
DOUBT = Wish(CALM.connect, CALM.answer, Haste.DOUBT, is_failing=True)
HINTED = Wish(CALM.connect, CALM.answer, Haste.DOUBT)
SHARED = Wish(CALM.connect, CALM.answer, Haste.DOUBT, is_failing=True, is_shared=True)


def pace() -> Pace:
    return Pace(Layer.TCP, CHECK.tcp, random.Random(1))


def looks(wish: Wish, seconds: float) -> int:
    """Return how often a backend is looked at in so many seconds."""
    own, now, count = pace(), 1000.0, 0
    while now < 1000.0 + seconds:
        now += own.pause(wish, now)
        count += 1
    return count


def test_quiet_times_keep_the_interval_and_its_jitter() -> None:
    own = pace()
    pauses = [own.pause(CALM, 1000.0 + 2 * n) for n in range(200)]

    assert 1.6 <= min(pauses) < 1.7
    assert 1.9 < max(pauses) <= 2.0


def test_doubt_hurries_for_three_seconds_and_then_backs_off() -> None:
    assert looks(DOUBT, 3.0) >= 15
    assert looks(DOUBT, 60.0) < 16 + 57 * 1.3


def test_doubt_without_any_failure_costs_little_more_than_none_in_the_long_run() -> None:
    assert looks(HINTED, 600.0) < 1.6 * looks(CALM, 600.0)


def test_what_several_share_is_looked_at_once_a_second() -> None:
    assert looks(SHARED, 10.0) <= 11


def test_near_backends_are_late_soon() -> None:
    assert limits(CHECK, 0.001, 0.004) == (
        Limits(0.25, 1.0),
        Limits(pytest.approx(0.505), pytest.approx(1.005)),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("connect", "early", "timeout"), [(0.1, 0.8, 1.0), (0.3, 1.0, 1.0), (3.0, 5.0, 5.0)]
)
def test_far_backends_are_given_the_time_that_they_take(
    connect: float, early: float, timeout: float
) -> None:
    told, answer = limits(CHECK, connect, 0.1)

    assert told == Limits(early, timeout)
    assert answer.timeout >= 1.0 + 4 * min(connect, 1.0)


def test_slow_answers_are_late_later_but_never_after_their_time() -> None:
    _, answer = limits(CHECK, None, 0.8)

    assert answer == Limits(1.0, 1.0)
