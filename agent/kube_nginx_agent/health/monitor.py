"""The loop's view of the backends: takes what was observed, and says what may be concluded."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Iterable, Mapping, Protocol

from kube_nginx_agent.desired import (
    ALL_WELL,
    LONGEST_CONNECT_TIMEOUT,
    HealthView,
    connect_timeout_for,
)
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.health import evidence, fleet
from kube_nginx_agent.health.evidence import Case, Lives
from kube_nginx_agent.health.machine import (
    Health,
    State,
    forget,
    hint,
    is_out,
    observe,
    reconsider,
)
from kube_nginx_agent.health.pace import limits
from kube_nginx_agent.health.prober import Prober
from kube_nginx_agent.health.readyz import ReadyzProbe
from kube_nginx_agent.health.trust import Trust
from kube_nginx_agent.health.wishes import Wishes
from kube_nginx_agent.inbox import NginxComplained, Probed, SessionsWait, Timing
from kube_nginx_agent.model import HealthCheck, SocketAddress
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Sink
from kube_nginx_agent.notices.problems import Problem
from kube_nginx_agent.observation import PASSES, STUCK, Conviction, Layer
from kube_nginx_agent.sessions.session_watch import AS_WATCHED, JUST_NOW

SHARED_SPREAD = 10.0
"""Seconds over which the nodes of a cluster end sessions that a shared cause may have hung."""

_IS_NEWS_FOR = 30.0
"""Seconds for which a silence is worth a look at the sessions in each turn, after which those of
the watch are enough: a look walks the kernel's table."""
_LEARNS_FOR = 1.5
"""Seconds for which an answer is slow by the limits from before they grew: looks of the same moment
were late by those, and are to be compared with their like."""
_FIRST_LOOK = 0.3
"""Seconds that a list with a new backend waits for the first look at it."""


class Sessions(Protocol):
    """Where clients' sessions are seen: a SessionWatch."""

    def lives(self, now: float, *, within: float) -> Lives:
        """Return when each backend was last heard of on a session, as seen ``within`` s ago."""


