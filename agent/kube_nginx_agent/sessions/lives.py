"""When each backend was last heard of on a client's session: life that forbids to end any of them.

A session that has been idle for an hour was heard an hour ago. That is no silence, and nothing
here calls it so: it only does not speak for its backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Mapping

from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.sessions.table import Session


@dataclass(frozen=True)
class Life:
    """When a backend was last heard, in seconds of the steady clock; None: never."""

    packet_at: float | None = None
    """Anything, also an acknowledgement, which the kernel of a frozen process gives too."""
    data_at: float | None = None
    """Data, which only the process itself can send."""

    def at(self, *, needs_data: bool) -> float | None:
        """Return when it was last heard, or only its data."""
        return self.data_at if needs_data else self.packet_at


def lives(sessions: Iterable[Session], now: float) -> Mapping[SocketAddress, Life]:
    """Return the life of each backend that has an established session, seen at ``now``."""
    found: dict[SocketAddress, Life] = {}
    for session in sessions:
        if session.is_connecting:
            continue
        known = found.get(session.backend, Life())
        data_at = now - session.data_ago if session.has_answered else None
        found[session.backend] = Life(
            packet_at=_later(known.packet_at, now - session.heard_ago),
            data_at=_later(known.data_at, data_at),
        )
    return found


def _later(one: float | None, other: float | None) -> float | None:
    times = [time for time in (one, other) if time is not None]
    return max(times, default=None)
