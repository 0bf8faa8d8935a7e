"""The prober in virtual time: the real paces and bounds, over looks that are arithmetic."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Callable, Protocol

from kube_nginx_agent.health.pace import Haste, Limits, Pace, Wish, limits
from kube_nginx_agent.health.prober import EVERY_NTH_IS_FRESH
from kube_nginx_agent.health.repeated import is_asked_now
from kube_nginx_agent.health.repeats import Repeats
from kube_nginx_agent.inbox import Probed, Timing
from kube_nginx_agent.model import HealthCheck, SocketAddress
from kube_nginx_agent.observation import Layer, Observation, Result

_GOES_ON_FOR = {Layer.TCP: 3.0, Layer.READYZ: 2.0}
"""Seconds after its time for which a look may still end, as ``Repeated`` has them."""


class Threads(Protocol):
    """Where the looks run: what is due happens in its order, unless the process is stopped."""

    @property
    def now(self) -> float:
        """The steady clock."""

    def at(self, time: float, do: Callable[[], None]) -> None:
        """Have something happen then."""


class Looks(Protocol):
    """What is looked at."""

    def look(
        self, backend: SocketAddress, layer: Layer, at: float, *, fresh: bool
    ) -> tuple[Result, float, float | None]:
        """Return how a look that begins at ``at`` ends, when, and its round-trip time."""


@dataclass
class _Pending:
    """A look that is under way, as ``Repeated`` keeps it."""

    backend: SocketAddress
    layer: Layer
    began: float
    bounds: Limits
    fresh: bool
    ends: float
    said: list[Observation] = field(default_factory=list)
    is_given_up: bool = False
    is_over: bool = False


class VirtualProber:
    """Has the methods of ``Prober``; ``looks`` says what it did."""

    def __init__(
        self, threads: Threads, world: Looks, name: str, post: Callable[[Probed], None]
    ) -> None:
        self.looks: list[tuple[float, SocketAddress, Layer, bool]] = []
        self._threads = threads
        self._world = world
        self._name = name
        self._post = post
        self._check: HealthCheck | None = None
        self._wishes: dict[SocketAddress, Wish] = {}
        self._paces: dict[tuple[SocketAddress, Layer], Pace] = {}
        self._rounds: dict[tuple[SocketAddress, Layer], int] = {}
        self._turns: dict[tuple[SocketAddress, Layer], int] = {}
        self._kept_busy_until: dict[SocketAddress, float] = {}
        self._repeats: dict[tuple[SocketAddress, Layer], Repeats] = {}
        self.failure = None

    def want(self, backends: Iterable[SocketAddress], check: HealthCheck, _make: object) -> None:
        wanted = list(backends)
        if check != self._check:
            self._wishes.clear()
            self._check = check
        for backend in self._wishes.keys() - set(wanted):
            del self._wishes[backend]
        for backend in wanted:
            if backend not in self._wishes:
                self._start(backend, check)

    def set_wishes(self, wishes: Mapping[SocketAddress, Wish]) -> None:
        for backend, wish in wishes.items():
            before = self._wishes.get(backend)
            if before is None or before == wish:
                continue
            self._wishes[backend] = wish
            for layer in (Layer.TCP, Layer.READYZ):
                if self._is_on(layer) and is_asked_now(layer, before, wish):
                    self._begin_at(self._threads.now, backend, layer, fresh=True)

    def _is_on(self, layer: Layer) -> bool:
        check = self._check or HealthCheck()
        return (check.tcp if layer is Layer.TCP else check.readyz).enabled

    def _start(self, backend: SocketAddress, check: HealthCheck) -> None:
        self._wishes[backend] = Wish(*limits(check, None, None))
        for layer, probe in ((Layer.TCP, check.tcp), (Layer.READYZ, check.readyz)):
            dice = random.Random(f"{self._name} {backend} {layer}")
            self._paces[backend, layer] = Pace(layer, probe, dice)
            self._repeats[backend, layer] = Repeats()
            self._rounds[backend, layer] = dice.randrange(EVERY_NTH_IS_FRESH)
            if probe.enabled:
                wait = dice.random() * probe.interval.total_seconds() * 0.5
                self._begin_at(self._threads.now + wait, backend, layer)

    def _begin_at(
        self, time: float, backend: SocketAddress, layer: Layer, *, fresh: bool = False
    ) -> None:
        turn = self._turns[backend, layer] = self._turns.get((backend, layer), 0) + 1
        self._threads.at(time, lambda: self._begin(backend, layer, turn, fresh=fresh))

    def _begin(self, backend: SocketAddress, layer: Layer, turn: int, *, fresh: bool) -> None:
        wish = self._wishes.get(backend)
        if turn != self._turns[backend, layer] or wish is None:
            return
        began = self._threads.now
        count = self._rounds[backend, layer] = self._rounds[backend, layer] + 1
        doubtful = fresh or wish.haste is Haste.DOUBT or wish.fresh
        nth = count % 2 == 1 if doubtful else count % EVERY_NTH_IS_FRESH == 0
        fresh = layer is Layer.TCP or nth or began < self._kept_busy_until.get(backend, 0.0)
        self.looks.append((began, backend, layer, fresh))
        result, ends, rtt = self._world.look(backend, layer, began, fresh=fresh)
        bounds = wish.connect if layer is Layer.TCP else wish.answer
        if not fresh:
            longest = began + bounds.timeout + _GOES_ON_FOR[layer]
            self._kept_busy_until[backend] = min(ends, longest)
        look = _Pending(backend, layer, began, bounds, fresh, ends)
        seen = Observation(layer, result, rtt=rtt, is_fresh=fresh)
        if ends > began + bounds.early and bounds.early < bounds.timeout:
            self._threads.at(began + bounds.early, lambda: self._tell_late(look))
        if ends > began + bounds.timeout:
            self._threads.at(began + bounds.timeout, lambda: self._give_up(look))
        if ends <= began + bounds.timeout + _GOES_ON_FOR[layer]:
            self._threads.at(ends, lambda: self._end(look, seen))
        pause = self._paces[backend, layer].pause(wish, began)
        self._begin_at(began + pause, backend, layer)

    def _tell_late(self, look: _Pending) -> None:
        if not look.is_over:
            self._tell(look, _lateness(look), Timing.EARLY)

    def _give_up(self, look: _Pending) -> None:
        if not look.is_over:
            look.is_given_up = True
            self._tell(look, _lateness(look), Timing.IN_TIME)

    def _end(self, look: _Pending, seen: Observation) -> None:
        look.is_over = True
        self._tell(look, seen, Timing.OVERDUE if look.is_given_up else Timing.IN_TIME)

    def _tell(self, look: _Pending, seen: Observation, timing: Timing) -> None:
        says_nothing = timing is Timing.OVERDUE and seen.rtt is None
        wish = self._wishes.get(look.backend)
        if wish is None or says_nothing:
            return
        repeats, now = self._repeats[look.backend, look.layer], self._threads.now
        can_wait = repeats.note(wish, look.said, seen, timing)
        self._post(Probed(look.backend, seen, look.began, timing, now, can_wait))


def _lateness(look: _Pending) -> Observation:
    silence = Result.TIMEOUT if look.layer is Layer.TCP else Result.SILENT
    return Observation(look.layer, silence, is_fresh=look.fresh)
