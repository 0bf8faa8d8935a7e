"""When each session last got ahead: new bytes came, or new ones were acknowledged.

The kernel's own ages are renewed by a packet that comes for the second time as well (tcp_ack() sets
rcv_tstamp for any acknowledgement that is not old). A host whose firewall drops what we send sends
the same bytes again and again: that is the proof that it does not hear us, and no life.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Iterable, Tuple

from kube_nginx_agent.sessions.table import Session


class Progress:
    """Compares the bytes of each session with those of the look before."""

    def __init__(self) -> None:
        """Know no session yet."""
        self._known: dict[bytes, Tuple[Tuple[int, int], float]] = {}

    def of(self, sessions: Iterable[Session], at: float) -> list[Session]:
        """Return the sessions of a look at the time ``at``, heard of when they last got ahead."""
        before, self._known = self._known, {}
        found = []
        for session in sessions:
            since = _since(session, before.get(session.identity), at)
            self._known[session.identity] = (session.counted, since)
            found.append(replace(session, heard_ago=at - since))
        return found


def _since(session: Session, before: Tuple[Tuple[int, int], float] | None, at: float) -> float:
    if before is None:
        return at - session.data_ago  # which only new data renews (tcp_event_data_recv())
    counted, since = before
    return since if counted == session.counted else at - session.heard_ago