class Monitor:
    """Holds the health of every backend of the list."""

    def __init__(self, prober: Prober, sessions: Sessions, sink: Sink, spread: float) -> None:
        """Take the tools; nothing is probed before ``want``.

        ``spread`` is this node's own part (s) of SHARED_SPREAD.
        """
        self.healths: dict[SocketAddress, Health] = {}
        self._check = HealthCheck()
        self._trust: Trust | None = None
        self._prober = prober
        self._sessions = sessions
        self._sink = sink
        self._spread = spread
        self._connect_timeout = ALL_WELL.connect_timeout
        self._limits = self._limits_before = limits(self._check, None, None)
        self._learnt_until = 0.0
        self._cases: dict[SocketAddress, Case] = {}
        self._is_pressing = False
        self._wishes = Wishes()
        self._new_until = 0.0
        self._has_list = False
        self._fleet_hint = ""

    def want(self, backends: Iterable[SocketAddress], check: HealthCheck, now: float) -> None:
        """Watch over these backends from now on, in this way."""
        wanted = set(backends)
        if check != self._check or self._trust is None:
            self._take_check(check, now)
        added = wanted - self.healths.keys()
        for backend in added:
            # At the agent's own start all are in until a probe says otherwise.
            self.healths[backend] = Health(since=now, is_trusted=not self._has_list)
        if added and self._has_list:
            self._new_until = now + _FIRST_LOOK
        for backend in self.healths.keys() - wanted:
            del self.healths[backend]
        self._has_list = self._has_list or bool(wanted)
        self._prober.want(wanted, check, self._make_readyz)

    def take(self, event: Probed | NginxComplained | SessionsWait, now: float) -> None:
        """Take what somebody has seen."""
        if isinstance(event, Probed):
            health = self.healths.get(event.backend)
            if health:
                connect, answer = self._limits_before if now < self._learnt_until else self._limits
                early = (connect if event.seen.layer is Layer.TCP else answer).early
                now = min(now, event.at)
                seen = self._judge_anew(event)
                after = observe(health, seen, self._check, now, early)
                self._change(event.backend, after, now)
        elif isinstance(event, NginxComplained):
            # It waited at least so long: an old worker has the time-out from before its reload.
            waited = ALL_WELL.connect_timeout.total_seconds()
            self._suspect(event.backend, now, now - waited if event.timed_out else now)
        else:
            for backend in event.backends:
                self._suspect(backend, now, None)

    def tick(self, now: float) -> None:
        """Let time pass, compare the backends with each other, and ask for what is not known."""
        lives = self._lives(now)
        for backend, health in list(self.healths.items()):
            passed = evidence.others_passed(backend, self.healths)
            life = lives.get(backend)
            after = reconsider(health, self._check, now, others_passed=passed, life=life)
            self._change(backend, after, now)
        self._cases = evidence.cases(self.healths, lives, self._check, self._spread)
        slowest = fleet.slowest_connect(self.healths)
        known, self._limits = (
            self._limits,
            limits(self._check, slowest, fleet.slowest_answer(self.healths)),
        )
        if self._limits[1].early > known[1].early and now >= self._learnt_until:
            self._limits_before, self._learnt_until = known, now + _LEARNS_FOR
        self._connect_timeout = connect_timeout_for(slowest, self._connect_timeout)
        # Only sessions that are there can be ended: without them nobody needs to be asked.
        pressing = {backend: case for backend, case in self._cases.items() if backend in lives}
        self._is_pressing = bool(pressing)
        at_stake = any(
            self.healths[b].failing_since is not None for b in lives.keys() & self.healths
        )
        wishes = self._wishes.of(
            self.healths, pressing, self._check, self._limits, now, is_at_stake=at_stake
        )
        self._prober.set_wishes(wishes)

    def due(self, now: float) -> float | None:
        """Return when time alone changes something."""
        dues = [health.due(now) for health in self.healths.values()]
        dues += [self._wishes.due(now), self._new_until]
        for backend, case in self._cases.items():
            dues += [case.ripe_at, case.ripe_at - evidence.lead(self._early(backend))]
        return min((due for due in dues if due is not None and due > now), default=None)

    def view(self) -> HealthView:
        """Return what all of this means to nginx."""
        none_passes = fleet.outlook(self.healths) is fleet.Outlook.NONE
        timeout = LONGEST_CONNECT_TIMEOUT if none_passes else self._connect_timeout
        return HealthView(evidence.out_of_use(self.healths), none_passes, timeout)

    def convictions(self, now: float) -> Mapping[SocketAddress, Conviction]:
        """Return whose sessions hang, beyond reasonable doubt."""
        return {
            backend: case.conviction
            for backend, case in self._cases.items()
            if evidence.is_proven(backend, case, self.healths, now, self._early(backend))
        }

    def problems(self) -> Iterable[Problem]:
        """Yield what is wrong at present."""
        for backend, health in self.healths.items():
            if is_out(health):
                kind = kinds.BACKEND_DOWN if health.state is State.DOWN else kinds.BACKEND_DRAINING
                about, fields = f"backend {backend}", _fields(backend, health)
                yield Problem(about, kind, _reason(backend, health), fields)
        if self._fleet_hint:
            what = "no apiserver passes its checks: all stay in, and nginx tries them all"
            yield Problem("fleet", kinds.ALL_DOWN, AgentError(what, hint=self._fleet_hint))
        if self._trust and self._check.readyz.enabled:
            yield from self._trust.problems()
        if self._prober.failure:
            yield Problem("probes", kinds.PROBES_MISSING, self._prober.failure)

    def is_waiting_for_first_look(self, now: float) -> bool:
        """Tell whether a backend was added whose first look will be there in a moment."""
        return now < self._new_until and any(
            health.state is State.NEW and not health.is_trusted and not health.failing_since
            for health in self.healths.values()
        )

    def _judge_anew(self, probed: Probed) -> Probed:
        """Take a late answer for one in time, if it is by what is known of the distance now.

        Looks that begin in the moment in which the way becomes long have the time-out from before.
        """
        took = probed.seen.rtt
        if probed.timing is not Timing.OVERDUE or probed.seen.layer is not Layer.READYZ or not took:
            return probed
        _, answer = limits(self._check, fleet.slowest_connect(self.healths), took)
        return replace(probed, timing=Timing.IN_TIME) if took <= answer.timeout else probed

    def _lives(self, now: float) -> Lives:
        """Return what the sessions tell, if anybody is silent."""
        silent = [
            health.failing_since or now
            for health in self.healths.values()
            if any(s.fails and s.last in STUCK for s in (health.tcp, health.readyz))
        ]
        if not silent:
            return {}
        is_news = now - max(silent) < _IS_NEWS_FOR or self._is_pressing
        return self._sessions.lives(now, within=JUST_NOW if is_news else AS_WATCHED)

    def _early(self, backend: SocketAddress) -> float:
        connect, answer = self._limits
        return answer.early if self._cases[backend].conviction.needs_data else connect.early

    def _suspect(self, backend: SocketAddress, now: float, silent_since: float | None) -> None:
        health = self.healths.get(backend)
        if health:
            self._change(backend, hint(health, self._check, now, silent_since), now)

    def _change(self, backend: SocketAddress, after: Health, now: float) -> None:
        before = self.healths[backend]
        self.healths[backend] = after
        if is_out(before) and not is_out(after):
            message = f"{backend}: it is up again after {now - before.since:.1f} s"
            self._sink(kinds.BACKEND_UP, message, {"BACKEND": str(backend), "STATE": "up"})
        if fleet.outlook(self.healths) is not fleet.Outlook.NONE:
            self._fleet_hint = ""
        elif fleet.is_own_network(self.healths):
            self._fleet_hint = "look at this node's own network first"
        elif not self._fleet_hint:
            # Kept until it is over: on the way back the causes change one by one.
            self._fleet_hint = "look at the apiservers"

    def _take_check(self, check: HealthCheck, now: float) -> None:
        """Forget what was seen by a probe that asks another question now, or none."""
        before, self._check = self._check, check
        if self._trust is None or before.ca_file != check.ca_file:
            self._make_trust()
        others = []
        if before.tcp.enabled != check.tcp.enabled:
            others.append(Layer.TCP)
        if _question(before) != _question(check):
            others.append(Layer.READYZ)
        for backend, health in list(self.healths.items()):
            after = functools.reduce(lambda known, layer: forget(known, layer, now), others, health)
            self._change(backend, reconsider(after, check, now), now)

    def _make_trust(self) -> None:
        self._trust = Trust(self._check.ca_file)
        if self._check.readyz.enabled and self._trust.is_blind:
            message = (
                "no CA file of the cluster is known: /readyz is asked without checking "
                "certificates; health_check.readyz.ca_file names one"
            )
            self._sink(kinds.NO_CA, message, {})

    def _make_readyz(self, backend: SocketAddress) -> ReadyzProbe:
        trust = self._trust or Trust(None)
        check = self._check
        return ReadyzProbe(backend, check.path, trust.context, check.server_name)


def _question(check: HealthCheck) -> tuple[object, ...]:
    """Return what the readyz probe asks, and whom it believes."""
    return (check.readyz.enabled, check.path, check.ca_file, check.server_name)


def _reason(backend: SocketAddress, health: Health) -> AgentError:
    if health.cause in PASSES:
        return AgentError(f"it is {health.state.value}, and on its way back", where=str(backend))
    cause = health.cause.value if health.cause else "unknown"
    detail = f" ({health.detail})" if health.detail else ""
    return AgentError(f"it is {health.state.value}: {cause}{detail}", where=str(backend))


def _fields(backend: SocketAddress, health: Health) -> dict[str, str]:
    cause = health.cause.value if health.cause else ""
    return {"BACKEND": str(backend), "STATE": health.state.value, "CAUSE": cause}
