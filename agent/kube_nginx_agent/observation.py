"""What was seen of a backend: every result has a class of its own, never just *failed*."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Result(Enum):
    """How one look at a backend ended; the value is the word that people read."""

    OK = "ok"
    """TCP: it accepts. readyz: 200."""
    ALIVE = "alive"
    """It speaks HTTP but does not tell its readiness: 401, 403 or 429."""
    REFUSED = "refused"
    """Nobody listens on the port; its kernel answers."""
    TIMEOUT = "timeout"
    """No answer to a connect: the host is silent."""
    UNREACHABLE = "unreachable"
    """There is no way to the host: routing or ARP says so."""
    SILENT = "frozen"
    """The connection is accepted, but the process behind it does not answer in time."""
    CLOSED = "closed"
    """The connection is reset or ended before an answer."""
    CERTIFICATE = "certificate"
    """The certificate is not one that clients would trust."""
    GARBAGE = "garbage"
    """What it answers is neither TLS nor HTTP."""
    NOT_READY = "not ready"
    """It says itself that it should get no work: any other status."""
    NO_ROOM = "no room"
    """The probe could not be made: this node lacks a port, a descriptor or memory."""


PASSES = frozenset({Result.OK, Result.ALIVE})

STUCK = frozenset({Result.TIMEOUT, Result.UNREACHABLE, Result.SILENT})
"""Sessions to such a backend get neither an answer nor an end, unless somebody ends them."""

DRAINS = frozenset({Result.NOT_READY, Result.CERTIFICATE})
"""It serves what it has; new connections are better off elsewhere."""


class Layer(Enum):
    """Which of the two probes looked."""

    TCP = "tcp"
    READYZ = "readyz"


@dataclass(frozen=True)
class Observation:
    """One look: by which probe, how it ended, its words, and the round-trip time in seconds.

    ``is_fresh`` is False when a kept connection answered: that proves nothing of new ones.
    """

    layer: Layer
    result: Result
    detail: str = ""
    rtt: float | None = None
    is_fresh: bool = True
