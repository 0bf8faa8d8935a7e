"""Which looks say only what the one before has said: the loop need not wake for them. Pure."""

from __future__ import annotations

from kube_nginx_agent.health.pace import ANSWER_FACTOR, CONNECT_FACTOR, Wish
from kube_nginx_agent.inbox import Timing
from kube_nginx_agent.observation import Layer, Observation

_MUCH_LONGER = 1.25


class Repeats:
    """Remembers what was told of the last look of one probe, from its lateness to its end."""

    def __init__(self) -> None:
        """Know of none."""
        self._before: list[Observation] = []

    def note(self, wish: Wish, said: list[Observation], seen: Observation, timing: Timing) -> bool:
        """Note what is told of a look next, after what is ``said`` of it, to which it is added.

        Return whether the look before said the same at this point, and nothing follows from it.
        What comes after a look was given up counts for nobody: the next one may be news again.
        """
        if timing is Timing.OVERDUE:
            return False
        before = self._before[len(said)] if len(said) < len(self._before) else None
        said.append(seen)
        if timing is Timing.IN_TIME:
            self._before = said
        return wish.is_settled and before is not None and _is_alike(wish, before, seen)


def _is_alike(wish: Wish, before: Observation, seen: Observation) -> bool:
    """Tell whether two looks say the same.

    A time that has grown does not, if it makes the limits grow, or is far from what was usual.
    """
    if (before.result, before.detail) != (seen.result, seen.detail):
        return False
    is_connect = seen.layer is Layer.TCP
    early = wish.connect.early if is_connect else wish.answer.early
    took, usual = seen.rtt or 0.0, before.rtt or 0.0
    factor = CONNECT_FACTOR if is_connect else ANSWER_FACTOR
    return took <= max(early / factor, _MUCH_LONGER * usual)
