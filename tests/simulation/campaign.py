"""Many seeds, one after the other, in as many processes as asked for."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Iterable, Iterator, Sequence

from simulation.plan import Plan, make_plan
from simulation.shrink import shrink
from simulation.simulated import Outcome, simulate


@dataclass
class Totals:
    """What all runs came to."""

    runs: int = 0
    troubles: int = 0
    seconds: float = 0.0
    attempts: int = 0
    cuts: int = 0
    heals: list[float] = field(default_factory=list)
    broken: list[Outcome] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome) -> None:
        self.runs += 1
        self.troubles += len(outcome.plan.troubles)
        self.seconds += outcome.seconds
        self.attempts += outcome.attempts
        self.cuts += outcome.cuts
        if outcome.healed_after is not None:
            self.heals.append(outcome.healed_after)
        if outcome.violations:
            self.broken.append(outcome)

    def __str__(self) -> str:
        took = time.monotonic() - self.began
        hours = self.seconds / 3600
        heals = sorted(self.heals) or [0.0]
        p95 = heals[min(int(len(heals) * 0.95), len(heals) - 1)]
        return (
            f"{self.runs} runs, {self.troubles} troubles in {hours:.1f} node-hours "
            f"({hours / took * 60:.1f} a minute), {self.attempts} connections, {self.cuts} "
            f"sessions ended by the agent; well again after p50 {statistics.median(heals):.1f} s, "
            f"p95 {p95:.1f} s, at most {heals[-1]:.1f} s; {len(self.broken)} runs with a violation"
        )


def play(plans: Iterable[Plan], jobs: int) -> Iterator[Outcome]:
    """Yield what becomes of each plan."""
    if jobs == 1:
        yield from map(simulate, plans)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(simulate, plans, chunksize=4)


def play_for(hours: float, first: int, jobs: int, limit: float) -> Totals:
    """Play seeds from ``first`` on for so many node-hours, or so many seconds of real time."""
    totals, seed = Totals(), first
    while totals.seconds < hours * 3600 and time.monotonic() - totals.began < limit:
        block = range(seed, seed + 16 * jobs)
        for outcome in play(map(make_plan, block), jobs):
            totals.add(outcome)
            if outcome.violations:
                print(f"seed {outcome.plan.seed}: {outcome.violations[0]}", flush=True)
        seed = block.stop
    return totals


def shortest(plan: Plan, rules: Sequence[str]) -> Plan:
    """Return the shortest plan that breaks the first of these rules."""

    def breaks(shorter: Plan) -> bool:
        return any(violation.rule == rules[0] for violation in simulate(shorter).violations)

    return shrink(plan, breaks)
