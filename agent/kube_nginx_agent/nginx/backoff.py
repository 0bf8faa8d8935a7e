"""When to try again what has failed: at once, then ever more seldom."""

from __future__ import annotations

FIRST = 1.0  # seconds
LONGEST = 300.0


class Backoff:
    """Spaces the tries at one goal; another goal starts afresh. Time is an argument."""

    def __init__(self, first: float = FIRST, longest: float = LONGEST) -> None:
        """Wait ``first`` seconds after one failure, twice as long after each more, to a limit."""
        self._first = first
        self._longest = longest
        self._goal: object = None
        self._failures = 0
        self._next_try = 0.0

    def failed(self, goal: object, now: float) -> float:
        """Note a failure; return the seconds until the next try."""
        self._failures = self._failures + 1 if goal == self._goal else 1
        self._goal = goal
        delay = min(self._first * 2.0 ** min(self._failures - 1, 30), self._longest)
        self._next_try = now + delay
        return delay

    def succeeded(self) -> None:
        """Forget all failures."""
        self._goal = None
        self._failures = 0

    def due(self, goal: object) -> float | None:
        """Return when the goal may be tried again; None: now."""
        return self._next_try if self._failures and goal == self._goal else None
