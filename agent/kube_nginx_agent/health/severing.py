"""Which sessions are better ended: those that hang, and those whose backend was removed."""

from __future__ import annotations

from typing import Iterable

from kube_nginx_agent.health import fleet
from kube_nginx_agent.health.monitor import Monitor
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Sink
from kube_nginx_agent.notices.problems import Problem
from kube_nginx_agent.observation import Result
from kube_nginx_agent.sessions.cutting import CutError, Cutter
from kube_nginx_agent.sessions.session_watch import SessionWatch
from kube_nginx_agent.sessions.table import Session, has_sent

_HEARD_LATELY = 1.2
"""Seconds without a packet from a host, on any session, after which it counts as silent. With 30 %
of the packets lost probes fail in a row, but something is heard at every second's tick."""
_LOOK_AGAIN = 1.0
"""Seconds between two looks for sessions that still hang."""
_LOOK_SOON = 0.1
"""The same while a session shows life that is about to be too long ago."""


class Severer:
    """Ends sessions once nginx gives the backend no new ones."""

    def __init__(
        self,
        monitor: Monitor,
        sessions: SessionWatch,
        cutter: Cutter,
        removal_grace: float,
        sink: Sink,
    ) -> None:
        """Take the tools; ``removal_grace`` is how long (s) a removed backend keeps sessions."""
        self.ended: dict[SocketAddress, int] = {}
        """How many sessions to each backend were ended."""
        self._monitor = monitor
        self._sessions = sessions
        self._cutter = cutter
        self._removal_grace = removal_grace
        self._backends: set[SocketAddress] = set()
        self._removed: dict[SocketAddress, float] = {}
        self._look_again: float | None = None
        self._sink = sink
        self._error: CutError | None = None

    def due(self, now: float) -> float | None:
        """Return when there is something to end, or to look for."""
        dues = [*self._removed.values(), *([self._look_again] if self._look_again else [])]
        return min((due for due in dues if due > now), default=None)

    def problems(self) -> Iterable[Problem]:
        """Yield why sessions can't be ended."""
        if self._error:
            yield Problem("cut", kinds.CUT_FAILED, self._error)

    def want(self, backends: Iterable[SocketAddress], now: float) -> None:
        """Take the list as it is now; who is no longer on it keeps its sessions for a while."""
        wanted = set(backends)
        for backend in self._backends - wanted:
            self._removed[backend] = now + self._removal_grace
        for backend in wanted:
            self._removed.pop(backend, None)
        self._backends = wanted
        self._sessions.want(frozenset(wanted | self._removed.keys()))

    def counts(self) -> dict[SocketAddress, int]:
        """Return how many sessions each backend has now."""
        counts: dict[SocketAddress, int] = {}
        for session in self._sessions.look():
            counts[session.backend] = counts.get(session.backend, 0) + 1
        return counts

    def sever(self, now: float) -> None:
        """End what is to be ended now."""
        heard = False
        stuck = fleet.stuck(self._monitor.healths)
        removed = {backend for backend, due in self._removed.items() if due <= now}
        if stuck or removed:
            sessions = self._sessions.look()
            for backend in stuck:
                found = [session for session in sessions if session.backend == backend]
                if self._is_heard(backend, found, now):
                    heard = True
                else:
                    self._end(backend, found, "it does not answer")
            for backend in removed:
                found = [session for session in sessions if session.backend == backend]
                self._end(backend, found, "it was removed from the list")
                del self._removed[backend]
        pause = _LOOK_SOON if heard else _LOOK_AGAIN
        self._look_again = now + pause if stuck else None

    def _is_heard(self, backend: SocketAddress, sessions: list[Session], now: float) -> bool:
        """Tell whether a session shows life that the probes have missed, as under packet loss."""
        if self._monitor.healths[backend].cause is Result.SILENT:
            since = self._monitor.silent_since.get(backend, now - _HEARD_LATELY)
            return has_sent(sessions, backend, now - since)
        return any(not s.is_connecting and s.heard_ago < _HEARD_LATELY for s in sessions)

    def _end(self, backend: SocketAddress, sessions: list[Session], why: str) -> None:
        try:
            count = self._cutter.cut(sessions)
        except CutError as error:
            self._error = error
            return
        self._error = None
        if not count:
            return
        self.ended[backend] = self.ended.get(backend, 0) + count
        noun = "session" if count == 1 else "sessions"
        message = f"{backend}: {count} {noun} ended, because {why}"
        self._sink(kinds.SESSIONS_CUT, message, {"BACKEND": str(backend), "COUNT": str(count)})
