"""How soon to look again: gently in quiet times, fast in doubt, and fast only for so long. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from kube_nginx_agent.model import HealthCheck, Probe
from kube_nginx_agent.observation import Layer

JITTER = 0.2
"""An interval is up to this part shorter, so that the nodes of a cluster don't ask in step."""
FAST_INTERVAL = {Layer.TCP: 0.2, Layer.READYZ: 0.5}
"""Seconds between the looks at a backend in doubt; a handshake costs more than a connect."""
SLOWED_INTERVAL = 1.0
"""The same once the budget of fast looks is used up, and for who is asked because of another."""
SHARED_INTERVAL = {Layer.TCP: 1.0, Layer.READYZ: 2.0}
"""The same when several fail: the cause may be one that more looks make worse."""

_BURST = 16
"""Looks that doubt may hurry: 3 s of them, in which a backend is convicted or not."""
_REFILL = 0.2
"""More of them a second: at most one in 5 s then, whatever keeps the doubt alive."""

_QUICK_CONNECT = 0.25
"""Seconds; a connect is late after that at the earliest. It takes one round trip, answered by the
kernel; a node under load must not take its own delay for an outage."""
_QUICK_ANSWER = 0.5
"""The same for an answer to /readyz."""
CONNECT_FACTOR, ANSWER_FACTOR = 8.0, 4.0
"""What is late is so many times what the slowest backend has taken of late."""
_LONGEST = 5.0
"""Seconds that a connect may take at most, however far the backends are."""


class Haste(Enum):
    """Why there may be a look before its time."""

    NONE = "it is well, or settled"
    DOUBT = "it is in doubt itself"


@dataclass(frozen=True)
class Limits:
    """After how many seconds a look is late, and after how many it has failed."""

    early: float
    timeout: float


@dataclass(frozen=True)
class Wish:
    """What the loop wants to know of a backend."""

    connect: Limits
    answer: Limits
    haste: Haste = Haste.NONE
    is_failing: bool = False
    is_shared: bool = False
    """Whether others fail too: then nobody is cut, and there is no hurry."""
    is_settled: bool = False
    """Whether nothing follows for anybody when this one's looks end as they did before."""
    fresh: bool = False
    """Whether only a whole new connection tells anything."""
    asked_at: float = 0.0
    """A change of it asks for a look at once, on a whole new connection."""
    connected_at: float = 0.0
    """A change of it asks for a connect at once, and no more than that."""


def limits(
    check: HealthCheck, slowest_connect: float | None, slowest_answer: float | None
) -> tuple[Limits, Limits]:
    """Return those of a connect and of a question to /readyz: distance is not death.

    A whole question on a new connection takes about four round trips more than on a kept one.
    """
    connect, answer = slowest_connect or 0.0, slowest_answer or 0.0
    timeout = max(check.tcp.timeout.total_seconds(), min(2 * connect, _LONGEST))
    early = min(max(CONNECT_FACTOR * connect, _QUICK_CONNECT), timeout)
    patience = check.readyz.timeout.total_seconds() + 5 * min(connect, 1.0)
    soon = min(max(ANSWER_FACTOR * answer, _QUICK_ANSWER) + 5 * min(connect, 1.0), patience)
    return Limits(early, timeout), Limits(soon, patience)


class Pace:
    """The rhythm of one probe at one backend; times are seconds of the steady clock."""

    def __init__(self, layer: Layer, probe: Probe, dice: random.Random) -> None:
        """Take which probe it is, how often it looks in quiet times, what makes nodes differ."""
        self._fast, self._shared = FAST_INTERVAL[layer], SHARED_INTERVAL[layer]
        self._interval = probe.interval.total_seconds()
        self._dice = dice
        self._tokens = float(_BURST)
        self._filled_at = 0.0

    def pause(self, wish: Wish, now: float) -> float:
        """Return how long to wait before the next look begins."""
        self._tokens = min(self._tokens + _REFILL * (now - self._filled_at), _BURST)
        self._filled_at = now
        calm = self._interval * (1 - JITTER * self._dice.random())
        if wish.haste is Haste.DOUBT and wish.is_shared:
            return min(self._shared, calm)
        if wish.haste is Haste.DOUBT and self._tokens >= 1:
            self._tokens -= 1
            return min(self._fast, calm)
        is_slowed = wish.haste is Haste.DOUBT and wish.is_failing
        return min(SLOWED_INTERVAL, calm) if is_slowed else calm
