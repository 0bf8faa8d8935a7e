"""What can happen: the events that wake the loop. They say *look again*, not what to do."""

from __future__ import annotations

import math
import queue
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import FrozenSet, Union

from kube_nginx_agent.model import IPAddress, SocketAddress
from kube_nginx_agent.observation import Observation


class Touch(Enum):
    """How far somebody is with changing a file."""

    WRITING = "it is open, and more may come"
    DONE = "it was renamed, removed, or closed by its writer"
    UNKNOWN = "its rights have changed, or an event was lost"


@dataclass(frozen=True)
class FileTouched:
    """A watched file, or something on the way to it, may have changed."""

    file: Path
    touch: Touch


@dataclass(frozen=True)
class NameAnswered:
    """DNS has answered for a name, or (``error``) has not."""

    name: str
    addresses: FrozenSet[IPAddress]
    error: str


class Timing(Enum):
    """When a look was told of, by how long it had been under way."""

    IN_TIME = "it has ended, within its time or with its time"
    EARLY = "it takes longer than usual, but its time is not over"
    OVERDUE = "it was given up as failed, and then came an answer"


@dataclass(frozen=True)
class Probed:
    """A probe has looked at a backend; one look may be told of up to three times."""

    backend: SocketAddress
    seen: Observation
    began: float
    """When it began to look, in seconds of the steady clock."""
    timing: Timing = Timing.IN_TIME
    at: float = math.inf
    """When it was told of; infinite: just now."""
    can_wait: bool = False
    """Whether it only says again what is known: no reason to wake, but taken with the next."""


@dataclass(frozen=True)
class NginxComplained:
    """nginx has met an error at a backend."""

    backend: SocketAddress
    timed_out: bool = False
    """Whether it has waited for as long as it is told to."""


@dataclass(frozen=True)
class SessionsWait:
    """Sessions to these backends have waited for an answer for longer than usual."""

    backends: FrozenSet[SocketAddress]


@dataclass(frozen=True)
class NginxIsFull:
    """nginx says that something is used up, and turns new clients away."""


@dataclass(frozen=True)
class NginxEnded:
    """The nginx master has ended, whoever ended it."""


@dataclass(frozen=True)
class AddressesChanged:
    """The node has got or lost an address."""


@dataclass(frozen=True)
class ReloadRequested:
    """Somebody asked to read backends.yaml now (SIGHUP)."""


@dataclass(frozen=True)
class StopRequested:
    """The agent is to end (SIGTERM, SIGINT)."""

    signal_name: str


Event = Union[
    FileTouched,
    NameAnswered,
    Probed,
    NginxComplained,
    SessionsWait,
    NginxEnded,
    NginxIsFull,
    AddressesChanged,
    ReloadRequested,
    StopRequested,
]


class Inbox:
    """The one queue into the loop. ``post`` may be called from any thread or signal handler."""

    def __init__(self) -> None:
        """Start empty."""
        self._events: deque[Event] = deque()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()

    def post(self, event: Event) -> None:
        """Leave an event; never blocks. One that can wait wakes nobody."""
        self._events.append(event)
        if not (isinstance(event, Probed) and event.can_wait):
            self._wakes.put(None)

    def wait(self, timeout: float) -> list[Event]:
        """Return all events in their order, after up to ``timeout`` seconds without one to wake."""
        with suppress(queue.Empty):
            self._wakes.get(timeout=max(timeout, 0))
            while True:
                self._wakes.get_nowait()
        # Only now: whatever comes from here on has left a reason to wake behind it.
        events = []
        while self._events:
            events.append(self._events.popleft())
        return events
