"""Sessions that died alone: a firewall has forgotten the flow, while its backend answers others.

Nothing is proven by a session that is idle, however long, nor by one that waits for an answer
which the backend's kernel has acknowledged the question of. What counts is data that nobody
acknowledges for ``ALONE_FOR`` seconds, in all of which new connections to the same backend were
answered, and at least one try of this session fell. And the way must have been calm: where a new
connection has failed in the last ``CALM_FOR`` seconds, or another session has gone on after tries
in vain, packets are lost or an outage is just over, and TCP will manage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Iterable, Mapping

from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.sessions.table import Session

ALONE_FOR = 10.0
"""Seconds. Linux tries again after about 0.2, 0.6, 1.4, 3.0 and 6.2 s of them."""

CALM_FOR = 30.0
"""Seconds. With 30 % of the packets lost each way and 10 s here, healthy sessions are ended in
33 simulated hours; with 30 s none (docs/decisions/0007)."""

_TIME_TO_ANSWER = 1.0
"""Seconds that the last try is given."""

_TRIES_THAT_SHOW_LOSS = 2


@dataclass(frozen=True)
class Silence:
    """Since when (steady clock) a session has had unacknowledged data and has heard nothing."""

    since: float
    packets: int
    retransmits: int


class Lonely:
    """Follows the sessions from look to look; time is an argument."""

    def __init__(self) -> None:
        """Know nothing yet: after a restart of the agent the seconds begin anew."""
        self._silences: dict[bytes, Silence] = {}
        self._trouble: dict[SocketAddress, float] = {}
        """When the way to the backend was last seen to lose packets."""

    def note(self, sessions: Iterable[Session], now: float) -> None:
        """Take a look at all sessions, made at ``now``."""
        before, self._silences = self._silences, {}
        for session in sessions:
            known = before.get(session.identity)
            if known and known.packets != session.packets:
                if known.retransmits >= _TRIES_THAT_SHOW_LOSS:
                    self.note_trouble(session.backend, now)
                known = None
            if session.unacknowledged and not session.is_connecting:
                since = known.since if known else now
                self._silences[session.identity] = Silence(
                    since, session.packets, session.retransmits
                )
        self._trouble = {b: at for b, at in self._trouble.items() if now - at < CALM_FOR}

    def note_trouble(self, backend: SocketAddress, now: float) -> None:
        """Take that a new connection to the backend was not answered."""
        self._trouble[backend] = now

    def due(self, now: float) -> float | None:
        """Return when the next session may have been silent for long enough."""
        dues = (silence.since + ALONE_FOR for silence in self._silences.values())
        return min((due for due in dues if due > now), default=None)

    def is_due(self, now: float) -> bool:
        """Tell whether some session has been silent for long enough, if it still is."""
        return any(now >= silence.since + ALONE_FOR for silence in self._silences.values())

    def alone(
        self,
        sessions: Iterable[Session],
        answering_since: Mapping[SocketAddress, float],
        now: float,
    ) -> list[Session]:
        """Return those of the noted ``sessions`` that died alone.

        ``answering_since``: since when every new connection to a backend was answered.
        """
        return [session for session in sessions if self._is_alone(session, answering_since, now)]

    def _is_alone(
        self, session: Session, answering_since: Mapping[SocketAddress, float], now: float
    ) -> bool:
        silence = self._silences.get(session.identity)
        if silence is None or silence.packets != session.packets or not session.unacknowledged:
            return False
        begin = max(silence.since, answering_since.get(session.backend, math.inf))
        trouble_at = self._trouble.get(session.backend, -math.inf)
        if now - begin < ALONE_FOR or now - trouble_at < CALM_FOR:
            return False
        tried_at = now - session.sent_ago
        is_tried = max(begin, trouble_at) < tried_at < now - _TIME_TO_ANSWER
        return session.retransmits > 0 and is_tried
