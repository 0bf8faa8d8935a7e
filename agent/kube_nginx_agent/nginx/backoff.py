"""When to try again what has failed: soon, then ever more seldom. Pure: time is an argument."""

from __future__ import annotations

FIRST = 1.0  # seconds
LONGEST = 300.0


class Backoff:
    """Spaces the tries at one thing."""

    def __init__(self, first: float = FIRST, longest: float = LONGEST) -> None:
        """Wait ``first`` seconds after one failure, twice as long after each more, to a limit."""
        self._first = first
        self._longest = longest
        self._failures = 0
        self._next_try = 0.0

    def failed(self, now: float) -> None:
        """Note a failure."""
        self._failures += 1
        delay = min(self._first * 2.0 ** min(self._failures - 1, 30), self._longest)
        self._next_try = now + delay

    def succeeded(self) -> None:
        """Forget all failures."""
        self._failures = 0

    @property
    def has_failed(self) -> bool:
        """Whether the last try was a failure."""
        return self._failures > 0

    def retry_at(self, now: float) -> float | None:
        """Return when it may be tried again; None: now."""
        return self._next_try if self._failures and self._next_try > now else None
