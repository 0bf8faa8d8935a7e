"""One probe of one backend, repeated; looks may overlap, and a late one is told of as late.

Each look runs in a thread that makes no other meanwhile. So neither a backend that hangs nor an
error that nobody foresaw keeps the next look from being made.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Callable, Protocol

from kube_nginx_agent.health.lookers import Lookers
from kube_nginx_agent.health.pace import Haste, Limits, Pace, Wish
from kube_nginx_agent.health.repeats import Repeats
from kube_nginx_agent.inbox import Probed, Timing
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.node.starting import NoThreadError
from kube_nginx_agent.observation import Layer, Observation, Result

_GOES_ON_FOR = {Layer.TCP: 3.0, Layer.READYZ: 2.0}
"""Seconds after its time for which a look may still end with an answer: a connect that was sent
again after 1 s, a process that thaws, a link that has become long."""
_MOST_AT_ONCE = 20
_WAITS_FOR_ROOM = 0.2
_ON_LATENESS = {
    Layer.TCP: Observation(Layer.TCP, Result.TIMEOUT, "no answer in time"),
    Layer.READYZ: Observation(
        Layer.READYZ, Result.SILENT, "it accepts connections but does not answer"
    ),
}

Look = Callable[[float], Observation]


class Asker(Protocol):
    """Makes the looks of one probe at one backend."""

    def next_look(self, *, fresh: bool) -> Look:
        """Return the next look; ``fresh``: one that makes a whole new connection is due."""

    def stop(self) -> None:
        """End the looks that are under way; there will be no others."""


@dataclass
class _Pending:
    """A look that is under way."""

    began: float
    limits: Limits
    said: list[Observation] = field(default_factory=list)
    """What was told of it."""
    is_late: bool = False
    is_given_up: bool = False

    @property
    def due(self) -> float:
        """Return when there is something to tell of it."""
        return self.began + (self.limits.timeout if self.is_late else self.limits.early)


class Repeated(threading.Thread):
    """Looks again and again until it is told to end."""

    def __init__(  # noqa: PLR0913 - what ``Prober`` binds together
        self,
        backend: SocketAddress,
        layer: Layer,
        pace: Pace,
        asker: Asker,
        wish: Wish,
        lookers: Lookers,
        post: Callable[[Probed], None],
    ) -> None:
        """Take whom to look at, how, who makes the looks, and where to tell of them."""
        super().__init__(name=f"{layer.value}-{backend}", daemon=True)
        self._backend = backend
        self._layer = layer
        self._pace = pace
        self._asker = asker
        self._wish = wish
        self._lookers = lookers
        self._post = post
        self._changed = threading.Condition()
        self._pending: list[_Pending] = []
        self._next_at = 0.0
        self._fresh_next = False
        self._repeats = Repeats()
        self._ended = False

    def set_wish(self, wish: Wish) -> None:
        """Take the loop's opinion; what it wants to know now is looked at now."""
        with self._changed:
            before, self._wish = self._wish, wish
            if is_asked_now(self._layer, before, wish):
                self._fresh_next = True
                self._next_at = 0.0
                self._changed.notify()

    def end(self) -> None:
        """Make this the last look."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._asker.stop()

    def run(self) -> None:
        """Begin looks, and tell of those that are late."""
        while True:
            with self._changed:
                if self._ended:
                    return
                now = time.monotonic()
                self._tell_late(now)
                if now >= self._next_at and self._begin(now):
                    continue
                self._changed.wait(max(self._next_due() - time.monotonic(), 0.001))

    def _next_due(self) -> float:
        dues = [look.due for look in self._pending if not look.is_given_up]
        may_begin = len(self._pending) < _MOST_AT_ONCE
        return min([*dues, self._next_at if may_begin else self._next_at + _WAITS_FOR_ROOM])

    def _begin(self, now: float) -> bool:
        """Begin a look, unless too many are under way; return whether it has."""
        if len(self._pending) >= _MOST_AT_ONCE:
            self._next_at = now + _WAITS_FOR_ROOM
            return False
        wish = self._wish
        is_layer_tcp = self._layer is Layer.TCP
        pending = _Pending(now, wish.connect if is_layer_tcp else wish.answer)
        is_doubtful = wish.haste is Haste.DOUBT
        look = self._asker.next_look(fresh=self._fresh_next or wish.fresh or is_doubtful)
        self._fresh_next = False
        self._next_at = now + self._pace.pause(wish, now)
        self._pending.append(pending)
        try:
            self._lookers.run(f"{self.name} look", partial(self._run, look, pending))
        except NoThreadError as error:
            self._pending.remove(pending)
            self._tell(pending, _no_room(self._layer, error), Timing.IN_TIME)
        return True

    def _run(self, look: Look, pending: _Pending) -> None:
        """Look, in a thread of its own."""
        try:
            seen = look(pending.limits.timeout + _GOES_ON_FOR[self._layer])
        except Exception as error:  # whatever it is, the next look is made
            seen = _no_room(self._layer, error)
        with self._changed:
            if pending in self._pending:
                self._pending.remove(pending)
            if pending.is_given_up:
                self._tell(pending, seen, Timing.OVERDUE)
            else:
                self._tell(pending, seen, Timing.IN_TIME)
            self._changed.notify()

    def _tell_late(self, now: float) -> None:
        for look in self._pending:
            if not look.is_late and now >= look.due:
                look.is_late = True
                if look.limits.early < look.limits.timeout:
                    self._tell(look, _ON_LATENESS[self._layer], Timing.EARLY)
            if look.is_late and not look.is_given_up and now >= look.due:
                look.is_given_up = True
                self._tell(look, _ON_LATENESS[self._layer], Timing.IN_TIME)

    def _tell(self, look: _Pending, seen: Observation, timing: Timing) -> None:
        says_nothing = timing is Timing.OVERDUE and seen.rtt is None
        if self._ended or says_nothing:
            return
        can_wait = self._repeats.note(self._wish, look.said, seen, timing)
        at = time.monotonic()
        self._post(Probed(self._backend, seen, look.began, timing, at, can_wait))


def is_asked_now(layer: Layer, before: Wish, wish: Wish) -> bool:
    """Tell whether a new wish asks this probe for a look at once."""
    begins = wish.haste is Haste.DOUBT and before.haste is not Haste.DOUBT
    connects = layer is Layer.TCP and wish.connected_at > before.connected_at
    return begins or connects or wish.asked_at > before.asked_at


def _no_room(layer: Layer, error: Exception) -> Observation:
    """Tell of a look that could not be made: it says nothing of the backend."""
    return Observation(layer, Result.NO_ROOM, f"{type(error).__name__}: {error}")
