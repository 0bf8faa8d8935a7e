"""What can happen: the events that wake the loop. They say *look again*, not what to do."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import FrozenSet, Union

from kube_nginx_agent.model import IPAddress


@dataclass(frozen=True)
class FileTouched:
    """A watched file may have changed; ``being_written``: somebody has it open for that."""

    being_written: bool


@dataclass(frozen=True)
class NameAnswered:
    """DNS has answered for a name, or (``error``) has not."""

    name: str
    addresses: FrozenSet[IPAddress]
    error: str


@dataclass(frozen=True)
class NginxEnded:
    """The nginx master has ended, whoever ended it."""


@dataclass(frozen=True)
class ReloadRequested:
    """Somebody asked to read backends.yaml now (SIGHUP)."""


@dataclass(frozen=True)
class StopRequested:
    """The agent is to end (SIGTERM, SIGINT)."""

    signal_name: str


Event = Union[FileTouched, NameAnswered, NginxEnded, ReloadRequested, StopRequested]


class Inbox:
    """The one queue into the loop. ``post`` may be called from any thread or signal handler."""

    def __init__(self) -> None:
        """Start empty."""
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def post(self, event: Event) -> None:
        """Leave an event; never blocks."""
        self._queue.put(event)

    def wait(self, timeout: float) -> list[Event]:
        """Return all events that are there, waiting up to ``timeout`` seconds for a first one."""
        events = []
        try:
            events.append(self._queue.get(timeout=max(timeout, 0)))
            while True:
                events.append(self._queue.get_nowait())
        except queue.Empty:
            return events
