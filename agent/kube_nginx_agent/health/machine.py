"""The state of one backend as a pure function of the state before, an observation, and the time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Tuple

from kube_nginx_agent.health.streak import Streak, convict, extend, forget_failures
from kube_nginx_agent.inbox import Probed, Timing
from kube_nginx_agent.model import HealthCheck
from kube_nginx_agent.observation import DRAINS, PASSES, STUCK, Layer, Observation, Result
from kube_nginx_agent.sessions.lives import Life

GLIMPSE = 1.0
"""Seconds: what is heard that soon after the first failure may have been under way before. What is
heard later shows that the backend lives, whatever its probes say."""

_FLAP_WINDOW = 600.0
"""Seconds after which an outage is no longer held against a backend."""
_FIRST_HOLD = 2.0
_LONGEST_HOLD = 60.0
_HINT_LASTS = 2.0
"""Seconds for which a backend stays suspect after a hint that no probe has confirmed."""
_HINT_RESTS = 8.0
"""Seconds for which waiting sessions are no hint, after one that nothing confirmed: a slow LIST is
slow again and again, and asking a slow apiserver more often makes it no faster."""
_STARTS_FOR = 30.0
"""Seconds for which a 403 after a 200 means that an apiserver starts; it takes about one
(research of a v1.36), and after that it means that anonymous access was taken away."""
_SLOWLY = 0.03
"""How much of a longer time is forgotten with each look: at 2 s a look half of it in 46 s."""


class State(Enum):
    """What a backend is to nginx; the value is the word that people read."""

    NEW = "new"
    UP = "up"
    SUSPECT = "suspect"
    DRAINING = "draining"
    DOWN = "down"


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
    forbidden_since: float | None = None
    hinted_at: float | None = None
    silent_since: float = math.inf
    """When the connect began that nginx has given up, and that was the last hint."""
    rests_until: float = 0.0
    outages: Tuple[float, ...] = ()
    held_until: float = 0.0
    rtt: float | None = None
    """Of the TCP connect, in seconds: the longest of late, slowly forgotten."""
    answer_time: float | None = None
    """The same of a whole question to /readyz."""
    passed_began: float = -math.inf
    """When the newest look began that passed on a connection of its own, by the probe that sees
    the most."""
    quick_began: float = -math.inf
    """The same of those that were not late themselves: who is slow too shows nobody up."""
    answered_began: float = -math.inf
    """The same of any answer, also a refusal."""
    spoke_at: float = -math.inf
    """When its process last answered a probe, in time or not."""
    reached_at: float = -math.inf
    """When its kernel last answered a connect, in time or not."""
    fault_began: float = -math.inf
    """When the first look began of those that put it out."""
    trouble_began: float = -math.inf
    """When its last run of failures began that is over."""
    recovered_at: float = -math.inf
    """When that was over."""

    @property
    def takes_connections(self) -> bool:
        """Whether nginx should send it new ones, as far as it alone is concerned."""
        return self.state in (State.UP, State.SUSPECT) or (
            self.state is State.NEW and self.is_trusted
        )

    @property
    def failing_since(self) -> float | None:
        """When the first look of the present failures began."""
        begins = [s.first_began for s in (self.tcp, self.readyz) if s.first_began is not None]
        return min(begins, default=None)

    @property
    def trouble_since(self) -> float | None:
        """When the present trouble began, of which the present failures may be but the last."""
        since = self.failing_since
        return min(since, self.fault_began) if since is not None and is_out(self) else since

    @property
    def culprit(self) -> Streak | None:
        """What keeps it from being up, the more basic probe's first."""
        for streak in (self.tcp, self.readyz):
            if streak.has_failed and streak.fails:
                return streak
        return next((s for s in (self.tcp, self.readyz) if s.has_failed or s.fails), None)

    @property
    def cause(self) -> Result | None:
        """The result that keeps it from being up."""
        return self.culprit.last if self.culprit else None

    @property
    def detail(self) -> str:
        """The words of that result."""
        return self.culprit.detail if self.culprit else ""

    def is_in_doubt(self, check: HealthCheck, now: float) -> bool:
        """Tell whether it is worth a look more often than usual."""
        if self.state is State.SUSPECT or self.hinted_at is not None:
            return True
        if any(s.has_failed != (s.fails > 0) for s in (self.tcp, self.readyz)):
            return True
        since = self.failing_since
        return since is not None and now - since < patience(check) + 1.5

    def is_settled(self, check: HealthCheck, now: float) -> bool:
        """Tell whether one more look that ends as the last one did changes nothing."""
        if self.state not in (State.UP, State.DRAINING, State.DOWN):
            return False
        is_starting = is_out(self) and self.forbidden_since is not None
        return not is_starting and not self.is_in_doubt(check, now)

    def due(self, now: float) -> float | None:
        """Return when time alone may change the state."""
        dues = [self.held_until] if is_out(self) else []
        if self.hinted_at is not None:
            dues.append(self.hinted_at + _HINT_LASTS)
        return min((due for due in dues if due > now), default=None)


