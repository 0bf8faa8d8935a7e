"""Looks at nginx's sessions now and then, and tells the loop when one waits in vain."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import Callable, FrozenSet

from kube_nginx_agent.inbox import SessionsWait
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.sessions.table import Session, diag_socket, list_sessions

INTERVAL = 0.25
"""Seconds between two looks while sessions come and go. The kernel walks its whole table for each,
0.2 ms with the 262,144 buckets of a machine with 24 GB."""
QUIET_INTERVAL = 1.0
"""The same while nothing has changed since the last look."""

WAITS_IN_VAIN = 0.3
"""Seconds without an answer after which a session is a reason to look; a TLS hello is answered in
milliseconds, a slow LIST is not, which costs one early probe."""


class SessionWatch:
    """A thread that dumps the sockets of user ``uid`` to the wanted backends."""

    def __init__(self, uid: int, post: Callable[[SessionsWait], None]) -> None:
        """Take whose sessions, and where the news go."""
        self._uid = uid
        self._post = post
        self._backends: FrozenSet[SocketAddress] = frozenset()
        self._told_at: dict[SocketAddress, float] = {}
        self._thread = threading.Thread(target=self._run, name="sessions", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def want(self, backends: FrozenSet[SocketAddress]) -> None:
        """Look at the sessions to these backends from now on."""
        self._backends = backends

    def look(self) -> list[Session]:
        """Return nginx's sessions as they are now; none where the kernel does not tell."""
        try:
            with diag_socket() as diag:
                sessions = list_sessions(diag, self._backends, self._uid)
        except OSError:
            return []  # No sock_diag module: nothing is counted, the probes remain.
        own = _own_sockets() if sessions else set()
        return [session for session in sessions if session.inode not in own]

    def _run(self) -> None:
        known: set[int] = set()
        interval = QUIET_INTERVAL
        while True:
            time.sleep(interval)
            sessions = self.look()
            waiting = [session for session in sessions if session.is_waiting]
            present = {session.inode for session in sessions}
            interval = INTERVAL if waiting or present != known else QUIET_INTERVAL
            known = present
            self._tell(waiting)

    def _tell(self, waiting: list[Session]) -> None:
        """Post the backends at which a wait has become long that was not told before."""
        now = time.monotonic()
        backends = {
            session.backend
            for session in waiting
            if session.sent_ago > WAITS_IN_VAIN
            and now - session.sent_ago > self._told_at.get(session.backend, 0.0)
        }
        if backends:
            self._told_at.update(dict.fromkeys(backends, now))
            self._post(SessionsWait(frozenset(backends)))


def _own_sockets() -> set[int]:
    """Return the inodes of this process's sockets: the probes run as the same user as nginx."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            link = os.readlink(f"/proc/self/fd/{name}")
            if link.startswith("socket:["):
                found.add(int(link[8:-1]))
    return found
