"""Failed goals are tried again, ever more seldom."""

from __future__ import annotations

from kube_nginx_agent.nginx.backoff import Backoff


def test_goal_that_has_not_failed_may_be_tried_now() -> None:
    assert Backoff().due("goal") is None


def test_delay_doubles_with_each_failure_up_to_five_minutes() -> None:
    backoff = Backoff()

    delays = [backoff.failed("goal", now=0.0) for _ in range(11)]

    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_delay_stays_at_its_limit_for_ever() -> None:
    backoff = Backoff()

    delays = [backoff.failed("goal", now=0.0) for _ in range(5000)]

    assert delays[-1] == 300


def test_failed_goal_is_due_after_the_delay() -> None:
    backoff = Backoff(first=2.0)

    backoff.failed("goal", now=100.0)

    assert backoff.due("goal") == 102.0


def test_another_goal_may_be_tried_now() -> None:
    backoff = Backoff()
    backoff.failed("goal", now=100.0)

    assert backoff.due("another") is None


def test_another_goal_starts_with_the_first_delay() -> None:
    backoff = Backoff()
    backoff.failed("goal", now=0.0)
    backoff.failed("goal", now=0.0)

    assert backoff.failed("another", now=0.0) == 1.0


def test_success_forgets_the_failures() -> None:
    backoff = Backoff()
    backoff.failed("goal", now=0.0)
    backoff.failed("goal", now=0.0)

    backoff.succeeded()

    assert backoff.due("goal") is None
    assert backoff.failed("goal", now=0.0) == 1.0


def test_nothing_can_be_a_goal() -> None:
    backoff = Backoff()

    assert backoff.due(None) is None
    assert backoff.failed(None, now=5.0) == 1.0
    assert backoff.due(None) == 6.0