def patience(check: HealthCheck) -> float:
    """Return how long (s) a backend must have failed before its sessions may be ended."""
    told = [p.timeout.total_seconds() * p.fall for p in (check.tcp, check.readyz) if p.enabled]
    return max([check.cut_after.total_seconds(), *told])


def observe(
    health: Health, probed: Probed, check: HealthCheck, now: float, early: float = math.inf
) -> Health:
    """Return the health after one more look; what takes longer than ``early`` s is late."""
    if probed.seen.result is Result.NO_ROOM:
        return health  # It says something of this node, nothing of the backend.
    if probed.seen.layer is Layer.READYZ:
        health, probed = _judge_forbidden(health, probed, now)
    health = _note_life(health, probed, check, now, early)
    if probed.seen.layer is Layer.TCP:
        tcp, readyz = _begin_early(extend(health.tcp, probed, check.tcp), health), health.readyz
        if health.tcp.fails and not tcp.fails and readyz.fails and readyz.last in STUCK:
            # The host was silent: what was asked of its process meanwhile was never heard.
            readyz = forget_failures(readyz, probed.began)
        health = replace(health, tcp=tcp, readyz=readyz)
    else:
        health = replace(health, readyz=extend(health.readyz, probed, check.readyz))
        health = replace(health, was_ready=health.was_ready or probed.seen.result is Result.OK)
    return reconsider(health, check, now)


def hint(
    health: Health, check: HealthCheck, now: float, silent_since: float | None = None
) -> Health:
    """Return the health after somebody has waited in vain: a reason to look, not yet to believe.

    ``silent_since`` is when nginx began a connect that it has given up; None: a session waits.
    """
    if silent_since is None:
        if now < health.rests_until:
            return health
        return reconsider(replace(health, hinted_at=now), check, now)
    return reconsider(replace(health, hinted_at=now, silent_since=silent_since), check, now)


def reconsider(
    health: Health,
    check: HealthCheck,
    now: float,
    *,
    others_passed: float = -math.inf,
    life: Life | None = None,
) -> Health:
    """Return the health as time and others make it: a hold ends, a hint grows old.

    ``others_passed``: when the newest look began that another has passed. Late answers count if
    that was after the first of them. ``life`` is what was heard of it on clients' sessions.
    """
    health = _age_hint(health, now)
    tcp = convict(health.tcp, check.tcp, others_passed)
    readyz = convict(health.readyz, check.readyz, others_passed)
    if tcp is not health.tcp or readyz is not health.readyz:
        health = replace(health, tcp=tcp, readyz=readyz)
    wanted = _state_of(health, check, life)
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
    # Each probe's failures are judged by what others have answered since *their* first.
    culprit = health.culprit
    began = culprit.first_began if culprit and not was_out else health.failing_since
    if began is None:
        began = health.fault_began if was_out else now
    return replace(health, state=wanted, since=now, fault_began=began)


def forget(health: Health, layer: Layer, now: float) -> Health:
    """Return the health without what one probe has seen: it asks another question now."""
    if layer is Layer.TCP:
        return replace(health, tcp=Streak(valid_from=now))
    return replace(
        health, readyz=Streak(valid_from=now), was_ready=False, forbidden_since=None, held_until=0.0
    )


def is_out(health: Health) -> bool:
    """Tell whether it has been put out."""
    return health.state in (State.DRAINING, State.DOWN)


