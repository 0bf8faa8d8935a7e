"""What has failed is tried again, ever more seldom."""

from __future__ import annotations

from kube_nginx_agent.nginx.backoff import Backoff


def _delays(backoff: Backoff, count: int) -> list[float]:
    delays = []
    for _ in range(count):
        backoff.failed(now=1000.0)
        delays.append((backoff.retry_at(1000.0) or 0.0) - 1000.0)
    return delays


def test_what_has_not_failed_may_be_tried_now() -> None:
    assert Backoff().retry_at(5.0) is None


def test_delay_doubles_with_each_failure_up_to_five_minutes() -> None:
    assert _delays(Backoff(), 11) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_delay_stays_at_its_limit_for_ever() -> None:
    assert _delays(Backoff(), 5000)[-1] == 300


def test_a_time_that_has_come_is_now() -> None:
    backoff = Backoff(first=2.0)
    backoff.failed(now=100.0)

    assert backoff.retry_at(101.9) == 102.0
    assert backoff.retry_at(102.0) is None


def test_success_forgets_the_failures() -> None:
    backoff = Backoff()
    backoff.failed(now=0.0)
    backoff.failed(now=0.0)

    backoff.succeeded()

    assert backoff.retry_at(0.0) is None
    assert _delays(backoff, 1) == [1.0]
