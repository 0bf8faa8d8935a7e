"""Who is asked because of another, and how often: at once, and then within a budget."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.health.evidence import Case
from kube_nginx_agent.health.machine import Health, State
from kube_nginx_agent.health.pace import limits
from kube_nginx_agent.health.streak import Streak
from kube_nginx_agent.health.wishes import Wishes
from kube_nginx_agent.model import HealthCheck
from kube_nginx_agent.observation import Conviction, Result

A, B, C = (parse_address(f"10.0.0.{number}:6443") for number in (1, 2, 3))
CHECK = HealthCheck()
LIMITS = limits(CHECK, 0.001, 0.005)
T = 1000.0
WELL = Health(state=State.UP, passed_began=T - 5, answered_began=T - 5)


def failing(since: float) -> Health:
    streak = Streak(last=Result.TIMEOUT, fails=1, full=1, first_began=since, last_began=since)
    return replace(WELL, state=State.SUSPECT, tcp=streak)


def asked(healths: dict[object, Health], until: float, step: float = 0.05) -> list[float]:
    """Return when C was asked because of others, in a loop that wakes each ``step`` seconds."""
    wishes, times, now = Wishes(), [], T
    while now < until:
        wish = wishes.of(healths, {}, CHECK, LIMITS, now)[C]  # type: ignore[arg-type]
        if wish.asked_at and wish.asked_at not in times:
            times.append(wish.asked_at)
        now += step
    return times


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in zip(times, times[1:])]


def test_nobody_is_asked_while_all_are_well() -> None:
    assert asked({A: WELL, B: WELL, C: WELL}, T + 3) == []


def test_the_others_are_asked_at_once_and_soon_again_while_none_has_passed_since() -> None:
    times = asked({A: failing(T), B: WELL, C: WELL}, T + 4.9)

    assert times[0] == T
    assert gaps(times)[:4] == pytest.approx([0.3] * 4, abs=0.06)
    assert min(gaps(times)[5:]) > 0.9
    assert len(times) <= 5 + 5


def test_doubt_spreads_for_a_few_seconds_only() -> None:
    assert asked({A: failing(T - 5.5), B: WELL, C: WELL}, T + 3) == []


def test_who_has_passed_a_look_since_settles_the_doubt() -> None:
    settled = replace(WELL, passed_began=T + 0.01, answered_began=T + 0.01)

    assert asked({A: failing(T), B: settled, C: WELL}, T + 3) == []


def test_several_that_fail_are_not_asked_in_a_hurry() -> None:
    times = asked({A: failing(T), B: failing(T), C: WELL}, T + 4.9)

    assert times[0] == T
    assert min(gaps(times)) > 1.9


def test_wake_is_when_somebody_may_be_asked_again() -> None:
    wishes = Wishes()
    wishes.of({A: failing(T), C: WELL}, {}, CHECK, LIMITS, T)

    assert wishes.due(T) == pytest.approx(T + 0.3)
    assert wishes.due(T + 0.3) is None


def test_who_left_the_list_and_came_back_is_asked_anew() -> None:
    wishes = Wishes()
    wishes.of({A: failing(T), C: WELL}, {}, CHECK, LIMITS, T)
    wishes.of({A: failing(T)}, {}, CHECK, LIMITS, T + 0.01)

    wish = wishes.of({A: failing(T), C: WELL}, {}, CHECK, LIMITS, T + 0.02)[C]

    assert wish.asked_at == T + 0.02


def test_silent_one_is_asked_two_questions_before_its_case_is_ripe() -> None:
    """One of two is on the kept connection, which still answers where only new ones are lost."""
    wishes, times, now = Wishes(), [], T
    case = Case(Conviction(T - 2, needs_data=False, why=""), T - 2, ripe_at=T + 1, last_began=T)
    while now < T + 1:
        wish = wishes.of({A: failing(T - 2), C: WELL}, {A: case}, CHECK, LIMITS, now)[A]
        if wish.asked_at and wish.asked_at not in times:
            times.append(wish.asked_at)
        now += 0.05

    assert len(times) == 2
    assert all(T + 0.5 < at < T + 0.9 for at in times)
