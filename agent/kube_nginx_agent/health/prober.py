"""Asks every backend again and again; each probe in a thread of its own, so that none waits.

The threads only observe and post. What an observation means, and whether a backend is in doubt and
wants to be asked faster, is decided in the loop.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from dataclasses import dataclass
from typing import Callable, Iterable, Mapping

from kube_nginx_agent.health.readyz import ReadyzProbe
from kube_nginx_agent.inbox import Probed
from kube_nginx_agent.model import HealthCheck, Probe, SocketAddress
from kube_nginx_agent.net.tcp import probe_tcp
from kube_nginx_agent.observation import Layer, Observation

FAST_INTERVAL = 0.2
"""Seconds between the looks at a backend that is in doubt."""

_JITTER = 0.2
"""An interval is up to this part shorter, so that the nodes of a cluster don't ask in step."""
_QUICK_TCP = 0.25
"""Seconds; the least time a connect is given. It takes one round trip, answered by the kernel."""
_QUICK_READYZ = 0.5
"""The same for an answer to /readyz from a backend in doubt."""
_RTT_FACTOR = 8.0


@dataclass(frozen=True)
class Doubt:
    """What the loop thinks of a backend, as far as it matters to its probes."""

    in_doubt: bool = False
    rtt: float | None = None


Look = Callable[[float], Observation]


class Prober:
    """Owns the probing threads."""

    def __init__(self, post: Callable[[Probed], None], node_id: str) -> None:
        """Take where observations go, and what makes this node's jitter differ from others'."""
        self._post = post
        self._node_id = node_id
        self._probes: dict[SocketAddress, list[_Repeated]] = {}
        self._check: HealthCheck | None = None
        self._looks: Callable[[SocketAddress], ReadyzProbe] | None = None

    def want(
        self,
        backends: Iterable[SocketAddress],
        check: HealthCheck,
        make_readyz: Callable[[SocketAddress], ReadyzProbe],
    ) -> None:
        """Probe these backends from now on, in this way, and no others."""
        wanted = set(backends)
        if check != self._check:
            self._stop(set(self._probes))
            self._check = check
        self._stop(self._probes.keys() - wanted)
        for backend in wanted - self._probes.keys():
            self._probes[backend] = self._start(backend, check, make_readyz)

    def set_doubts(self, doubts: Mapping[SocketAddress, Doubt]) -> None:
        """Hurry the probes of backends that have come into doubt, and slow down the others."""
        for backend, doubt in doubts.items():
            for probe in self._probes.get(backend, ()):
                probe.set_doubt(doubt)

    def _start(
        self,
        backend: SocketAddress,
        check: HealthCheck,
        make_readyz: Callable[[SocketAddress], ReadyzProbe],
    ) -> list[_Repeated]:
        started = []
        if check.tcp.enabled:
            started.append(self._repeat(backend, Layer.TCP, check.tcp, _tcp_look(backend), None))
        if check.readyz.enabled:
            probe = make_readyz(backend)
            started.append(
                self._repeat(backend, Layer.READYZ, check.readyz, probe.look, probe.close)
            )
        return started

    def _repeat(
        self,
        backend: SocketAddress,
        layer: Layer,
        probe: Probe,
        look: Look,
        close: Callable[[], None] | None,
    ) -> _Repeated:
        seed = hashlib.sha256(f"{self._node_id} {backend} {layer.value}".encode()).digest()
        dice = random.Random(seed)  # noqa: S311 - spreads load, guards nothing
        repeated = _Repeated(backend, layer, probe, look, close, self._post, dice)
        repeated.start()
        return repeated

    def _stop(self, backends: set[SocketAddress]) -> None:
        for backend in backends:
            for probe in self._probes.pop(backend):
                probe.end()


def _tcp_look(backend: SocketAddress) -> Look:
    return lambda timeout: probe_tcp(backend, timeout)


class _Repeated(threading.Thread):
    """One probe of one backend, repeated until it is told to end."""

    def __init__(  # noqa: PLR0913 - what ``Prober._repeat`` binds together
        self,
        backend: SocketAddress,
        layer: Layer,
        probe: Probe,
        look: Look,
        close: Callable[[], None] | None,
        post: Callable[[Probed], None],
        dice: random.Random,
    ) -> None:
        super().__init__(name=f"{layer.value}-{backend}", daemon=True)
        self._backend = backend
        self._layer = layer
        self._probe = probe
        self._look = look
        self._close = close
        self._post = post
        self._dice = dice
        self._doubt = Doubt()
        self._wake = threading.Event()
        self._ended = False

    def set_doubt(self, doubt: Doubt) -> None:
        """Take the loop's opinion; a doubt that begins is looked into at once."""
        begins = doubt.in_doubt and not self._doubt.in_doubt
        self._doubt = doubt
        if begins:
            self._wake.set()

    def end(self) -> None:
        """Make this the last look."""
        self._ended = True
        self._wake.set()

    def run(self) -> None:
        """Look, post, wait."""
        while not self._ended:
            began = time.monotonic()
            seen = self._look(self._timeout())
            if not self._ended:
                self._post(Probed(self._backend, seen, began))
            self._wake.wait(max(began + self._pause() - time.monotonic(), 0.0))
            self._wake.clear()
        if self._close:
            self._close()

    def _pause(self) -> float:
        """Return the seconds from the begin of one look to the next."""
        if self._doubt.in_doubt:
            return FAST_INTERVAL
        return self._probe.interval.total_seconds() * (1 - _JITTER * self._dice.random())

    def _timeout(self) -> float:
        """Return how long to wait: short where a late answer is only a reason to ask again."""
        longest = self._probe.timeout.total_seconds()
        scaled = _RTT_FACTOR * (self._doubt.rtt or 0.0)
        if self._layer is Layer.TCP:
            known = self._doubt.rtt is not None
            return min(max(scaled, _QUICK_TCP), longest) if known else longest
        return min(max(scaled, _QUICK_READYZ), longest) if self._doubt.in_doubt else longest
