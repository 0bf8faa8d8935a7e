"""The loop's view of the backends: takes what was observed, says what changed, has sessions cut."""

from __future__ import annotations

import time
from typing import Iterable

from kube_nginx_agent.desired import ALL_WELL, connect_timeout_for
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.health import fleet
from kube_nginx_agent.health.machine import Health, State, hint, is_out, observe, reconsider
from kube_nginx_agent.health.observation import Layer, Observation, Result
from kube_nginx_agent.health.prober import Doubt, Prober
from kube_nginx_agent.health.readyz import ReadyzProbe
from kube_nginx_agent.health.trust import Trust
from kube_nginx_agent.inbox import NginxComplained, Probed, SessionsWait
from kube_nginx_agent.model import HealthCheck, SocketAddress
from kube_nginx_agent.nginx.cutting import CutError, Cutter
from kube_nginx_agent.nginx.session_watch import SessionWatch
from kube_nginx_agent.nginx.sessions import Session
from kube_nginx_agent.report import events
from kube_nginx_agent.report.journal import Sink
from kube_nginx_agent.report.problems import Problems

_FIRST_LOOK = 0.5
"""Seconds that a list with a new backend waits for the first look at it."""
_HEARD_LATELY = 0.4
"""Seconds; less than any backend is in doubt before it is taken as down."""
_CUT_AGAIN = 1.0
"""Seconds between two looks for sessions that still hang."""


