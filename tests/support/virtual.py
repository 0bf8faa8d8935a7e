"""A node in virtual time: the real monitor and its real paces, over backends that are arithmetic.

A day of faults takes milliseconds, and five thousand nodes take a minute.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable, cast

from kube_nginx_agent.desired import HealthView
from kube_nginx_agent.health.monitor import SHARED_SPREAD, Monitor
from kube_nginx_agent.health.prober import Prober
from kube_nginx_agent.inbox import NginxComplained, Probed, SessionsWait
from kube_nginx_agent.loop.agent import POLL
from kube_nginx_agent.model import HealthCheck, SocketAddress
from kube_nginx_agent.observation import Layer, Result
from kube_nginx_agent.sessions.lives import Life
from support.virtual_prober import VirtualProber

_LONG_AGO = -1000.0
_RESENT = (0.0, 1.0, 3.0, 7.0, 15.0)
"""Seconds after its begin at which a connect is sent, and sent again (tcp(7), tcp_syn_retries)."""
_RTT = 0.001


@dataclass(frozen=True)
class Fault:
    """What a backend suffers from ``begins`` to ``ends``, in seconds.

    ``kind``: "silent" (no packet passes), "syns" (no new connection does), "handshakes" (a new
    connection is accepted and gets no answer), "frozen", "refused", "red", "slow" (all answers by
    ``by`` s), "far" (every packet by ``by`` s a round trip), "lossy" (``by`` of the packets) or
    "stalled" (what is sent meanwhile arrives at its end, nothing is lost).
    """

    kind: str
    begins: float
    ends: float = math.inf
    by: float = 0.0

    def covers(self, at: float) -> bool:
        return self.begins <= at < self.ends


@dataclass
class World:
    """The backends, and what they suffer."""

    faults: dict[SocketAddress, list[Fault]]
    tick: float = math.inf
    """Seconds between two lines of a watch; infinite: the sessions are idle."""
    has_sessions: bool = True
    dice: random.Random = field(default_factory=lambda: random.Random(1))

    def _first(self, backend: SocketAddress, kind: str, at: float) -> Fault | None:
        found = (f for f in self.faults[backend] if f.kind == kind and f.covers(at))
        return next(found, None)

    def look(
        self, backend: SocketAddress, layer: Layer, at: float, *, fresh: bool
    ) -> tuple[Result, float, float | None]:
        """Return how a look that begins at ``at`` ends, when, and its round-trip time."""
        far = self._first(backend, "far", at)
        rtt = _RTT + (far.by if far else 0.0)
        if self._first(backend, "refused", at):
            return Result.REFUSED, at + rtt, None
        blocks = ("silent", "syns") if fresh else ("silent",)
        arrives = next((at + s for s in _RESENT if self._passes(backend, blocks, at + s)), math.inf)
        ends = self._travels(backend, arrives, rtt)
        if layer is Layer.TCP:
            return Result.OK, ends, ends - arrives if ends < math.inf else None
        for _ in range(3 if fresh else 0):
            ends = self._travels(backend, ends, rtt)
        for kind in ("frozen", "handshakes") if fresh else ("frozen",):
            if held := self._first(backend, kind, arrives):
                ends = held.ends + rtt
        if slow := self._first(backend, "slow", arrives):
            ends += slow.by
        red = self._first(backend, "red", arrives)
        return (Result.NOT_READY if red else Result.OK), ends, ends - at

    def _travels(self, backend: SocketAddress, sent: float, rtt: float) -> float:
        """Return when the answer is back to what is sent now."""
        for _ in range(2):
            stall = self._first(backend, "stalled", sent)
            sent = (stall.ends if stall else sent) + rtt / 2
        return sent

    def _passes(self, backend: SocketAddress, blocks: tuple[str, ...], at: float) -> bool:
        if any(self._first(backend, kind, at) for kind in blocks):
            return False
        lossy = self._first(backend, "lossy", at)
        return lossy is None or self.dice.random() >= lossy.by

    def life(self, backend: SocketAddress, now: float) -> Life:
        """Return when the backend was last heard of on sessions that tick."""
        at = math.floor(now / self.tick) * self.tick if self.tick < math.inf else _LONG_AGO
        while at > 0 and any(self._first(backend, kind, at) for kind in ("silent", "frozen")):
            at -= self.tick
        return Life(at, at)


class VirtualNode:
    """One node: `run` lets time pass, and what it did is left in `cuts` and `views`."""

    def __init__(
        self,
        world: World,
        check: HealthCheck | None = None,
        name: str = "node",
        begins: float = 0.0,
    ) -> None:
        self.world = world
        self.check = check or HealthCheck()
        self.cuts: list[tuple[float, SocketAddress]] = []
        self.views: list[tuple[float, HealthView]] = []
        self.failure = None
        self.now = begins
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._prober = VirtualProber(self, world, name, self._post)
        self._waiting: list[Probed] = []
        self._is_woken = False
        share = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
        said: Any = lambda *_: None  # noqa: E731
        self.monitor = Monitor(cast(Prober, self._prober), self, said, share * SHARED_SPREAD)
        self.monitor.want(world.faults, self.check, self.now)

    @property
    def looks(self) -> list[tuple[float, SocketAddress, Layer, bool]]:
        """When each look began, at whom, by which probe, and whether on a connection of its own."""
        return self._prober.looks

    # What the monitor takes for its session watch.

    def lives(self, now: float, **_: float) -> Mapping[SocketAddress, Life]:
        if not self.world.has_sessions:
            return {}
        return {backend: self.world.life(backend, now) for backend in self.world.faults}

    # Time.

    def at(self, time: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._count), do))

    def complain(self, time: float, backend: SocketAddress, *, timed_out: bool = True) -> None:
        """Have nginx meet an error at a backend."""
        self.at(time, lambda: self._take(NginxComplained(backend, timed_out)))

    def wait_in_vain(self, time: float, backend: SocketAddress) -> None:
        """Have a session to a backend wait."""
        self.at(time, lambda: self._take(SessionsWait(frozenset({backend}))))

    def run(self, until: float) -> VirtualNode:
        """Let time pass; return itself."""
        while True:
            self._pass()
            due = self.monitor.due(self.now)
            wake = min(until, due if due is not None else until, self.now + POLL)
            while self._events and self._events[0][0] <= wake and not self._is_woken:
                self.now = max(self.now, self._events[0][0])
                heapq.heappop(self._events)[2]()
            if not self._is_woken:
                self.now = max(self.now, wake)
            if self.now >= until:
                return self

    def _pass(self) -> None:
        self._is_woken = False
        self._take_waiting()
        self.monitor.tick(self.now)
        view = self.monitor.view()
        if not self.views or self.views[-1][1] != view:
            self.views.append((self.now, view))
        for backend in self.monitor.convictions(self.now):
            if backend in view.out and backend not in {known for _, known in self.cuts}:
                self.cuts.append((self.now, backend))

    def out_since(self, begins: float = 0.0) -> set[SocketAddress]:
        """Return who was left out at any time from then on."""
        return set().union(*(view.out for at, view in self.views if at >= begins))

    def _post(self, probed: Probed) -> None:
        """Leave what was seen to the monitor, which has its reasons to wake."""
        self._waiting.append(probed)
        self._is_woken = self._is_woken or not probed.can_wait

    def _take(self, hint: NginxComplained | SessionsWait) -> None:
        self._take_waiting()
        self.monitor.take(hint, self.now)
        self._is_woken = True

    def _take_waiting(self) -> None:
        for probed in self._waiting:
            self.monitor.take(probed, self.now)
        self._waiting.clear()
