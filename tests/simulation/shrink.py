"""The shortest list of troubles that still breaks the same rule (delta debugging)."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, Sequence, Tuple

from simulation.plan import CALM_BEFORE, Plan, Trouble

Breaks = Callable[[Plan], bool]


def shrink(plan: Plan, breaks: Breaks) -> Plan:
    """Return a plan that ``breaks`` as well, and would not without any one of its troubles."""
    plan = plan.only(_fewest(plan.troubles, lambda left: breaks(plan.only(left))))
    for simpler in _simpler(plan):
        if breaks(simpler):
            plan = simpler
    return plan


def _fewest(
    troubles: Tuple[Trouble, ...], breaks: Callable[[Tuple[Trouble, ...]], bool]
) -> Tuple[Trouble, ...]:
    size = max(len(troubles) // 2, 1)
    while troubles:
        for start in range(0, len(troubles), size):
            left = (*troubles[:start], *troubles[start + size :])
            if breaks(left):
                troubles = left
                break
        else:
            if size == 1:
                return troubles
            size = max(size // 2, 1)
    return troubles


def _simpler(plan: Plan) -> Sequence[Plan]:
    """Return the same troubles sooner, for a person to read."""
    if not plan.troubles:
        return ()
    early = plan.troubles[0].at - CALM_BEFORE
    moved = tuple(replace(t, at=round(t.at - early, 3)) for t in plan.troubles)
    return (plan.only(moved),)
