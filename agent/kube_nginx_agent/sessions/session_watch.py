"""Looks at nginx's sessions now and then, and tells the loop when one waits in vain."""

from __future__ import annotations

import math
import os
import threading
import time
from typing import AbstractSet, Callable, FrozenSet, Iterable, Mapping

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.inbox import SessionsWait
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.net.sock_diag import DiagSocket, diag_socket
from kube_nginx_agent.node.files import read_proc
from kube_nginx_agent.node.starting import NoThreadError, start_thread
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.problems import Problem
from kube_nginx_agent.sessions.lives import Life, lives
from kube_nginx_agent.sessions.ownership import Ownership
from kube_nginx_agent.sessions.progress import Progress
from kube_nginx_agent.sessions.table import Session, list_all, list_to, session_of

INTERVAL = 0.25
"""Seconds between two looks while sessions come and go. The kernel walks its whole table for each,
0.2 ms with the 262,144 buckets of a machine with 24 GB."""
QUIET_INTERVAL = 1.0
"""The same while nothing has changed since the last look."""
SURVEY_INTERVAL = 10.0
"""Seconds between two looks for sessions to addresses that nobody has named."""

_SHARE, _QUIET_SHARE = 0.02, 0.001
"""How much of a core looking may take: with many sessions it is done less often."""
LONGEST_INTERVAL = 2.0
"""Seconds between two looks at most."""
JUST_NOW = 0.1
"""Seconds for which a look is as good as a new one, where nothing is ended by it."""
AS_WATCHED = LONGEST_INTERVAL + 0.5
"""The same in quiet times: the watch's own looks are enough."""

WAITS_IN_VAIN = 0.3
"""Seconds without an answer after which a session is a reason to look; a TLS hello is answered in
milliseconds, a slow LIST is not, which costs one early probe."""

_DEFAULT_EPHEMERAL = (32768, 60999)  # net.ipv4.ip_local_port_range, ip(7)


