"""Asks every backend again and again, each by threads of its own, so that none waits for another.

The threads only observe and post. What an observation means, and whether a backend is in doubt and
wants to be asked faster, is decided in the loop. A look is not cut short when it is late: it is
told of as late, later as failed, and may still end with an answer, which says how far away the
backend is.
"""

from __future__ import annotations

import hashlib
import random
from typing import Callable, Iterable, Mapping

from kube_nginx_agent.health.lookers import Lookers
from kube_nginx_agent.health.pace import Pace, Wish, limits
from kube_nginx_agent.health.readyz import ReadyzProbe
from kube_nginx_agent.health.repeated import Asker, Look, Repeated
from kube_nginx_agent.inbox import Probed
from kube_nginx_agent.model import HealthCheck, Probe, SocketAddress
from kube_nginx_agent.net.tcp import probe_tcp
from kube_nginx_agent.node.starting import NoThreadError, start
from kube_nginx_agent.observation import Layer, Observation

MakeReadyz = Callable[[SocketAddress], ReadyzProbe]

EVERY_NTH_IS_FRESH = 5
"""Of the questions to /readyz; a kept connection proves the past, and clients make new ones."""


class Prober:
    """Owns the probing threads."""

    def __init__(self, post: Callable[[Probed], None], node_id: str) -> None:
        """Take where observations go, and what makes this node's jitter differ from others'."""
        self._post = post
        self._node_id = node_id
        self._lookers = {Layer.TCP: Lookers(most_idle=2), Layer.READYZ: Lookers(most_idle=0)}
        self._probes: dict[SocketAddress, list[Repeated]] = {}
        self.failure: NoThreadError | None = None
        """Why somebody who is wanted is not probed, if so."""
        self._check: HealthCheck | None = None

    def want(
        self, backends: Iterable[SocketAddress], check: HealthCheck, make_readyz: MakeReadyz
    ) -> None:
        """Probe these backends from now on, in this way, and no others."""
        wanted = set(backends)
        if check != self._check:
            self._stop(set(self._probes))
            self._check = check
        self._stop(self._probes.keys() - wanted)
        self.failure = None
        for backend in wanted - self._probes.keys():
            self._probes[backend] = probes = self._make(backend, check, make_readyz)
            try:
                for probe in probes:
                    start(probe)
            except NoThreadError as error:  # the next call tries again
                self.failure = error
                self._stop({backend})

    def set_wishes(self, wishes: Mapping[SocketAddress, Wish]) -> None:
        """Hurry the probes of backends that have come into doubt, and slow down the others."""
        for backend, wish in wishes.items():
            for probe in self._probes.get(backend, ()):
                probe.set_wish(wish)

    def _make(
        self, backend: SocketAddress, check: HealthCheck, make_readyz: MakeReadyz
    ) -> list[Repeated]:
        made = []
        if check.tcp.enabled:
            asker: Asker = TcpAsker(backend)
            made.append(self._repeat(backend, Layer.TCP, check, check.tcp, asker))
        if check.readyz.enabled:
            turn = self._dice(backend, Layer.READYZ).randrange(EVERY_NTH_IS_FRESH)
            asker = ReadyzAsker(backend, make_readyz, turn)
            made.append(self._repeat(backend, Layer.READYZ, check, check.readyz, asker))
        return made

    def _repeat(
        self,
        backend: SocketAddress,
        layer: Layer,
        check: HealthCheck,
        probe: Probe,
        asker: Asker,
    ) -> Repeated:
        pace = Pace(layer, probe, self._dice(backend, layer))
        wish = Wish(*limits(check, None, None))
        lookers = self._lookers[layer]
        return Repeated(backend, layer, pace, asker, wish, lookers, self._post)

    def _dice(self, backend: SocketAddress, layer: Layer) -> random.Random:
        seed = hashlib.sha256(f"{self._node_id} {backend} {layer.value}".encode()).digest()
        return random.Random(seed)  # noqa: S311 - spreads load, guards nothing

    def _stop(self, backends: set[SocketAddress]) -> None:
        for backend in backends:
            for probe in self._probes.pop(backend):
                probe.end()


class TcpAsker:
    """Makes the looks of the base probe."""

    def __init__(self, backend: SocketAddress) -> None:
        """Take whom to look at."""
        self._backend = backend

    def next_look(self, *, fresh: bool) -> Look:
        """Return the next look; each makes a connection of its own."""
        del fresh
        return self._look

    def stop(self) -> None:
        """Do nothing: a connect ends by itself, and leaves nothing behind."""

    def _look(self, timeout: float) -> Observation:
        return probe_tcp(self._backend, timeout)


class ReadyzAsker:
    """Makes the looks at /readyz: on the kept connection, or each on one of its own."""

    def __init__(self, backend: SocketAddress, make_readyz: MakeReadyz, turn: int) -> None:
        """Take whom to ask, what makes a probe, and where this node is in its round of looks."""
        self._backend = backend
        self._make = make_readyz
        self._kept = make_readyz(backend)
        self._kept_is_busy = False
        self._fresh: set[ReadyzProbe] = set()
        self._count = turn

    def next_look(self, *, fresh: bool) -> Look:
        """Return the next look.

        Also where only new connections tell anything, each second one is a question on the kept
        connection: an answer there says that the backend lives.
        """
        self._count += 1
        is_turn = self._count % 2 == 1 if fresh else self._count % EVERY_NTH_IS_FRESH == 0
        if is_turn or self._kept_is_busy:
            return self._look_afresh
        self._kept_is_busy = True
        return self._look_on_kept

    def stop(self) -> None:
        """End the looks that are under way."""
        for probe in (self._kept, *list(self._fresh)):
            probe.stop()

    def _look_on_kept(self, timeout: float) -> Observation:
        try:
            return self._kept.look(timeout)
        finally:
            self._kept_is_busy = False

    def _look_afresh(self, timeout: float) -> Observation:
        probe = self._make(self._backend)
        self._fresh.add(probe)
        try:
            return probe.look(timeout)
        finally:
            self._fresh.discard(probe)
            probe.close()
