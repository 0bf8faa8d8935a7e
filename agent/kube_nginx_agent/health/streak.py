"""What one probe has seen of one backend lately: passes or failures in a row. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from kube_nginx_agent.inbox import Probed, Timing
from kube_nginx_agent.model import Probe
from kube_nginx_agent.observation import PASSES, STUCK, Observation, Result

_SAYS_NOTHING_OF_HANDSHAKES = frozenset({Result.NOT_READY, Result.REFUSED})
"""A kept connection's pass is as good as a new one's after these."""


@dataclass(frozen=True)
class Streak:
    """Times are when looks *began*, in seconds of the steady clock."""

    last: Result | None = None
    detail: str = ""
    passes: int = 0
    fails: int = 0
    """Looks in a row that have failed, or take longer than usual."""
    full: int = 0
    """Those of them that were given all of their time."""
    has_failed: bool = False
    """Whether enough failures in a row have come, and not ``rise`` passes since."""
    first_began: float | None = None
    """Of the present run of failures; None while the last look passed."""
    last_began: float = -math.inf
    """Of the newest look that failed."""
    full_began: float = -math.inf
    """Of the newest look that failed with all of its time."""
    valid_from: float = -math.inf
    """A look that began before this is old news, if it fails: a later one has passed."""
    lives_from: float = -math.inf
    """The same of what has passed on a kept connection, which says nothing of new ones."""
    needs_fresh: bool = False
    """Whether a new connection has failed, which no answer on a kept one can refute."""

    @property
    def is_troubled(self) -> bool:
        """Whether it has failed by more than one late answer."""
        return self.fails > 1 or self.full > 0

    def is_refuted_by(self, probed: Probed) -> bool:
        """Tell whether this look ends the run of failures."""
        passes = probed.seen.result in PASSES and probed.timing is Timing.IN_TIME
        return passes and (probed.seen.is_fresh or not self.needs_fresh)


def extend(streak: Streak, probed: Probed, probe: Probe) -> Streak:
    """Return the streak after one more look, or after more news of a look that still lasts."""
    seen = probed.seen
    if probed.timing is Timing.OVERDUE:
        return streak
    if streak.is_refuted_by(probed):
        passes = streak.passes + 1
        has_failed = streak.has_failed and passes < probe.rise
        return Streak(
            last=seen.result,
            detail=seen.detail,
            passes=passes,
            has_failed=has_failed,
            valid_from=max(streak.valid_from, probed.began) if seen.is_fresh else streak.valid_from,
            lives_from=max(streak.lives_from, probed.began),
            needs_fresh=streak.needs_fresh and has_failed,
        )
    passed_from = streak.valid_from if _is_about_handshakes(seen) else streak.lives_from
    if seen.result in PASSES or probed.began < max(streak.valid_from, passed_from):
        return streak
    return _fail(streak, probed, probe)


def convict(streak: Streak, probe: Probe, others_passed: float) -> Streak:
    """Return it as failed, if late answers count for failures: others have answered faster since.

    ``others_passed``: when the newest look began that another backend has passed.
    """
    if streak.has_failed or streak.first_began is None or streak.fails < probe.fall:
        return streak
    return replace(streak, has_failed=True) if others_passed > streak.first_began else streak


def forget_failures(streak: Streak, began: float) -> Streak:
    """Return it with a new beginning: what began earlier had a reason that is over."""
    return replace(streak, fails=0, full=0, first_began=None, valid_from=began)


def _fail(streak: Streak, probed: Probed, probe: Probe) -> Streak:
    seen, began = probed.seen, probed.began
    is_full = probed.timing is Timing.IN_TIME
    # A look that is merely late does not know better why than one that has ended.
    is_known = not is_full and streak.full > 0
    is_other = (streak.last in STUCK) != (seen.result in STUCK)
    if streak.first_began is not None and is_other and not is_known:
        # Another fault than before: what answered red and is silent now has lived in between.
        streak = forget_failures(streak, streak.valid_from)
    full = streak.full + is_full
    return replace(
        streak,
        last=streak.last if is_known else seen.result,
        detail=streak.detail if is_known else seen.detail,
        passes=0,
        fails=max(streak.fails + (began > streak.last_began), 1),
        full=full,
        has_failed=streak.has_failed or full >= probe.fall,
        first_began=began if streak.first_began is None else streak.first_began,
        last_began=max(streak.last_began, began),
        full_began=max(streak.full_began, began) if is_full else streak.full_began,
        needs_fresh=streak.needs_fresh or _is_about_handshakes(seen),
    )


def _is_about_handshakes(seen: Observation) -> bool:
    """Tell whether no answer on a kept connection refutes this failure."""
    return seen.is_fresh and seen.result not in _SAYS_NOTHING_OF_HANDSHAKES
