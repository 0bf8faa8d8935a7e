"""When to wake: the earliest of several times, each in the future or None."""

from __future__ import annotations

from typing import Iterable, Mapping

BUSY = 1.0
"""Seconds that the loop rests when a part asks to be woken in the past: a fault of ours, which
would otherwise take a whole core."""


class PastAlarmError(Exception):
    """A part wants to be woken at a time that is over."""


def earliest(dues: Mapping[str, float | None], now: float, *, is_strict: bool = False) -> float:
    """Return the earliest of the times, by the name of who wants it. Time is in seconds.

    One that is not in the future is put off by ``BUSY``; where ``is_strict``, as in the tests,
    PastAlarmError is raised instead.
    """
    late = {name: due for name, due in dues.items() if due is not None and due <= now}
    if late and is_strict:
        raise PastAlarmError(f"{', '.join(sorted(late))}: due in the past")
    return min(_times(dues.values(), now))


def _times(dues: Iterable[float | None], now: float) -> Iterable[float]:
    yield now + 3600.0
    for due in dues:
        if due is not None:
            yield due if due > now else now + BUSY
