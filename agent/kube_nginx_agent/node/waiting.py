"""Wait for a condition, with a deadline: the one loop that polls, and the one way to cut it short.

Whoever tells the process to stop (``stop_waiting``) ends every wait at once, so that a stop never
takes as long as the slowest thing that is waited for.
"""

from __future__ import annotations

import threading
import time
from typing import Callable, TypeVar

from kube_nginx_agent.errors import AgentError

Found = TypeVar("Found")

_POLL = 0.005
"""Seconds between two looks; what is waited for here takes some 10 to 100 ms."""

_stopping = threading.Event()


class StoppedWaitingError(AgentError):
    """The process is to end, so what was begun is left as it is."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("the agent was told to stop")


def wait_until(
    condition: Callable[[], Found | None], timeout: float, poll: float = _POLL
) -> Found | None:
    """Return the first true value of ``condition``, or its last one after ``timeout`` seconds.

    Raise StoppedWaitingError when the process is to end.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value or time.monotonic() >= deadline:
            return value
        if _stopping.wait(poll):
            raise StoppedWaitingError


def stop_waiting() -> None:
    """End every wait, now and later: the process is to end. Safe in a signal handler."""
    _stopping.set()


def wait_again() -> None:
    """Allow waits again, for what is waited for on the way out."""
    _stopping.clear()
