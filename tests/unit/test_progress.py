"""A session is heard of when it gets ahead, not when the same packet comes again."""

from __future__ import annotations

from typing import Any

from kube_nginx_agent.sessions.progress import Progress
from unit.made_sessions import session

WATCH = {"data_ago": 0.5, "heard_ago": 0.5, "counted": (100, 200)}


def heard_ago(progress: Progress, at: float, **changes: Any) -> float:
    (seen,) = progress.of([session(**{**WATCH, **changes})], at)
    return round(seen.heard_ago, 6)


def test_new_bytes_are_life() -> None:
    progress = Progress()
    heard_ago(progress, 100.0)

    assert heard_ago(progress, 101.0, counted=(100, 300), data_ago=0.25, heard_ago=0.25) == 0.25


def test_acknowledgement_of_new_bytes_is_life() -> None:
    progress = Progress()
    heard_ago(progress, 100.0)

    assert heard_ago(progress, 101.0, counted=(150, 200), data_ago=1.5, heard_ago=0.1) == 0.1


def test_bytes_that_come_again_are_none() -> None:
    progress = Progress()
    heard_ago(progress, 100.0)

    for later in (1.0, 2.0, 4.0):
        again = heard_ago(progress, 100.0 + later, data_ago=0.5 + later, heard_ago=0.01)
        assert again == 0.5 + later


def test_session_that_was_not_seen_before_was_heard_when_its_data_came() -> None:
    assert heard_ago(Progress(), 100.0, data_ago=3.0, heard_ago=0.01) == 3.0


def test_session_that_has_ended_is_forgotten() -> None:
    progress = Progress()
    heard_ago(progress, 100.0)
    progress.of([], 101.0)

    assert heard_ago(progress, 102.0, data_ago=9.0, heard_ago=0.01) == 9.0
