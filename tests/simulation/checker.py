"""What must hold, whatever happens: judged by what is known of the world, not by the agent.

Each rule has a grace, which is what docs/decisions promise, with room. Where two troubles overlap,
nothing is asked that one of them alone would excuse.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any, Iterable

from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.nginx.process import Process
from simulation.backends import Backends, Span
from simulation.clients import Attempt
from simulation.conf import Conf
from simulation.nginx import SimNginx
from simulation.plan import Plan
from simulation.sessions import Open, Sessions

PAUSE = 2.0
"""Seconds for which a backend may be silent without losing a session (0014)."""
LEFT_WITHIN = 12.0
"""Seconds after which no new client is sent to a backend that does not serve."""
BACK_WITHIN = 75.0
"""Seconds after which a backend that is well is in again: a flapping one is held for 60."""
ENDED_WITHIN = 12.0
"""Seconds after which the sessions to a stuck backend are ended."""
ALIKE = 20.0
"""Seconds between the troubles of two backends that may have one cause, with room."""
SETTLED = 15.0
"""Seconds in which the agent has found out and done all that it can: a poll and a half."""
REMOVED_FOR = 10.0
_WITNESS_LASTS = 1.6
"""Seconds for which an answer of another one shows that the way is well (0014), with room."""
_SEEN_WITHIN = 0.3
"""Seconds after which an edit has been read."""
_RELOADS, _RELOADS_EACH = 8, 3
"""In ten seconds, and more of them for each trouble that begins or ends meanwhile."""

_OF_NGINX = (
    "nginx killed",
    "worker killed",
    "worker hung",
    "all workers hung",
    "nginx stopped",
    "worker stopped",
    "nginx told to quit",
    "nginx stopped by the administrator",
    "nginx does not start",
    "port held",
    "all stopped",
    "live config edited",
    "live config gone",
)
_OF_THE_AGENT = ("agent killed", "agent stopped", "all stopped")
_OF_RELOADS = (
    "nginx reads slowly",
    "nginx -t hangs",
    "disk full",
    "disk read-only",
    "nginx stopped",
    "worker stopped",
    "worker hung",
    "all workers hung",
    "live config edited",
    "live config gone",
    "last good gone",
)
_OF_SESSIONS = ("sessions unseen", "cuts fail")
_THAT_BLOCK = ("worker hung", "worker stopped", "nginx stopped", "nginx reads slowly")
"""What has the loop wait for the proof of a reload, and of the way back (0015)."""
_OF_THE_LIST = ("list edited", "list invalid", "list gone", "list closed", "inotify lost")


@dataclass(frozen=True)
class Violation:
    """Something that should not have been."""

    at: float
    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.at:8.2f}  {self.rule}: {self.what}"


@dataclass(frozen=True)
class ListFile:
    """What the administrator wants since when."""

    backends: frozenset[SocketAddress]
    drained: frozenset[SocketAddress]
    since: float


class Checker:
    """Collects the violations; times are seconds of the steady clock."""

    def __init__(
        self, plan: Plan, begins: float, backends: Backends, sessions: Sessions, nginx: SimNginx
    ) -> None:
        self.violations: list[Violation] = []
        self.wanted = ListFile(frozenset(backends.all), frozenset(), begins)
        self.removed_at: dict[SocketAddress, float] = {}
        self._plan = plan
        self._begins = begins
        self._backends = backends
        self._sessions = sessions
        self._nginx = nginx

    def add(self, at: float, rule: str, what: str) -> None:
        violation = Violation(at - self._begins, rule, what)
        if not any(known.rule == rule for known in self.violations):
            self.violations.append(violation)

    # What is known of the time.

    def _spans(self, kinds: Iterable[str]) -> Iterable[Span]:
        for trouble in self._plan.troubles:
            if trouble.kind in kinds:
                yield self._begins + trouble.at, self._begins + trouble.ends

    def is_calm(self, kinds: Iterable[str], since: float, until: float) -> bool:
        return not any(begin <= until and end >= since for begin, end in self._spans(kinds))

    def _changes(self, since: float, until: float) -> int:
        moments = (self._begins + at for t in self._plan.troubles for at in (t.at, t.ends))
        return sum(since <= moment <= until for moment in moments)

    def _nginx_is_well(self, now: float, grace: float) -> bool:
        return self.is_calm(_OF_NGINX, now - grace, now) and now - self._nginx.disturbed_at > grace

    def _can_apply(self, now: float, grace: float) -> bool:
        """Tell whether nothing has kept the agent from bringing nginx to what it wants.

        What has failed is tried again after up to 5 minutes, so it may take so long.
        """
        calm = self.is_calm(_OF_RELOADS, now - grace - 330.0, now)
        agent = self.is_calm(_OF_THE_AGENT, now - grace, now)
        return calm and agent and self._nginx_is_well(now, grace)

    def _another_is_well(self, backend: SocketAddress, since: float, until: float) -> bool:
        return any(
            self._backends.is_good(other, since, until)
            for other in self.wanted.backends - self.wanted.drained - {backend}
        )

    def _is_slower_than_patience(self, backend: SocketAddress, now: float) -> bool:
        """Tell whether its answers take so long that within the patience it looks frozen."""
        return any(
            f.covers(now) and f.kind == "slow" and f.by > PAUSE
            for f in self._backends.faults[backend]
        )

    def _has_read_list(self, now: float) -> bool:
        """Tell whether nothing has kept the agent from reading the last edit."""
        since = self.wanted.since
        blind = (*_OF_THE_AGENT, *_THAT_BLOCK, "list closed", "inotify lost", "nginx -t hangs")
        return now - since > _SEEN_WITHIN and self.is_calm(blind, since - SETTLED, now)

    def _is_shared(self, backend: SocketAddress, since: float) -> bool:
        """Tell whether another has, or had, a trouble that may have the same cause."""
        others = [other for other in self._backends.all if other != backend]
        return any(not self._backends.is_good(o, since - ALIKE, since + ALIKE) for o in others)

    # What happens.

    def on_cut(self, session: Open, now: float) -> None:
        backend = session.backend
        removed = self.removed_at.get(backend)
        if removed is not None and now - removed >= REMOVED_FOR:
            return
        if backend in self.wanted.backends and not self._has_read_list(now):
            return  # It has come back into the list, and nobody has read that yet.
        if now - session.flow_lost_at >= PAUSE:
            return
        stuck = session.stuck_since(self._backends, now - 0.15, needs_data=True)
        if now < session.answered_at and not self._backends.may_answer(backend, now - 0.15, now):
            return  # It never was anybody's session.
        if self._is_slower_than_patience(backend, now):
            return
        if stuck is None or now - stuck < PAUSE:
            how = "well" if stuck is None else f"silent for {now - stuck:.2f} s only"
            self.add(now, "a living session is ended", f"{backend} is {how}")
        elif all(
            self._backends.is_bad(other, now - _WITNESS_LASTS, now)
            for other in self._backends.all
            if other != backend
        ):
            self.add(now, "sessions are ended though no other is well", str(backend))

    def on_attempt(self, attempt: Attempt) -> None:
        now = attempt.ended
        if attempt.backend is None:
            owed = any(
                self._backends.is_good(b, attempt.began - SETTLED, now)
                for b in self.wanted.backends - self.wanted.drained
            )
            is_settled = now - self.wanted.since > SETTLED
            if owed and is_settled and self._nginx_is_well(now, 8.0) and self._can_apply(now, 8.0):
                self.add(now, "a client is turned away", attempt.why)
            return
        backend = attempt.backend
        since = attempt.began - LEFT_WITHIN
        if (
            self._backends.is_bad(backend, since, now)
            and self._another_is_well(backend, since - ALIKE, now)
            and not self._is_shared(backend, since)
            and self._can_apply(now, LEFT_WITHIN)
            and now - self.wanted.since > SETTLED
        ):
            self.add(now, "a client is sent to a bad backend", f"{backend}")

    def on_agent_signal(self, process: Process, signum: int, now: float) -> None:
        master = self._nginx.master
        if signum != signal.SIGKILL or master is None or process != master.process:
            return
        is_hung = not self._nginx.running()
        if not is_hung and not master.was_told_to_quit:
            self.add(now, "a working nginx is killed", f"master {process.pid}")

    # What is so at any moment.

    def look(self, now: float, status: dict[str, Any] | None) -> None:
        conf = self._nginx.conf
        if conf:
            self._look_at_conf(conf, now)
        self._look_at_sessions(now)
        if status and self.is_calm(_OF_THE_AGENT, now - SETTLED, now):
            self._look_at_status(status, now)
        recent = [at for at in self._nginx.reloads if now - at < 10.0]
        if len(recent) > _RELOADS + _RELOADS_EACH * self._changes(now - SETTLED, now):
            self.add(now, "reloads without end", f"{len(recent)} in 10 s")

    def _look_at_conf(self, conf: Conf, now: float) -> None:
        down = {peer.address for peer in conf.peers if peer.is_down}
        if conf.peers and len(down) == len(conf.peers):
            self.add(now, "all servers are down in the config", conf.generation)
        settled = now - self.wanted.since > BACK_WITHIN and self._can_apply(now, BACK_WITHIN)
        others = self.is_calm(("run folder full",), now - SETTLED, now)
        for backend in down - self.wanted.drained if settled and others else ():
            if self._backends.is_good(backend, now - BACK_WITHIN, now):
                self.add(now, "a healthy backend is left out", str(backend))
        is_list_settled = self.is_calm(_OF_THE_LIST, now - SETTLED, now)
        if is_list_settled and now - self.wanted.since > SETTLED and self._can_apply(now, SETTLED):
            served = frozenset(peer.address for peer in conf.peers)
            if served != self.wanted.backends:
                self.add(now, "the list is not live", f"{len(served)} servers")

    def _look_at_sessions(self, now: float) -> None:
        if not self._can_apply(now, ENDED_WITHIN) or not self.is_calm(
            _OF_SESSIONS, now - ENDED_WITHIN, now
        ):
            return
        for session in self._sessions.open:
            stuck = session.stuck_since(self._backends, now, needs_data=True)
            since = now - ENDED_WITHIN
            if stuck is None or max(stuck, session.began) > since or session.flow_lost_at < now:
                continue
            if (
                self._backends.is_bad(session.backend, since, now)
                and self._another_is_well(session.backend, since - ALIKE, now)
                and not self._is_shared(session.backend, since)
            ):
                self.add(now, "a stuck session is not ended", f"{session.backend}")

    def _look_at_status(self, status: dict[str, Any], now: float) -> None:
        if not self.is_calm(("run folder full",), now - SETTLED, now):
            return
        verdict = status["verdict"]
        backends = self.wanted.backends - self.wanted.drained
        none = all(self._backends.is_bad(b, now - SETTLED, now) for b in self._backends.all)
        is_free = self.is_calm(_THAT_BLOCK, now - 2 * SETTLED, now)
        if is_free and verdict == "ok" and (none or not self._is_nginx_there(now)):
            self.add(now, "status says ok while nobody is served", status["summary"])
        some = any(self._backends.is_good(b, now - SETTLED, now) for b in backends)
        if verdict == "down" and some and self._can_apply(now, SETTLED):
            self.add(now, "status says down while clients are served", status["summary"])

    def _is_nginx_there(self, now: float) -> bool:
        """Tell whether nginx was there at any time of late."""
        return bool(self._nginx.accepting()) or now - self._nginx.disturbed_at < SETTLED