class SessionWatch:
    """A thread that looks at the connections of our nginx to its backends."""

    def __init__(
        self, nginx_pids: Callable[[], AbstractSet[int]], post: Callable[[SessionsWait], None]
    ) -> None:
        """Take what tells the pids of all of nginx's processes, and where the news go.

        Both are called from a thread.
        """
        self._nginx_pids = nginx_pids
        self._post = post
        self._lock = threading.Lock()
        self._ownership = Ownership()
        self._others = Ownership()
        self._progress = Progress()
        self._wanted: FrozenSet[SocketAddress] = frozenset()
        self._strays: FrozenSet[SocketAddress] = frozenset()
        self._listen_ports: FrozenSet[int] = frozenset()
        self._surveyed_at = -SURVEY_INTERVAL
        self._last: tuple[float, list[Session]] = (-math.inf, [])
        self._blind: AgentError | None = None
        self._fault: AgentError | None = None
        self._told_at: dict[SocketAddress, float] = {}
        self._thread: threading.Thread | None = None
        self._no_thread: AgentError | None = None

    def start(self) -> None:
        """Begin to look; without a thread for it the next ``want`` tries again."""
        if self._thread is None:
            try:
                self._thread = start_thread("sessions", self._run)
                self._no_thread = None
            except NoThreadError as error:
                self._no_thread = error

    def want(self, backends: Iterable[SocketAddress], listen: Iterable[SocketAddress] = ()) -> None:
        """Look at the sessions to these backends from now on, and as before to those left behind.

        ``listen`` is where clients connect to.
        """
        if self._no_thread:
            self.start()
        wanted = frozenset(backends)
        with self._lock:
            self._strays = (self._strays | self._wanted) - wanted
            self._wanted = wanted
            self._listen_ports = frozenset(address.port for address in listen)

    def look(self) -> list[Session]:
        """Return nginx's sessions as they are now; none where that can't be told."""
        with self._lock:
            return self._look()

    def seen(self, now: float, *, within: float) -> tuple[float, list[Session]]:
        """Return when nginx's sessions were looked at, at most ``within`` s ago, and these."""
        with self._lock:
            if now - self._last[0] >= within:
                self._look()
            return self._last

    def lives(self, now: float, *, within: float) -> Mapping[SocketAddress, Life]:
        """Return when each backend was last heard of, in seconds of the steady clock."""
        at, sessions = self.seen(now, within=within)
        return lives(sessions, at)

    def problems(self) -> list[Problem]:
        """Return why sessions can't be told at present, if so."""
        error = self._fault or self._blind or self._no_thread
        return [Problem("sessions", kinds.SESSIONS_UNSEEN, error)] if error else []

    def _look(self) -> list[Session]:
        at, pids = time.monotonic(), self._nginx_pids()
        found: list[Session] = []
        try:
            with diag_socket() as diag:
                entries = list_to(diag, self._wanted | self._strays)
            ours = map(session_of, self._ownership.ours(entries, pids))
            found = self._progress.of(ours, at)
            self._blind = None
        except OSError as error:
            self._blind = _refusal(error)
        except AgentError as error:
            self._blind = error
        self._last = (at, found)
        return found

    def _run(self) -> None:
        known: set[bytes] = set()
        interval = QUIET_INTERVAL
        while True:
            time.sleep(interval)
            try:
                interval, known = self._turn(known)
                self._fault = None
            except Exception as error:
                self._fault = AgentError(
                    f"looking at nginx's sessions failed ({type(error).__name__}: {error})",
                    hint="this is a mistake in kube-nginx-agent: report it",
                )
                interval = QUIET_INTERVAL

    def _turn(self, known: set[bytes]) -> tuple[float, set[bytes]]:
        """Look once; return after how many seconds to look again, and what was there."""
        began = time.thread_time()
        if time.monotonic() - self._surveyed_at >= SURVEY_INTERVAL:
            self._survey()
        sessions = self.look()
        waiting = [session for session in sessions if session.is_waiting]
        present = {session.identity for session in sessions}
        self._tell(waiting)
        is_quiet = not waiting and present == known
        least, share = (QUIET_INTERVAL, _QUIET_SHARE) if is_quiet else (INTERVAL, _SHARE)
        cost = time.thread_time() - began
        return min(max(least, cost / share), LONGEST_INTERVAL), present

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

    def _survey(self) -> None:
        """Find sessions to backends of lists that an earlier agent knew; forget ended ones."""
        pids = self._nginx_pids()
        lowest, _ = ephemeral_ports()
        with self._lock:
            if not self._listen_ports or not pids:
                return  # Nothing tells the clients' sockets from those to the backends yet.
            self._surveyed_at = time.monotonic()
            try:
                with diag_socket() as diag:
                    entries = list_all(diag)
                held = self._others.ours(entries, pids)
            except (OSError, AgentError):
                return  # ``look`` says why.
            leads = {e.remote for e in held if is_upstream(e, self._listen_ports, lowest)}
            left = {e.remote for e in held if e.remote in self._strays}
            self._strays = frozenset(leads | left) - self._wanted


def is_upstream(entry: DiagSocket, listen_ports: AbstractSet[int], lowest_ephemeral: int) -> bool:
    """Tell a socket of nginx to a backend from one to a client, whatever the list says.

    The client's side has the port that clients connect to at our end. A listen address that has
    since been changed, with clients that stay, is not in ``listen_ports``; but a client's port is
    one that the kernel has chosen, from ``lowest_ephemeral`` on, and an apiserver's is not.
    """
    local, remote = entry.local, entry.remote
    return local.port not in listen_ports and remote.port < lowest_ephemeral <= local.port


def ephemeral_ports() -> tuple[int, int]:
    """Return the range of ports that the kernel gives to who connects."""
    try:
        low, high = read_proc("/proc/sys/net/ipv4/ip_local_port_range").split()
        return int(low), int(high)
    except ValueError:
        return _DEFAULT_EPHEMERAL


def _refusal(error: OSError) -> AgentError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return AgentError(
        f"nginx's sessions can't be told: the kernel refuses sock_diag ({reason})",
        hint="`modprobe -a inet_diag tcp_diag`, and let the agent use netlink sockets",
    )
