"""The clock that everything runs by: time passes only when somebody waits."""

from __future__ import annotations

import heapq
import itertools
import time as real_time
from typing import Callable

_BOOTED = 1000.0
_EPOCH = 1_800_000_000.0


class Clock:
    """A steady clock, the wall clock beside it, and what is to happen when."""

    def __init__(self) -> None:
        self.now = _BOOTED
        self._wall_ahead = _EPOCH
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    @property
    def wall(self) -> float:
        return self.now + self._wall_ahead

    def at(self, when: float, do: Callable[[], None]) -> None:
        """Have something happen then; what is of the past happens next."""
        heapq.heappush(self._events, (when, next(self._count), do))

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        self.at(self.now + seconds, do)

    def pass_until(self, when: float, is_over: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until then, or until what happens makes ``is_over`` true."""
        while not is_over():
            if not self._events or self._events[0][0] > when:
                self.now = max(self.now, when)
                return
            at, _, do = heapq.heappop(self._events)
            self.now = max(self.now, at)
            do()

    def jump(self, seconds: float) -> None:
        """Set the wall clock, as an administrator or NTP does."""
        self._wall_ahead += seconds


class TimeModule:
    """What the agent's modules know as ``time``."""

    strftime = staticmethod(real_time.strftime)
    thread_time = staticmethod(lambda: 0.0)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def monotonic(self) -> float:
        return self._clock.now

    def monotonic_ns(self) -> int:
        return int(self._clock.now * 1e9)

    def time(self) -> float:
        return self._clock.wall

    def sleep(self, seconds: float) -> None:
        self._clock.pass_until(self._clock.now + seconds)
