"""``python -m simulation``: play seeds, replay one, or find the shortest list that still fails."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

_HASH_SEED = "PYTHONHASHSEED"


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one, and say all that was said")
    parser.add_argument("--case", type=Path, nargs="+", help="replay plans that were kept")
    parser.add_argument("--shrink", action="store_true", help="find the shortest list that fails")
    parser.add_argument("--hours", type=float, default=10.0, help="node-hours to play")
    parser.add_argument("--seconds", type=float, default=1e9, help="at most, of real time")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1)
    chosen = parser.parse_args()
    _fix_order()
    from simulation import campaign, plan

    if chosen.case:
        plans = [plan.from_json(case.read_text()) for case in chosen.case]
        broken = [name for name, one in zip(chosen.case, plans) if not _replay(one, is_told=False)]
        return 1 if broken else 0
    if chosen.seed is not None:
        one = plan.make_plan(chosen.seed)
        if chosen.shrink:
            from simulation.simulated import simulate

            rules = [violation.rule for violation in simulate(one).violations]
            if not rules:
                print(f"seed {chosen.seed} breaks no rule")
                return 0
            one = campaign.shortest(one, rules)
        return 0 if _replay(one, is_told=True) else 1
    totals = campaign.play_for(chosen.hours, chosen.first, chosen.jobs, chosen.seconds)
    print(totals)
    return 1 if totals.broken else 0


def _replay(one: object, *, is_told: bool) -> bool:
    """Play a plan, and tell whether no rule was broken."""
    from simulation.plan import Plan
    from simulation.simulated import simulate

    assert isinstance(one, Plan)
    outcome = simulate(one)
    if is_told or outcome.violations:
        print(one, *outcome.said, *outcome.violations, sep="\n")
        print(f"case: {one.to_json()}")
    return not outcome.violations


def _fix_order() -> None:
    """Start again with a fixed order of sets: without it a seed is not the same run twice."""
    if os.environ.get(_HASH_SEED) != "0":
        environment = {**os.environ, _HASH_SEED: "0"}
        os.execve(sys.executable, [sys.executable, "-m", "simulation", *sys.argv[1:]], environment)


if __name__ == "__main__":
    sys.exit(main())
