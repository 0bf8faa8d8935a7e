"""What one run says in figures: pure arithmetic on what the load saw and what was done when."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Optional

from faultbed.stage import Course
from support.results import Cut, Request, Result

NOTICED_AFTER = 5.0  # seconds; by then nobody should send to an unready apiserver
ACCEPTED_AFTER = 1.0  # seconds after the return of all that requests may still fail
SETTLED_AFTER = 4.0  # seconds after a return from which on its share is counted

_MOMENT = 0.1  # seconds that the news of a killed apiserver takes at most


@dataclass(frozen=True)
class Figures:
    """Counts are of what began at the fault or later; times are seconds, None means never."""

    requests: int
    failed: int
    bad: int
    """Those that failed, and those that were answered after more than 0.5 s."""
    steady: Optional[float]
    """From the fault to the last request, while it lasted, that failed or was slow."""
    stall: float
    """The longest time that any watch was without a line; one comes each second."""
    healthy_cut: int
    """Watches ended at an apiserver that had no fault since they were opened."""
    working_cut: int
    """Watches ended at a faulty apiserver that would have served them on."""
    left_out: Optional[int]
    """Apiservers that were well and got no new clients at some time; None if it can't be told."""
    unready: int
    """Requests that the faulty one answered later than 5 s after the fault began."""
    late: int
    """Requests that failed later than 1 s after the end of the fault."""
    back: Optional[float]
    """From the end of the fault to the last request that failed or was slow."""
    watches_back: Optional[float]
    """From the end of the fault until every watch had a line again."""
    share: Optional[float]
    """The part of the requests, in percent, that the returned one answers later."""
    added: Optional[float]
    """From the edit to the first answer of the added one."""
    removed: Optional[float]
    """From the edit to the last request that went to the removed one; 0 if none did."""
    watches_at_victim: int
    """Watches that the faulty one had when the fault began."""
    generator_late: float
    """How late the load's own clock ran at worst: with more than 0.1 the figures are doubtful."""


def measure(result: Result, course: Course) -> Figures:
    """Return the figures of one run."""
    fault, healed = course.fault, course.healed
    result = replace(result, requests=[r for r in result.requests if not _is_lost(r, course)])
    cuts = [cut for cut in result.cuts if cut.at >= fault]
    return Figures(
        requests=sum(request.at >= fault for request in result.requests),
        failed=result.count("failed", since=fault),
        bad=result.count("failed", since=fault) + result.count("slow", since=fault),
        steady=_rounded(result.steady_after(fault, healed)),
        stall=round(result.longest_stall(since=fault), 2),
        healthy_cut=sum(_is_healthy(cut, result, course) for cut in cuts),
        working_cut=sum(_is_working(cut, course) for cut in cuts),
        left_out=_left_out(course),
        unready=result.servers(fault + NOTICED_AFTER, healed).get(course.victim, 0),
        late=result.count("failed", since=healed + ACCEPTED_AFTER),
        back=_rounded(result.steady_after(healed)),
        watches_back=_watches_back(result, healed),
        share=_share(result, course),
        added=_added(result, course),
        removed=_removed(result, course),
        watches_at_victim=_watches_at(result, course.victim, fault),
        generator_late=round(result.late, 3),
    )


def _is_lost(request: Request, course: Course) -> bool:
    """Tell whether it failed because the apiserver that had it was killed: nobody can help that."""
    ended = request.at + request.seconds
    return bool(request.reason) and any(
        request.at <= trouble.struck and trouble.begins <= ended <= trouble.struck + _MOMENT
        for trouble in course.troubles
    )


def _is_healthy(cut: Cut, result: Result, course: Course) -> bool:
    """Tell whether the session had never, since it was opened, a server with a fault."""
    opened = _opened_at(cut, result)
    return not any(
        trouble.server == cut.server and trouble.begins <= cut.at and opened <= trouble.ends
        for trouble in course.troubles
    )


def _is_working(cut: Cut, course: Course) -> bool:
    return any(
        trouble.server == cut.server and trouble.serves and trouble.begins <= cut.at <= trouble.ends
        for trouble in course.troubles
    )


def _left_out(course: Course) -> Optional[int]:
    """Count whom the peer left out of its list, less those whose own fault it was."""
    if course.absences is None:
        return None
    ends = [at for at, _ in course.absences[1:]] + [math.inf]
    since = (who for (_, who), end in zip(course.absences, ends) if end >= course.fault)
    guilty = {trouble.server for trouble in course.troubles if not trouble.blameless}
    return len(frozenset().union(*since) - guilty)


def _opened_at(cut: Cut, result: Result) -> float:
    """Return when, at the latest, the session was begun: at the end of the one before it."""
    ends = [(one.watch, one.at) for one in result.cuts]
    ends += [(one.watch, one.at) for one in result.misses]
    earlier = (at for watch, at in ends if watch == cut.watch and at < cut.at)
    return max(earlier, default=result.started)


def _watches_back(result: Result, healed: float) -> Optional[float]:
    first: dict[int, float] = {}
    for line in result.lines:
        if line.at >= healed:
            first[line.watch] = min(line.at, first.get(line.watch, math.inf))
    return round(max(first.values()) - healed, 2) if len(first) == result.watches else None


def _share(result: Result, course: Course) -> Optional[float]:
    answers = result.servers(since=course.healed + SETTLED_AFTER)
    total = sum(answers.values())
    return round(100 * answers.get(course.victim, 0) / total) if total else None


def _added(result: Result, course: Course) -> Optional[float]:
    if course.added is None:
        return None
    name, at = course.added
    firsts = [r.at + r.seconds for r in result.requests if r.server == name and r.at >= at]
    return round(min(firsts) - at, 2) if firsts else None


def _removed(result: Result, course: Course) -> Optional[float]:
    if course.removed is None:
        return None
    name, at = course.removed
    late = (r.at - at for r in result.requests if r.server == name and r.at >= at)
    return round(max(late, default=0.0), 2)


def _watches_at(result: Result, server: str, at: float) -> int:
    last: dict[int, str] = {}
    for line in result.lines:
        if line.at < at:
            last[line.watch] = line.server
    return sum(name == server for name in last.values())


def _rounded(seconds: Optional[float]) -> Optional[float]:
    return None if seconds is None else round(seconds, 2)
