"""What to do about nginx, given what was seen of it. Pure: one step at a time, then look again.

The order of the questions is the order of weight: what is stopped goes on, what is dead is ended,
what was begun is finished; only then does nginx serve what it should.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import FrozenSet, Hashable, Mapping, Sequence, Tuple, Union

from kube_nginx_agent.model import Desired, Rendered
from kube_nginx_agent.nginx.generation import Answer, NoAnswer
from kube_nginx_agent.nginx.process import Process

MAX_DRAINING = 8
"""Generations of old workers that may serve their last sessions side by side."""
MUTE_FOR = 3.0
"""Seconds in which nginx neither answers nor goes through its loop, until it counts as hung."""
RETIRING_FOR = 0.3
"""Seconds for which all workers have retired, and none has come. At a reload the new ones come
100 ms before the old ones retire (src/os/unix/ngx_process_cycle.c)."""
_ASK_AGAIN = 0.1
_RESUME_AGAIN = 1.0
_ROOM_AGAIN = 5.0
"""Seconds until it is looked whether an old generation has ended."""


@dataclass(frozen=True)
class Goal:
    """Something that nginx should serve; ``key`` is what its failures are counted under."""

    rendered: Rendered
    desired: Desired
    key: Hashable
    may_wait: bool = False
    """Whether it is not worth ending old sessions for."""

    @property
    def generation(self) -> str:
        """Return the generation that nginx answers with when it is live."""
        return self.rendered.generation


class UpgradeState(Enum):
    """How far nginx is from the installed binary."""

    NONE = "nginx is the installed one"
    WANTED = "another one is installed, or none"
    UNFINISHED = "the new master serves beside the old one"


@dataclass(frozen=True)
class Seen:
    """What one look at nginx has found."""

    master: Process | None = None
    family: FrozenSet[Process] = frozenset()
    """The master, its workers, and those of an earlier master that serve their last sessions."""
    stopped: Tuple[Process, ...] = ()
    is_retiring: bool = False
    answer: Answer | NoAnswer = NoAnswer.ABSENT
    turns: int = 0
    """How often the serving workers have gone through their loops."""
    draining: int = 0
    """How many earlier generations still serve sessions."""
    live: str | None = None
    """The text of the live config; None: there is none to be read."""
    last_good: Rendered | None = None
    upgrade: UpgradeState = UpgradeState.NONE


@dataclass(frozen=True)
class Memory:
    """What has to be remembered from look to look; times are seconds of a steady clock."""

    served: Tuple[Process, str] | None = None
    """The last answer, and the master that it was of."""
    mute_since: float | None = None
    mute_turns: int = 0
    retiring_since: float | None = None
    resumed: Mapping[Process, float] = field(default_factory=dict)
    """When each stopped process was last told to go on."""


@dataclass(frozen=True)
class Waits:
    """What has failed, and when it may be tried again; a time that is over is as good as None."""

    goals: Mapping[Hashable, float] = field(default_factory=dict)
    checks: Mapping[Hashable, float | None] = field(default_factory=dict)
    """Goals whose last try failed, whatever nginx says, and when their clients' way may be checked
    again; None: now."""
    restart: float | None = None
    upgrade: float | None = None
    restore: float | None = None


@dataclass(frozen=True)
class Rest:
    """Nothing is to be done before something happens, or the time comes."""


@dataclass(frozen=True)
class Resume:
    """Tell processes that a signal has stopped to go on."""

    processes: Tuple[Process, ...]


@dataclass(frozen=True)
class End:
    """Kill an nginx that serves no new clients; ``is_hung``: its workers as well."""

    master: Process
    is_hung: bool


@dataclass(frozen=True)
class Apply:
    """Test, install, reload, prove."""

    goal: Goal


@dataclass(frozen=True)
class Restore:
    """Put the text back that nginx serves, without a reload."""

    rendered: Rendered


@dataclass(frozen=True)
class Check:
    """See whether clients are served after all."""

    goal: Goal


@dataclass(frozen=True)
class Start:
    """Start nginx from the live config as it is."""


@dataclass(frozen=True)
class Upgrade:
    """Bring nginx to the installed binary."""


@dataclass(frozen=True)
class FinishUpgrade:
    """Go on where an agent has ended within an upgrade, and two masters accept side by side."""


Step = Union[Rest, Resume, End, Apply, Restore, Check, Start, Upgrade, FinishUpgrade]


@dataclass(frozen=True)
class Decision:
    """The next step, and when to look again though nothing happens."""

    step: Step
    wake: float | None = None


def remember(memory: Memory, seen: Seen, now: float) -> Memory:
    """Return what is worth remembering after a look."""
    served = memory.served
    if isinstance(seen.answer, Answer) and seen.master:
        served = (seen.master, seen.answer.generation)
    elif seen.answer is NoAnswer.ABSENT or served is None or served[0] != seen.master:
        served = None
    mute_since, mute_turns = None, 0
    if seen.master and seen.answer is NoAnswer.MUTE:
        lives = memory.mute_since is None or seen.turns != memory.mute_turns
        mute_since, mute_turns = now if lives else memory.mute_since, seen.turns
    retiring_since = (memory.retiring_since or now) if seen.master and seen.is_retiring else None
    resumed = {process: when for process, when in memory.resumed.items() if process in seen.stopped}
    return Memory(served, mute_since, mute_turns, retiring_since, resumed)


def served_by(memory: Memory) -> str | None:
    """Return the generation that nginx serves; one that is too full to say it serves its last."""
    return memory.served[1] if memory.served else None


def decide(seen: Seen, memory: Memory, goals: Sequence[Goal], waits: Waits, now: float) -> Decision:
    """Return the next step towards the first of the ``goals`` that can be had.

    The goals stand in the order of preference: one whose time has not come again gives way to the
    next, so that an edit that can't go live does not switch failover off.
    """
    urgent = _mend(seen, memory, now)
    if urgent:
        return urgent
    wakes = [memory.resumed[process] + _RESUME_AGAIN for process in seen.stopped]
    if seen.upgrade is UpgradeState.UNFINISHED:
        if not _is_ahead(waits.upgrade, now):
            return Decision(FinishUpgrade())
        wakes.append(waits.upgrade or now)
    step = _towards(seen, served_by(memory), goals, waits, now, wakes)
    return Decision(step, min((wake for wake in wakes if wake > now), default=None))


def _mend(seen: Seen, memory: Memory, now: float) -> Decision | None:
    """Return what comes before everything else, if nginx takes no new clients."""
    stopped = tuple(
        process
        for process in seen.stopped
        if process not in memory.resumed or now >= memory.resumed[process] + _RESUME_AGAIN
    )
    if stopped:
        return Decision(Resume(stopped))
    if seen.master is None:
        return None
    for since, patience, is_hung in (
        (memory.mute_since, MUTE_FOR, True),
        (memory.retiring_since, RETIRING_FOR, False),
    ):
        if since is not None:
            if now >= since + patience:
                return Decision(End(seen.master, is_hung))
            return Decision(Rest(), min(since + patience, now + _ASK_AGAIN))
    return None


def _towards(  # noqa: PLR0913 - all that there is to know
    seen: Seen,
    served: str | None,
    goals: Sequence[Goal],
    waits: Waits,
    now: float,
    wakes: list[float],
) -> Step:
    for goal in goals:
        retry = waits.goals.get(goal.key)
        if served == goal.generation:
            return _keep(seen, goal, waits, now, wakes)
        if _is_ahead(retry, now):
            wakes.append(retry or now)
        elif seen.master is None and _is_ahead(waits.restart, now):
            break
        elif goal.may_wait and seen.draining >= MAX_DRAINING:
            wakes.append(now + _ROOM_AGAIN)
            break
        else:
            return Apply(goal)
    return _guard(seen, served, waits, now, wakes)


def _keep(seen: Seen, goal: Goal, waits: Waits, now: float, wakes: list[float]) -> Step:
    """Return what is left to do where nginx serves the goal already."""
    if seen.live != goal.rendered.text:
        if not _is_ahead(waits.restore, now):
            return Restore(goal.rendered)
        wakes.append(waits.restore or now)
    if goal.key in waits.checks:
        retry = waits.checks[goal.key]
        if not _is_ahead(retry, now):
            return Check(goal)
        wakes.append(retry or now)
    elif seen.upgrade is UpgradeState.WANTED:
        if not _is_ahead(waits.upgrade, now):
            return Upgrade()
        wakes.append(waits.upgrade or now)
    return Rest()


def _guard(seen: Seen, served: str | None, waits: Waits, now: float, wakes: list[float]) -> Step:
    """Return what keeps the last good config going while no goal may be tried."""
    good = seen.last_good
    if good and served in (None, good.generation):
        if seen.live != good.text and not _is_ahead(waits.restore, now):
            return Restore(good)
        if seen.master is None and not _is_ahead(waits.restart, now):
            return Start()
    if seen.master is None and waits.restart:
        wakes.append(waits.restart)
    return Rest()


def _is_ahead(when: float | None, now: float) -> bool:
    return when is not None and when > now
