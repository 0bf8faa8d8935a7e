"""The state of one backend as a pure function of the state before, an observation, and the time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Tuple

from kube_nginx_agent.model import HealthCheck, Probe
from kube_nginx_agent.observation import DRAINS, PASSES, STUCK, Layer, Observation, Result

_FLAP_WINDOW = 600.0
"""Seconds after which an outage is no longer held against a backend."""
_FIRST_HOLD = 2.0
_LONGEST_HOLD = 60.0
_HINT_LASTS = 2.0
"""Seconds for which a backend stays suspect after a hint that no probe has confirmed."""
_RTT_WEIGHT = 0.2
"""Of a new round-trip time in the smoothed one; TCP itself takes 1/8 (RFC 6298)."""


class State(Enum):
    """What a backend is to nginx; the value is the word that people read."""

    NEW = "new"
    UP = "up"
    SUSPECT = "suspect"
    DRAINING = "draining"
    DOWN = "down"


@dataclass(frozen=True)
class Streak:
    """What one probe has seen lately, and what it therefore believes."""

    last: Result | None = None
    detail: str = ""
    passes: int = 0
    fails: int = 0
    has_failed: bool = False
    """Whether ``fall`` failures in a row have come, and not ``rise`` passes since."""


@dataclass(frozen=True)
class Health:
    """Everything that is remembered of one backend; times are seconds of a steady clock."""

    state: State = State.NEW
    since: float = 0.0
    is_trusted: bool = False
    """Whether it takes connections before anything is known: all do when the agent starts."""
    tcp: Streak = field(default_factory=Streak)
    readyz: Streak = field(default_factory=Streak)
    was_ready: bool = False
    """Whether it has ever answered 200, so that a 403 now means that it is starting."""
    hinted_at: float | None = None
    outages: Tuple[float, ...] = ()
    held_until: float = 0.0
    rtt: float | None = None
    """Smoothed, of the TCP connect, in seconds."""

    @property
    def takes_connections(self) -> bool:
        """Whether nginx should send it new ones."""
        return self.state in (State.UP, State.SUSPECT) or (
            self.state is State.NEW and self.is_trusted
        )

    @property
    def is_stuck(self) -> bool:
        """Whether its sessions hang, and their clients are better off with an end."""
        return self.state is State.DOWN and self.cause in STUCK

    @property
    def is_in_doubt(self) -> bool:
        """Whether it is worth a look more often than usual."""
        if self.state is State.SUSPECT or self.hinted_at is not None:
            return True
        return any(streak.has_failed != (streak.fails > 0) for streak in (self.tcp, self.readyz))

    @property
    def due(self) -> float | None:
        """When time alone may change the state."""
        if self.hinted_at is not None:
            return self.hinted_at + _HINT_LASTS
        return self.held_until if self.state in (State.DRAINING, State.DOWN) else None

    @property
    def cause(self) -> Result | None:
        """The result that keeps it from being up, the more basic probe's first."""
        streak = self._culprit()
        return streak.last if streak else None

    @property
    def detail(self) -> str:
        """The words of that result."""
        streak = self._culprit()
        return streak.detail if streak else ""

    def _culprit(self) -> Streak | None:
        for streak in (self.tcp, self.readyz):
            if streak.has_failed and streak.fails:
                return streak
        return next((s for s in (self.tcp, self.readyz) if s.has_failed or s.fails), None)


def observe(health: Health, seen: Observation, check: HealthCheck, now: float) -> Health:
    """Return the health after one more look."""
    if seen.result is Result.NO_ROOM:
        return health  # It says something of this node, nothing of the backend.
    if seen.layer is Layer.TCP:
        rtt = _smooth(health.rtt, seen.rtt)
        health = replace(health, tcp=_extend(health.tcp, seen, check.tcp), rtt=rtt)
    else:
        seen = _judge_alive(health, seen)
        health = replace(health, readyz=_extend(health.readyz, seen, check.readyz))
        health = replace(health, was_ready=health.was_ready or seen.result is Result.OK)
    return reconsider(replace(health, hinted_at=_hint_after(health, now)), check, now)


def hint(health: Health, check: HealthCheck, now: float) -> Health:
    """Return the health after nginx has met an error: a reason to look, not yet to believe."""
    return reconsider(replace(health, hinted_at=now), check, now)


def reconsider(health: Health, check: HealthCheck, now: float) -> Health:
    """Return the health as time alone makes it: a hold ends, a hint grows old."""
    health = replace(health, hinted_at=_hint_after(health, now))
    wanted = _state_of(health, check)
    was_out = is_out(health)
    if was_out and wanted in (State.UP, State.SUSPECT) and now < health.held_until:
        return health
    if wanted is health.state:
        return health
    if wanted in (State.DRAINING, State.DOWN) and not was_out:
        outages = (*(t for t in health.outages if now - t < _FLAP_WINDOW), now)
        hold = min(_FIRST_HOLD * 2.0 ** min(len(outages) - 2, 30), _LONGEST_HOLD)
        held_until = now + hold if len(outages) > 1 else 0.0
        health = replace(health, outages=outages, held_until=held_until)
    return replace(health, state=wanted, since=now)


def is_out(health: Health) -> bool:
    """Tell whether it has been put out."""
    return health.state in (State.DRAINING, State.DOWN)


def _state_of(health: Health, check: HealthCheck) -> State:
    if health.tcp.has_failed:
        return State.DOWN
    if health.readyz.has_failed:
        if health.readyz.last in PASSES:  # on its way back, but not there yet
            return health.state if is_out(health) else State.DRAINING
        return State.DRAINING if health.readyz.last in DRAINS else State.DOWN
    if not _has_passed(health, check):
        return State.NEW
    doubtful = health.tcp.fails or health.readyz.fails or health.hinted_at is not None
    return State.SUSPECT if doubtful else State.UP


def _has_passed(health: Health, check: HealthCheck) -> bool:
    """Tell whether every probe that is on has passed once."""
    if health.state in (State.UP, State.SUSPECT, State.DRAINING, State.DOWN):
        return True
    asked = [(check.tcp, health.tcp), (check.readyz, health.readyz)]
    return all(streak.passes for probe, streak in asked if probe.enabled)


def _extend(streak: Streak, seen: Observation, probe: Probe) -> Streak:
    if seen.result in PASSES:
        passes = streak.passes + 1
        has_failed = streak.has_failed and passes < probe.rise
        return Streak(seen.result, seen.detail, passes, 0, has_failed)
    fails = streak.fails + 1
    return Streak(seen.result, seen.detail, 0, fails, streak.has_failed or fails >= probe.fall)


def _judge_alive(health: Health, seen: Observation) -> Observation:
    """Take a 403 of an apiserver that was ready before as a start that is not done.

    A starting one says 403 for about a second, until its RBAC is there.
    """
    if seen.result is Result.ALIVE and health.was_ready and seen.detail == "HTTP 403":
        return replace(seen, result=Result.NOT_READY)
    return seen


def _hint_after(health: Health, now: float) -> float | None:
    """Keep a hint for a while: two quick passes do not yet refute it."""
    if health.hinted_at is None or now - health.hinted_at >= _HINT_LASTS:
        return None
    return health.hinted_at


def _smooth(before: float | None, new: float | None) -> float | None:
    if new is None or before is None:
        return before if new is None else new
    return before + _RTT_WEIGHT * (new - before)
