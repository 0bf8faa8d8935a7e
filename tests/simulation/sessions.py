"""Clients' sessions through nginx, and how the kernel's table shows them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Callable, Iterable, Mapping, Sequence

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.inbox import SessionsWait
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.problems import Problem
from kube_nginx_agent.sessions.cutting import CutError
from kube_nginx_agent.sessions.lives import Life, lives
from kube_nginx_agent.sessions.session_watch import WAITS_IN_VAIN
from kube_nginx_agent.sessions.table import Session
from simulation.backends import Backends, Span, beats, covering, last_passed, merge
from simulation.clock import Clock

NODE = ip_address("10.0.0.250")
_RESENT = (0.2, 0.6, 1.4, 3.0, 6.2, 12.6, 25.4, 51.0, 102.2)
"""Seconds after which unacknowledged data is sent again (tcp(7))."""


@dataclass(eq=False)
class Open:
    """One connection of nginx to a backend, and the client's to nginx."""

    number: int
    backend: SocketAddress
    began: float
    tick: float
    """Seconds between two lines that the backend sends by itself."""
    asks: float
    """Seconds between two questions of the client, each answered at once."""
    on_end: Callable[[], None]
    answered_at: float
    """When its first question has its answer."""
    flow_lost_at: float = math.inf
    is_over: bool = False

    def spans(self, known: Sequence[Span]) -> Sequence[Span]:
        if self.flow_lost_at == math.inf:
            return known
        return merge([*known, (self.flow_lost_at, math.inf)])

    def stuck_since(self, backends: Backends, now: float, *, needs_data: bool) -> float | None:
        if needs_data and now < self.answered_at:
            return self.began
        known = backends.mute(self.backend) if needs_data else backends.deaf(self.backend)
        return covering(self.spans(known), now)


class Sessions:
    """All that are open; has what the agent asks a SessionWatch and a Cutter for."""

    def __init__(self, clock: Clock, backends: Backends) -> None:
        self.open: list[Open] = []
        self.is_unseen = False
        self.cuts_fail = False
        self.on_cut: Callable[[Open], None] = lambda _: None
        self.cuts = 0
        self._clock = clock
        self._backends = backends
        self._count = 0
        self._wanted: frozenset[SocketAddress] = frozenset()
        self._last: tuple[float, list[Session]] = (-math.inf, [])

    def begin(
        self, backend: SocketAddress, tick: float, asks: float, on_end: Callable[[], None]
    ) -> Open:
        self._count += 1
        now = self._clock.now
        answered_at = self._backends.answers_at(backend, now)
        session = Open(self._count, backend, now, tick, asks, on_end, answered_at)
        self.open.append(session)
        return session

    def end(self, session: Open) -> None:
        """End a session; its client hears of it."""
        if not session.is_over:
            session.is_over = True
            self.open.remove(session)
            session.on_end()

    def end_all(self, backend: SocketAddress) -> None:
        for session in [session for session in self.open if session.backend == backend]:
            self.end(session)

    # What the agent takes for its session watch.

    def want(self, backends: Iterable[SocketAddress], listen: Iterable[SocketAddress] = ()) -> None:
        self._wanted |= frozenset(backends)

    def look(self) -> list[Session]:
        now = self._clock.now
        found = [] if self.is_unseen else [self._seen(session, now) for session in self.open]
        self._last = (now, [session for session in found if session.backend in self._wanted])
        return self._last[1]

    def seen(self, now: float, *, within: float) -> tuple[float, list[Session]]:
        if now - self._last[0] >= within:
            self.look()
        return self._last

    def lives(self, now: float, *, within: float) -> Mapping[SocketAddress, Life]:
        at, sessions = self.seen(now, within=within)
        return lives(sessions, at)

    def problems(self) -> list[Problem]:
        if not self.is_unseen:
            return []
        return [Problem("sessions", kinds.SESSIONS_UNSEEN, AgentError("the kernel refuses"))]

    def waiting(self) -> SessionsWait | None:
        """Return what the watch posts: whose sessions wait for longer than usual."""
        found = (
            session.backend
            for session in (() if self.is_unseen else self.look())
            if session.is_waiting and session.sent_ago > WAITS_IN_VAIN
        )
        backends = frozenset(found)
        return SessionsWait(backends) if backends else None

    # What it takes for its cutter.

    def cut(self, sessions: Sequence[Session]) -> int:
        if self.cuts_fail:
            raise CutError("stuck sessions can't be ended (a fault of the simulation)")
        numbers = {session.inode for session in sessions}
        doomed = [session for session in self.open if session.number in numbers]
        for session in doomed:
            self.cuts += 1
            self.on_cut(session)
            self.end(session)
        return len(doomed)

    def _seen(self, session: Open, now: float) -> Session:
        """Return what the kernel's table has of it."""
        began = session.began
        mute = session.spans(self._backends.mute(session.backend))
        deaf = session.spans(self._backends.deaf(session.backend))
        asked = [*_first(beats(began, session.asks, now), 3), began]
        has_answered = now >= session.answered_at
        data_at = began
        if has_answered:
            apart = ((session.tick, 10), (session.asks, 40))
            sent = [_first(beats(began, seconds, now), most) for seconds, most in apart]
            came = [last_passed(mute, moments, now) for moments in sent]
            data_at = max([session.answered_at, *(at for at in came if at is not None)])
        acked_at = last_passed(deaf, asked, now)
        sent_at, tries, unacknowledged = asked[0], 0, 0
        lost_since = covering(deaf, now)
        if lost_since is not None and asked[0] >= lost_since:
            first = next(moment for moment in reversed(asked) if moment >= lost_since)
            tried = [first + later for later in _RESENT if first + later <= now]
            sent_at, tries, unacknowledged = max([asked[0], *tried]), len(tried), 100
        heard_at = max(data_at, acked_at if acked_at is not None else began)
        return Session(
            backend=session.backend,
            local=SocketAddress(NODE, 40000 + session.number % 20000),
            inode=session.number,
            family=2,
            identity=session.number.to_bytes(16, "big"),
            is_connecting=False,
            unacknowledged=unacknowledged,
            retransmits=tries,
            packets=round(heard_at * 1000),
            sent_ago=now - sent_at,
            data_ago=now - data_at,
            heard_ago=now - heard_at,
            has_asked=acked_at is not None,
            has_answered=has_answered,
            counted=(round((acked_at or 0.0) * 1000), round(data_at * 1000)),
        )


def _first(moments: Iterable[float], count: int) -> list[float]:
    return [moment for moment, _ in zip(moments, range(count))]