class Monitor:
    """Holds the health of every backend of the list."""

    def __init__(  # noqa: PLR0913 - what it ties together
        self,
        prober: Prober,
        sessions: SessionWatch,
        cutter: Cutter,
        removal_grace: float,
        sink: Sink,
        problems: Problems,
    ) -> None:
        """Take the tools; ``removal_grace`` is how long (s) a removed backend keeps sessions."""
        self.healths: dict[SocketAddress, Health] = {}
        self.cut: dict[SocketAddress, int] = {}
        """How many sessions to each backend were ended."""
        self.connect_timeout = ALL_WELL.connect_timeout
        """How long nginx should wait for one of them, by their round-trip times."""
        self._check = HealthCheck()
        self._trust: Trust | None = None
        self._prober = prober
        self._sessions = sessions
        self._cutter = cutter
        self._removal_grace = removal_grace
        self._removed: dict[SocketAddress, float] = {}
        self._silent_since: dict[SocketAddress, float] = {}
        self._new_until = 0.0
        self._cut_again: float | None = None
        self._sink = sink
        self._problems = problems
        self._has_list = False
        self._told: object = None

    def want(self, backends: Iterable[SocketAddress], check: HealthCheck, now: float) -> None:
        """Watch over these backends from now on."""
        wanted = set(backends)
        if check != self._check or self._trust is None:
            self._check = check
            self._make_trust()
        added = wanted - self.healths.keys()
        for backend in added:
            # At the agent's own start all are in until a probe says otherwise.
            self.healths[backend] = Health(since=now, is_trusted=not self._has_list)
            self._removed.pop(backend, None)
        if added and self._has_list:
            self._new_until = now + _FIRST_LOOK
        for backend in self.healths.keys() - wanted:
            del self.healths[backend]
            self._removed[backend] = now + self._removal_grace
            self._problems.ends(_about(backend))
        self._has_list = self._has_list or bool(wanted)
        self._prober.want(wanted, check, self._make_readyz)
        self._sessions.want(frozenset(wanted | self._removed.keys()))

    @property
    def due(self) -> float | None:
        """When time alone changes something."""
        dues = [self._cut_again, *self._removed.values()]
        dues += [health.due for health in self.healths.values()]
        now = time.monotonic()
        return min((due for due in dues if due is not None and due > now), default=None)

    def has_news(self) -> bool:
        """Tell, once, whether nginx or the status file should follow a change."""
        now = (self.connect_timeout, tuple((b, h.state) for b, h in self.healths.items()))
        before, self._told = self._told, now
        return now != before

    def is_waiting_for_first_look(self, now: float) -> bool:
        """Tell whether a backend was added whose first look will be there in a moment."""
        is_new = (h.state is State.NEW and not h.is_trusted for h in self.healths.values())
        return now < self._new_until and any(is_new)

    def take(self, event: Probed | NginxComplained | SessionsWait, now: float) -> None:
        """Take what somebody has seen."""
        if isinstance(event, Probed):
            self._note(event, now)
        elif isinstance(event, NginxComplained):
            self._suspect(event.backend, now)
        else:
            for backend in event.backends:
                self._suspect(backend, now)

    def _note(self, probed: Probed, now: float) -> None:
        health = self.healths.get(probed.backend)
        if health:
            seen = self._excuse_slow(probed, now)
            self._change(probed.backend, observe(health, seen, self._check, now), now)

    def _suspect(self, backend: SocketAddress, now: float) -> None:
        health = self.healths.get(backend)
        if health:
            self._change(backend, hint(health, self._check, now), now)

    def tick(self, now: float) -> None:
        """Let time pass, hurry the probes of what is in doubt, and end what hangs."""
        for backend, health in list(self.healths.items()):
            self._change(backend, reconsider(health, self._check, now), now)
        rtt = fleet.slowest(self.healths)
        self.connect_timeout = connect_timeout_for(rtt, self.connect_timeout)
        doubts = {b: Doubt(h.is_in_doubt, h.rtt) for b, h in self.healths.items()}
        self._prober.set_doubts(doubts)
        self._say_outlook()
        self._end_sessions(now)

    def sessions(self) -> dict[SocketAddress, int]:
        """Return how many sessions each backend has now."""
        counts: dict[SocketAddress, int] = {}
        for session in self._sessions.look():
            counts[session.backend] = counts.get(session.backend, 0) + 1
        return counts

    def _excuse_slow(self, probed: Probed, now: float) -> Observation:
        """Take a process that has sent data to somebody meanwhile as slow, not as frozen."""
        if probed.seen.result is not Result.SILENT:
            if probed.seen.layer is Layer.READYZ:
                self._silent_since.pop(probed.backend, None)
            return probed.seen
        since = self._silent_since.setdefault(probed.backend, probed.began)
        if not _has_sent(self._sessions.look(), probed.backend, now - since):
            return probed.seen
        del self._silent_since[probed.backend]
        return Observation(probed.seen.layer, Result.ALIVE, "slow")

    def _change(self, backend: SocketAddress, after: Health, now: float) -> None:
        before = self.healths[backend]
        self.healths[backend] = after
        if is_out(after) and after.state is not before.state:
            kind = events.BACKEND_DOWN if after.state is State.DOWN else events.BACKEND_DRAINING
            self._problems.begins(
                _about(backend), kind, _reason(backend, after), _fields(backend, after)
            )
        elif is_out(before) and not is_out(after):
            lasted = f"{now - before.since:.1f} s"
            self._problems.ends(_about(backend))
            message = f"{backend}: it is up again after {lasted}"
            self._sink(events.BACKEND_UP, message, {"BACKEND": str(backend), "STATE": "up"})

    def _say_outlook(self) -> None:
        if fleet.outlook(self.healths) is not fleet.Outlook.NONE:
            self._problems.ends("fleet", "an apiserver is up again")
            return
        network = fleet.is_own_network(self.healths)
        what = "no apiserver passes its checks: all stay in, and nginx tries them all"
        hint_ = "look at this node's own network first" if network else "look at the apiservers"
        error = AgentError(what, hint=hint_)
        self._problems.begins("fleet", events.ALL_DOWN, error, {})

    def _end_sessions(self, now: float) -> None:
        stuck = fleet.stuck(self.healths)
        removed = {backend for backend, due in self._removed.items() if due <= now}
        if stuck or removed:
            sessions = self._sessions.look()
            for backend in stuck:
                found = [session for session in sessions if session.backend == backend]
                if not self._is_heard(backend, found, now):
                    self._cut(backend, found, "it does not answer")
            for backend in removed:
                found = [session for session in sessions if session.backend == backend]
                self._cut(backend, found, "it was removed from the list")
                del self._removed[backend]
        self._cut_again = now + _CUT_AGAIN if stuck else None

    def _is_heard(self, backend: SocketAddress, sessions: list[Session], now: float) -> bool:
        """Tell whether a session shows life that the probes have missed, as under packet loss."""
        if self.healths[backend].cause is Result.SILENT:
            since = self._silent_since.get(backend, now - _HEARD_LATELY)
            return _has_sent(sessions, backend, now - since)
        return any(not s.is_connecting and s.heard_ago < _HEARD_LATELY for s in sessions)

    def _cut(self, backend: SocketAddress, sessions: list[Session], why: str) -> None:
        try:
            count = self._cutter.cut(sessions)
        except CutError as error:
            self._problems.begins("cut", events.CUT_FAILED, error, {})
            return
        if not count:
            return
        self._problems.ends("cut")
        self.cut[backend] = self.cut.get(backend, 0) + count
        noun = "session" if count == 1 else "sessions"
        message = f"{backend}: {count} {noun} ended, because {why}"
        self._sink(events.SESSIONS_CUT, message, {"BACKEND": str(backend), "COUNT": str(count)})

    def _make_trust(self) -> None:
        self._trust = Trust(self._check.ca_file)
        if self._check.readyz.enabled and self._trust.file is None:
            message = (
                "no CA file of the cluster is known: /readyz is asked without checking "
                "certificates; health_check.readyz.ca_file names one"
            )
            self._sink(events.NO_CA, message, {})

    def _make_readyz(self, backend: SocketAddress) -> ReadyzProbe:
        trust = self._trust or Trust(None)
        return ReadyzProbe(backend, self._check.path, trust.context)


def _has_sent(sessions: list[Session], backend: SocketAddress, within: float) -> bool:
    """Tell whether data has come from the backend in the last ``within`` seconds."""
    return any(s.backend == backend and s.has_answered and s.data_ago < within for s in sessions)


def _about(backend: SocketAddress) -> str:
    return f"backend {backend}"


def _reason(backend: SocketAddress, health: Health) -> AgentError:
    cause = health.cause.value if health.cause else "unknown"
    detail = f" ({health.detail})" if health.detail else ""
    return AgentError(f"it is {health.state.value}: {cause}{detail}", where=str(backend))


def _fields(backend: SocketAddress, health: Health) -> dict[str, str]:
    cause = health.cause.value if health.cause else ""
    return {"BACKEND": str(backend), "STATE": health.state.value, "CAUSE": cause}
