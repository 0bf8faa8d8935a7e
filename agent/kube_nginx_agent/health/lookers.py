"""Threads that make the looks. A few may stay: to start one costs as much as a look, 0.3 ms of CPU.

None may stay that speaks TLS. Python 3.13.5 leaves the error of a reset connection in OpenSSL's
queue, which is the thread's, and the next read in that thread then fails on a connection that is
well: seen as ConnectionResetError on sockets that the kernel has as established.
"""

from __future__ import annotations

import queue
import threading
from typing import Callable

from kube_nginx_agent.node.starting import start_thread


class Lookers:
    """Makes each look at once, in a thread that makes no other meanwhile."""

    def __init__(self, most_idle: int) -> None:
        """Let so many threads stay that have no look to make; there is none before the first."""
        self._most_idle = most_idle
        self._lock = threading.Lock()
        self._idle = 0
        self._looks: queue.SimpleQueue[tuple[str, Callable[[], object]]] = queue.SimpleQueue()

    def run(self, name: str, look: Callable[[], object]) -> None:
        """Make a look, which must not raise. Raise NoThreadError."""
        with self._lock:
            is_one_idle = self._idle > 0
            self._idle -= is_one_idle
        if is_one_idle:
            self._looks.put((name, look))
        else:
            start_thread(name, self._work, look)

    def _work(self, look: Callable[[], object]) -> None:
        while True:
            look()
            del look  # and with it what it holds, however long the next one is away
            with self._lock:
                if self._idle >= self._most_idle:
                    return
                self._idle += 1
                threading.current_thread().name = "looker"
            name, look = self._looks.get()
            threading.current_thread().name = name