def heard_at(health: Health, life: Life | None, *, needs_data: bool) -> float:
    """Return when the backend was last heard of, on any connection.

    ``needs_data``: what only its process can have sent, for its kernel answers while it is frozen.
    """
    on_sessions = life.at(needs_data=needs_data) if life else None
    heard = [health.spoke_at, -math.inf if on_sessions is None else on_sessions]
    return max(heard) if needs_data else max(*heard, health.reached_at)


def _begin_early(tcp: Streak, before: Health) -> Streak:
    """Count a client's connect that nginx has given up as the first look that failed."""
    is_first = tcp.first_began is not None and before.tcp.first_began is None
    if not is_first or tcp.last not in STUCK or before.silent_since < tcp.valid_from:
        return tcp
    return replace(tcp, first_began=min(tcp.last_began, before.silent_since))


def _state_of(health: Health, check: HealthCheck, life: Life | None) -> State:
    probes = ((health.tcp, check.tcp, False), (health.readyz, check.readyz, True))
    for streak, probe, needs_data in probes:
        if not streak.has_failed:
            continue
        if streak.first_began is None or streak.fails < probe.fall:
            # On its way back, but not there yet, or just about to fail in another way.
            return health.state if is_out(health) else State.DRAINING
        if streak.last in DRAINS:
            return State.DRAINING
        is_heard = heard_at(health, life, needs_data=needs_data) > streak.first_began + GLIMPSE
        return State.DRAINING if streak.last in STUCK and is_heard else State.DOWN
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


def _note_life(
    health: Health, probed: Probed, check: HealthCheck, now: float, early: float
) -> Health:
    """Note what an answer says beside passing or failing."""
    seen, began = probed.seen, probed.began
    if seen.layer is Layer.TCP and seen.rtt is not None:
        health = replace(health, rtt=_longest(health.rtt, seen.rtt), reached_at=now)
    if seen.layer is Layer.READYZ and seen.rtt is not None:
        longest = _longest(health.answer_time, seen.rtt)
        health = replace(health, answer_time=longest, spoke_at=now)
    streak = health.tcp if seen.layer is Layer.TCP else health.readyz
    began_at = health.trouble_since
    if streak.is_troubled and began_at is not None and streak.is_refuted_by(probed):
        health = replace(health, trouble_began=began_at, recovered_at=now)
    sees_the_most = seen.layer is (Layer.READYZ if check.readyz.enabled else Layer.TCP)
    if not sees_the_most or not seen.is_fresh or probed.timing is not Timing.IN_TIME:
        return health
    if seen.result in PASSES:
        health = replace(health, passed_began=max(health.passed_began, began))
        if (seen.rtt or 0.0) <= early:
            health = replace(health, quick_began=max(health.quick_began, began))
    if seen.result not in STUCK:
        health = replace(health, answered_began=max(health.answered_began, began))
    return health


def _judge_forbidden(health: Health, probed: Probed, now: float) -> tuple[Health, Probed]:
    """Take a 403 of an apiserver that was ready before as a start that is not done, for a while.

    A starting one says 403 for about a second, until its RBAC is there.
    """
    seen = probed.seen
    if seen.result is not Result.ALIVE or seen.detail != "HTTP 403":
        return replace(health, forbidden_since=None), probed
    since = now if health.forbidden_since is None else health.forbidden_since
    health = replace(health, forbidden_since=since)
    if health.was_ready and now - since < _STARTS_FOR:
        red = Observation(seen.layer, Result.NOT_READY, seen.detail, seen.rtt, seen.is_fresh)
        return health, replace(probed, seen=red)
    return health, probed


def _age_hint(health: Health, now: float) -> Health:
    """Keep a hint for a while: two quick passes do not yet refute it."""
    if health.hinted_at is None or now - health.hinted_at < _HINT_LASTS:
        return health
    rests_until = health.rests_until if health.failing_since else now + _HINT_RESTS
    return replace(health, hinted_at=None, silent_since=math.inf, rests_until=rests_until)


def _longest(before: float | None, new: float) -> float:
    """Take a longer time at once, and forget it slowly."""
    if before is None or new >= before:
        return new
    return before + _SLOWLY * (new - before)
