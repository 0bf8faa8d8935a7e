"""Which sessions are better ended, each by evidence of its own, and nothing else.

Those of a convicted backend, those that died alone, those whose own address has left the node,
and those of a removed backend (docs/decisions/0007). Whatever is found is looked for a second
time right before the cut, in a new look at the kernel's table.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Callable, FrozenSet, Iterable, Iterator, Mapping, Protocol, Sequence, TypeVar

from kube_nginx_agent.inbox import Probed
from kube_nginx_agent.model import IPAddress, SocketAddress
from kube_nginx_agent.net.own_address import is_own_address
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Sink
from kube_nginx_agent.notices.problems import Problem
from kube_nginx_agent.observation import PASSES, Conviction, Layer, Result
from kube_nginx_agent.sessions.cutting import CutError
from kube_nginx_agent.sessions.lives import Life, lives
from kube_nginx_agent.sessions.lonely import ALONE_FOR, Lonely
from kube_nginx_agent.sessions.session_watch import AS_WATCHED, JUST_NOW
from kube_nginx_agent.sessions.table import Session

_LOOK_AGAIN = 1.0
"""Seconds between two looks while there are sessions: no event tells of what ends them."""
_LOOK_SOON = 0.1
"""The same while a convicted backend has sessions."""
_ADDRESS_GONE_FOR = 0.5
"""Seconds: tools that configure interfaces take an address away and put it back at once."""

_SAME_MOMENT = 0.05
"""Seconds: a conviction may date from the very packet that is heard of here, and two looks at one
packet differ by the kernel's tick, 4 to 10 ms, and by what the reader was held up."""

_ALONE = (
    f"nobody has acknowledged its data for {ALONE_FOR:.0f} s, while new connections were answered"
)

_T = TypeVar("_T")


class Sessions(Protocol):
    """Where nginx's sessions are seen: a SessionWatch."""

    def want(self, backends: Iterable[SocketAddress], listen: Iterable[SocketAddress] = ()) -> None:
        """Look at the sessions to these backends, and to those wanted before."""

    def look(self) -> list[Session]:
        """Return the sessions as they are now."""

    def seen(self, now: float, *, within: float) -> tuple[float, list[Session]]:
        """Return when the sessions were looked at, and these."""


class Cuts(Protocol):
    """What ends sessions: a Cutter."""

    def cut(self, sessions: Sequence[Session]) -> int:
        """End them; return how many. Raise CutError."""


