"""Sessions that died alone: a firewall has forgotten the flow, while its backend answers others.

Nothing is proven by a session that is idle, however long, nor by one that waits for an answer
which the backend's kernel has acknowledged the question of. What counts is data that nobody
acknowledges for ``ALONE_FOR`` seconds, in all of which every new connection to the same backend
was answered, and at least one try of this session fell. An outage of the network begins these
seconds anew when it ends, and so does a session that goes on after tries in vain: there the
network loses packets, and TCP will manage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Iterable, Mapping

from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.sessions.table import Session

ALONE_FOR = 10.0
"""Seconds. Linux tries again after about 0.2, 0.6, 1.4, 3.0 and 6.2 s of them."""

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
        self._mended: dict[SocketAddress, float] = {}
        """When a session to the backend last went on after tries in vain."""

    def note(self, sessions: Iterable[Session], now: float) -> None:
        """Take a look at all sessions, made at ``now``."""
        before, self._silences = self._silences, {}
        for session in sessions:
            known = before.get(session.identity)
            if known and known.packets != session.packets:
                if known.retransmits >= _TRIES_THAT_SHOW_LOSS:
                    self._mended[session.backend] = now
                known = None
            if session.unacknowledged and not session.is_connecting:
                since = known.since if known else now
                self._silences[session.identity] = Silence(
                    since, session.packets, session.retransmits
                )
        self._mended = {b: at for b, at in self._mended.items() if now - at < ALONE_FOR}

    def is_silent(self) -> bool:
        """Tell whether any session waits for an acknowledgement."""
        return bool(self._silences)

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
        begin = max(
            silence.since,
            answering_since.get(session.backend, math.inf),
            self._mended.get(session.backend, -math.inf),
        )
        has_tried = begin < now - session.sent_ago < now - _TIME_TO_ANSWER
        return now - begin >= ALONE_FOR and session.retransmits > 0 and has_tried
