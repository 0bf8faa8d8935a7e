"""What may be concluded of the backends from all that was seen of all of them. Pure.

The rules, and why they are so: docs/decisions/0014-evidence.md. In short: nobody is left, and
nothing is ended, because of what may be wrong with this node, the network, or what all backends
share. What tells is that another one passes a look that began after the first failure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import FrozenSet, Iterable, Mapping

from kube_nginx_agent.health.machine import GLIMPSE, Health, State, heard_at, is_out, patience
from kube_nginx_agent.health.streak import Streak
from kube_nginx_agent.model import HealthCheck, SocketAddress
from kube_nginx_agent.observation import DRAINS, STUCK, Conviction
from kube_nginx_agent.sessions.lives import Life

Healths = Mapping[SocketAddress, Health]
Lives = Mapping[SocketAddress, Life]

ALIKE = 5.0
"""Seconds between the first failures of two backends within which they have one cause: that is
longer than the longest default interval of a probe, and doubt spreads faster."""
WITNESS_LASTS = 1.5
"""Seconds for which a pass says that a backend, and the way to it, live."""


class Grade(IntEnum):
    """How well a backend serves new clients; the best grade that is not empty takes them."""

    UP = 0
    DRAINING = 1
    """It answers, but is red, or slow, or turns new connections away."""
    REFUSED = 2
    """It answers by a refusal, or it is new and has not been seen yet."""
    SILENT = 3


@dataclass(frozen=True)
class Case:
    """What is held against a backend whose sessions may have to be ended."""

    conviction: Conviction
    first_began: float
    """When its first failed look began: another's pass counts if its look began later."""
    ripe_at: float
    """When its sessions may be ended, if it goes on like this and another lives."""
    last_began: float
    """When the newest look at it began that has failed."""


def grade(health: Health) -> Grade:
    """Return how well it serves new clients."""
    if health.takes_connections:
        return Grade.UP
    if health.state is State.DRAINING:
        return Grade.DRAINING
    return Grade.SILENT if health.cause in STUCK else Grade.REFUSED


def out_of_use(healths: Healths) -> FrozenSet[SocketAddress]:
    """Return who should get no new connections: all below the best grade, if others answer."""
    grades = {backend: grade(health) for backend, health in healths.items()}
    best = min(grades.values(), default=Grade.UP)
    return frozenset(
        backend
        for backend, own in grades.items()
        if own > best and _is_answered_for(backend, healths)
    )


def is_outdone(backend: SocketAddress, healths: Healths) -> bool:
    """Tell whether another has passed a look that began after this one's first failure."""
    since = healths[backend].failing_since
    return since is not None and any(
        other.passed_began > since and not other.failing_since
        for other in _others(backend, healths)
    )


def others_passed(backend: SocketAddress, healths: Healths) -> float:
    """Return when the newest look began that another one has passed in good time, and is well."""
    others = _others(backend, healths)
    return max((o.quick_began for o in others if not o.failing_since), default=-math.inf)


def must_fail_anew(backend: SocketAddress, healths: Healths) -> bool:
    """Tell whether others that failed with it are back, and no look at it has failed since.

    Who comes back a moment later than the first is not dead for that.
    """
    health = healths[backend]
    last_began = max(health.tcp.last_began, health.readyz.last_began)
    return is_out(health) and last_began < _returned(_others(backend, healths), health.fault_began)


def cases(
    healths: Healths, lives: Lives, check: HealthCheck, spread: float
) -> dict[SocketAddress, Case]:
    """Return what is held against each backend that is silent, though others may be so too.

    ``spread`` is this node's share (s) of the time over which the nodes of a cluster end sessions
    when the cause may have been a shared one.
    """
    found = {}
    for backend, health in healths.items():
        case = _case(backend, healths, lives.get(backend), check, spread)
        if case and is_out(health):
            found[backend] = case
    return found


def is_proven(
    backend: SocketAddress, case: Case, healths: Healths, now: float, early: float
) -> bool:
    """Tell whether its sessions may be ended now.

    It takes a look at it that began just now and is late already (``early`` s), and another
    backend that has just passed.
    """
    if now < case.ripe_at or case.last_began < case.ripe_at - lead(early):
        return False
    since = max(case.first_began, now - WITNESS_LASTS)
    return any(
        other.passed_began > since and grade(other) is Grade.UP and not other.failing_since
        for other in _others(backend, healths)
    )


def lead(early: float) -> float:
    """Return how long (s) before it is ripe the last looks of a case are made."""
    return early + 0.15


def _case(
    backend: SocketAddress, healths: Healths, life: Life | None, check: HealthCheck, spread: float
) -> Case | None:
    health = healths[backend]
    streak, fall = _silent_streak(health, check)
    if streak is None or streak.first_began is None or streak.full < fall:
        return None
    began = streak.first_began
    trouble = health.trouble_since or began
    others = list(_others(backend, healths))
    if any(_fails_alike(other, trouble) for other in others):
        return None
    needs_data = streak is health.readyz
    heard = heard_at(health, life, needs_data=needs_data)
    if heard > began + GLIMPSE:
        return None
    returned = _returned(others, trouble)
    since = max(began, heard, returned)
    if streak.full_began < since:
        return None
    is_shared = returned > began
    ripe_at = since + patience(check) + (spread if is_shared else 0.0)
    cause = streak.last.value if streak.last else ""
    why = f"it does not answer ({cause})"
    return Case(Conviction(since, needs_data, why), began, ripe_at, streak.last_began)


def _silent_streak(health: Health, check: HealthCheck) -> tuple[Streak | None, int]:
    """Return the probe that got no answer, the more basic one first, and its ``fall``."""
    if health.tcp.fails:
        return (health.tcp if health.tcp.last in STUCK else None), check.tcp.fall
    is_silent = health.readyz.fails and health.readyz.last in STUCK
    return (health.readyz if is_silent else None), check.readyz.fall


def _fails_alike(other: Health, began: float) -> bool:
    """Tell whether another fails in a way that may have the same cause."""
    since = other.trouble_since
    return (
        since is not None
        and abs(since - began) <= ALIKE
        and any(
            streak.is_troubled and streak.last in STUCK | DRAINS
            for streak in (other.tcp, other.readyz)
        )
    )


def _is_answered_for(backend: SocketAddress, healths: Healths) -> bool:
    """Tell whether another has answered a look that began after what puts this one out."""
    health = healths[backend]
    if health.state is State.NEW:
        return True
    since = health.fault_began
    if _returned(_others(backend, healths), since) > since:
        # It failed together with others, and passed a look since: this is another failure.
        since = max(since, health.failing_since or since)
    return not must_fail_anew(backend, healths) and any(
        other.answered_began > since for other in _others(backend, healths)
    )


def _returned(others: Iterable[Health], began: float) -> float:
    """Return when the last of those came back whose trouble began at the same time."""
    returns = (o.recovered_at for o in others if abs(o.trouble_began - began) <= ALIKE)
    return max(returns, default=-math.inf)


def _others(backend: SocketAddress, healths: Healths) -> Iterable[Health]:
    return (health for other, health in healths.items() if other != backend)