class Severer:
    """Ends sessions once nginx gives the backend no new ones."""

    def __init__(
        self,
        sessions: Sessions,
        cutter: Cuts,
        sink: Sink,
        *,
        removal_grace: float,
        is_own: Callable[[IPAddress], bool] = is_own_address,
    ) -> None:
        """Take the tools, and how long (s) a removed backend keeps its sessions.

        That differs from node to node; how long a conviction waits does too, and is in its case.
        """
        self.ended: dict[SocketAddress, int] = {}
        """How many sessions to each backend were ended."""
        self._sessions = sessions
        self._cutter = cutter
        self._sink = sink
        self._removal_grace = removal_grace
        self._is_own = is_own
        self._lonely = Lonely()
        self._list: FrozenSet[SocketAddress] | None = None
        self._takers: FrozenSet[SocketAddress] = frozenset()
        self._answering_since: dict[SocketAddress, float] = {}
        self._removed_at: dict[SocketAddress, float] = {}
        self._convicts_have_sessions = False
        self._gone_at: dict[IPAddress, float] = {}
        self._has_sessions = False
        self._failure: CutError | None = None
        self._retry_at = -math.inf

    def want(
        self,
        live_backends: Iterable[SocketAddress],
        now: float,
        listen: Iterable[SocketAddress] = (),
    ) -> None:
        """Take the list that is live, and where clients connect to; before, nothing is removed."""
        left = (self._list or frozenset()) - frozenset(live_backends)
        self._removed_at.update(dict.fromkeys(left, now))
        self._list = frozenset(live_backends)
        self._sessions.want(self._list, listen)
        for backend in self._answering_since.keys() - self._list:
            del self._answering_since[backend]

    def want_live(self, takers: Iterable[SocketAddress]) -> None:
        """Take which backends nginx gives new connections: theirs are not ended but one by one."""
        self._takers = frozenset(takers)

    def note(self, probed: Probed) -> None:
        """Take what a probe has seen: every TCP probe makes a connection of its own."""
        seen = probed.seen
        if seen.layer is not Layer.TCP or seen.result is Result.NO_ROOM:
            return
        if seen.result in PASSES:
            self._answering_since.setdefault(probed.backend, probed.began)
        else:
            self._answering_since.pop(probed.backend, None)
            self._lonely.note_trouble(probed.backend, probed.began)

    def due(self, now: float) -> float | None:
        """Return when there is something to end, or to look for."""
        dues = [at + self._removal_grace for at in self._removed_at.values()]
        dues += [at + _ADDRESS_GONE_FOR for at in self._gone_at.values()]
        if self._has_sessions:
            dues.append(now + (_LOOK_SOON if self._convicts_have_sessions else _LOOK_AGAIN))
        if alone := self._lonely.due(now):
            dues.append(alone)
        return min((due for due in dues if due > now), default=None)

    def problems(self) -> list[Problem]:
        """Return why sessions that should end can't be ended, if so."""
        return [Problem("cut", kinds.CUT_FAILED, self._failure)] if self._failure else []

    def counts(self) -> dict[SocketAddress, int]:
        """Return how many sessions each backend has now."""
        return dict(Counter(session.backend for session in self._sessions.look()))

    def sever(self, now: float, convictions: Mapping[SocketAddress, Conviction]) -> None:
        """End what is to be ended now."""
        at, sessions = self._sessions.seen(now, within=AS_WATCHED)
        is_pressing = any(session.backend in convictions for session in sessions)
        if is_pressing or self._lonely.is_due(now):
            at, sessions = self._sessions.seen(now, within=JUST_NOW)
        self._note(sessions, at, now, convictions)
        if now < self._retry_at:
            return
        self._failure = None
        if any(self._doomed(sessions, at, now, convictions)):
            at, sessions = self._sessions.seen(now, within=0.0)
            self._lonely.note(sessions, at)
            self._end(self._doomed(sessions, at, now, convictions), now)

    def _note(
        self,
        sessions: list[Session],
        at: float,
        now: float,
        convictions: Mapping[SocketAddress, Conviction],
    ) -> None:
        """Take since when there is a reason, for each that there is."""
        self._lonely.note(sessions, at)
        backends = {session.backend for session in sessions}
        removed = backends - self._list if self._list is not None else frozenset()
        gone = {ip for ip in {s.local.ip for s in sessions} if not self._is_own(ip)}
        self._removed_at = _since(self._removed_at, removed - self._takers, now)
        self._convicts_have_sessions = bool(convictions.keys() & backends)
        self._gone_at = _since(self._gone_at, gone, now)
        self._has_sessions = bool(sessions)

    def _doomed(
        self,
        sessions: list[Session],
        at: float,
        now: float,
        convictions: Mapping[SocketAddress, Conviction],
    ) -> Iterator[tuple[Session, str]]:
        """Yield each session of a look made at ``at`` that should end, and why."""
        alive = lives(sessions, at)
        convicted = {
            backend: conviction.why
            for backend, conviction in convictions.items()
            if backend not in self._takers and not _is_heard(alive.get(backend), conviction)
        }
        removed = {b for b, since in self._removed_at.items() if now - since >= self._removal_grace}
        gone = {ip for ip, since in self._gone_at.items() if now - since >= _ADDRESS_GONE_FOR}
        alone = self._lonely.alone(sessions, self._answering_since, at)
        died_alone = {session.identity for session in alone}
        for session in sessions:
            if session.local.ip in gone:
                yield session, f"the address {session.local.ip} has left this node"
            elif session.backend in convicted:
                yield session, convicted[session.backend]
            elif session.identity in died_alone:
                yield session, _ALONE
            elif session.backend in removed:
                yield session, "it was removed from the list"

    def _end(self, doomed: Iterable[tuple[Session, str]], now: float) -> None:
        groups: dict[tuple[SocketAddress, str], list[Session]] = defaultdict(list)
        for session, why in doomed:
            groups[session.backend, why].append(session)
        for (backend, why), sessions in groups.items():
            try:
                count = self._cutter.cut(sessions)
            except CutError as error:
                self._failure = error
                self._retry_at = now + _LOOK_AGAIN
                return
            if count:
                self._say(backend, why, count)

    def _say(self, backend: SocketAddress, why: str, count: int) -> None:
        self.ended[backend] = self.ended.get(backend, 0) + count
        noun = "session" if count == 1 else "sessions"
        message = f"{backend}: {count} {noun} ended, because {why}"
        fields = {"BACKEND": str(backend), "COUNT": str(count), "REASON": why}
        self._sink(kinds.SESSIONS_CUT, message, fields)


def _is_heard(life: Life | None, conviction: Conviction) -> bool:
    """Tell whether a session shows that the backend has lived after its silence began."""
    heard_at = life.at(needs_data=conviction.needs_data) if life else None
    return heard_at is not None and heard_at > conviction.since + _SAME_MOMENT


def _since(known: Mapping[_T, float], present: Iterable[_T], now: float) -> dict[_T, float]:
    """Return since when each is present: as it is known, or from now on."""
    return {key: known.get(key, now) for key in present}
