"""kubelet and its siblings: they connect through nginx, hold sessions, and come back at once."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import partial
from typing import Callable, Optional

from kube_nginx_agent.inbox import NginxComplained
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.observation import Result
from simulation.backends import Backends
from simulation.clock import Clock
from simulation.conf import Conf
from simulation.nginx import Servant, SimNginx
from simulation.sessions import Open, Sessions

WATCHES = 8
"""Sessions that stay; each second one also asks now and then."""
_NEXT_UPSTREAM = 5.0
"""nginx's proxy_next_upstream_timeout."""
_PATIENCE = 10.0
"""Seconds that a client waits for an answer."""
_PING = 45.0
"""Seconds of silence on a session after which the client ends it (HTTP/2 ping)."""


@dataclass(frozen=True)
class Attempt:
    """How a new connection went; ``backend`` None: nginx turned the client away, and why."""

    began: float
    ended: float
    backend: Optional[SocketAddress]
    conf: Optional[Conf]
    why: str = ""


class Clients:
    """All clients of a node, and what nginx does for them."""

    def __init__(
        self,
        clock: Clock,
        backends: Backends,
        sessions: Sessions,
        nginx: SimNginx,
        dice: random.Random,
        asks: float,
        tick: float,
    ) -> None:
        self.on_attempt: Callable[[Attempt], None] = lambda _: None
        self.complain: Callable[[NginxComplained], None] = lambda _: None
        self.attempts = 0
        self._clock = clock
        self._backends = backends
        self._sessions = sessions
        self._nginx = nginx
        self._dice = dice
        self._asks = asks
        self._tick = tick
        self._failed_at: dict[tuple[str, SocketAddress], list[float]] = {}

    def start(self) -> None:
        for number in range(WATCHES):
            self._clock.after(self._dice.random(), partial(self._watch, number))
        self._clock.after(self._dice.random(), self._ask)

    # The two kinds of clients.

    def _watch(self, number: int) -> None:
        asks = 4.0 + number if number % 2 else math.inf

        def over() -> None:
            self._clock.after(0.02 + 0.05 * self._dice.random(), lambda: self._watch(number))

        def ready(worker: Servant, backend: SocketAddress) -> None:
            self._hold(worker, backend, self._tick, asks, over)

        def failed() -> None:
            self._clock.after(0.5 + 0.5 * self._dice.random(), lambda: self._watch(number))

        self._connect(ready, failed)

    def _ask(self) -> None:
        self._clock.after(self._asks * 2 * self._dice.random(), self._ask)

        def ready(worker: Servant, backend: SocketAddress) -> None:
            now = self._clock.now
            session = self._hold(worker, backend, math.inf, math.inf, lambda: None)
            over_at = min(session.answered_at, now + _PATIENCE)
            self._clock.at(over_at, lambda: self._sessions.end(session))

        self._connect(ready, lambda: None)

    def _hold(
        self,
        worker: Servant,
        backend: SocketAddress,
        tick: float,
        asks: float,
        over: Callable[[], None],
    ) -> Open:
        def ended() -> None:
            worker.sessions.pop(session, None)
            master = self._nginx.master_of(worker)
            if master:
                self._nginx.end_if_idle(master, worker)
            over()

        session = self._sessions.begin(backend, tick, asks, ended)
        worker.sessions[session] = None
        self._clock.after(_PING, lambda: self._ping(session))
        return session

    def _ping(self, session: Open) -> None:
        """Have the client end a session on which nothing has come for long."""
        if session.is_over:
            return
        stuck = session.stuck_since(self._backends, self._clock.now, needs_data=True)
        if stuck is not None and self._clock.now - max(stuck, session.began) >= _PING:
            self._sessions.end(session)
            return
        self._clock.after(15.0, lambda: self._ping(session))

    # nginx's side: which server, and the next one.

    def _connect(
        self, ready: Callable[[Servant, SocketAddress], None], failed: Callable[[], None]
    ) -> None:
        self.attempts += 1
        began = self._clock.now
        running, accepting = self._nginx.running(), self._nginx.accepting()
        if not running:
            why = "nobody accepts" if accepting else "nobody listens"
            self._tell(Attempt(began, began, None, None, why))
            failed()
            return
        worker = self._dice.choice(running)
        worker.connecting += 1

        def over() -> None:
            worker.connecting -= 1
            master = self._nginx.master_of(worker)
            if master:
                self._nginx.end_if_idle(master, worker)

        def connected(server: Servant, backend: SocketAddress) -> None:
            ready(server, backend)
            over()

        def given_up() -> None:
            over()
            failed()

        self._try(worker, began, set(), connected, given_up)

    def _try(
        self,
        worker: Servant,
        began: float,
        tried: set[SocketAddress],
        ready: Callable[[Servant, SocketAddress], None],
        failed: Callable[[], None],
    ) -> None:
        now, conf = self._clock.now, worker.conf
        if self._nginx.master_of(worker) is None:
            self._tell(Attempt(began, now, None, None, "nginx's worker has ended"))
            failed()
            return
        left = [
            peer.address
            for peer in conf.peers
            if not peer.is_down
            and peer.address not in tried
            and not self._is_failed(conf, peer.address, peer.max_fails)
        ]
        if not left or now - began >= _NEXT_UPSTREAM:
            self._tell(
                Attempt(began, now, None, conf, "no live upstreams" if left else "all tried")
            )
            failed()
            return
        backend = self._pick(left)
        result, ends = self._backends.connect(backend, now)

        def go_on(*, timed_out: bool) -> None:
            self._failed_at.setdefault((conf.generation, backend), []).append(self._clock.now)
            self.complain(NginxComplained(backend, timed_out))
            self._try(worker, began, tried | {backend}, ready, failed)

        def connected() -> None:
            if self._nginx.master_of(worker) is None:
                failed()
                return
            self._tell(Attempt(began, self._clock.now, backend, conf))
            ready(worker, backend)

        if result is Result.REFUSED:
            self._clock.at(ends, lambda: go_on(timed_out=False))
        elif ends <= now + conf.connect_timeout:
            self._clock.at(ends, connected)
        else:
            self._clock.at(now + conf.connect_timeout, lambda: go_on(timed_out=True))

    def _pick(self, left: list[SocketAddress]) -> SocketAddress:
        """Of two at random the less busy one, as ``random two least_conn`` does."""
        two = self._dice.sample(left, min(2, len(left)))
        return min(two, key=lambda b: sum(s.backend == b for s in self._sessions.open))

    def _is_failed(self, conf: Conf, backend: SocketAddress, max_fails: int) -> bool:
        failures = self._failed_at.get((conf.generation, backend))
        if not max_fails or not failures:
            return False
        now = self._clock.now
        failures[:] = [at for at in failures if now - at < 3.0]
        return len(failures) >= max_fails

    def _tell(self, attempt: Attempt) -> None:
        self.on_attempt(attempt)
