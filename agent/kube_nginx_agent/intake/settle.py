"""When has a file that changes stopped changing?"""

from __future__ import annotations

QUIET = 0.05
"""Seconds without a change after which a file is looked at, and again before it is looked at a
second time: what is renamed or closed is live 2 x 50 ms later, plus the reload."""

QUIET_WHILE_OPEN = 1.0
"""The same while a writer has not closed the file yet: it may be between two writes."""


class Settler:
    """Holds a changed file back until it has been quiet, and reads the same twice in a row.

    Time is an argument, in seconds of any steadily growing clock. Quiet alone would take a slow
    writer's half for the whole; the second look at the content does not.
    """

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._seen: str | None = None
        self._between_looks = QUIET
        self.due: float | None = None
        """When to look again; None: not before the next ``touch`` or ``poll``."""

    def touch(self, now: float, *, being_written: bool = False) -> None:
        """Note that something has happened to the file."""
        self._between_looks = QUIET
        self.due = now + (QUIET_WHILE_OPEN if being_written else QUIET)

    def poll(self, now: float) -> None:
        """Have the file looked at although nothing is known to have happened to it.

        Without events it is not known either whether a writer is between two writes, so that the
        second look is a long one; and a look that is due already, after events, is not hurried.
        """
        if self.due is None:
            self._between_looks = QUIET_WHILE_OPEN
            self.due = now

    def look(self, now: float, digest: str, *, at_rest: bool = False) -> bool:
        """Note the content as it is now; tell whether it has settled.

        ``at_rest``: it is known to be as it was long ago, and needs no second look.
        """
        settled = at_rest or digest == self._seen
        self._seen = digest
        self.due = None if settled else now + self._between_looks
        return settled
