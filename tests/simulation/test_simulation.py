"""Fixed seeds, and each plan that has ever found a defect: none breaks a rule any more.

In a process of their own, with a fixed order of sets: so a seed is the same run everywhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kube_nginx_agent.health import evidence
from simulation.plan import Plan, Trouble, from_json, make_plan
from simulation.shrink import shrink
from simulation.simulated import simulate

TESTS = Path(__file__).parent.parent
CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))
SECONDS = 60


def play(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(TESTS.parent / "agent"), str(TESTS)])
    return subprocess.run(
        [sys.executable, "-m", "simulation", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_what_has_found_a_defect_finds_none(case: Path) -> None:
    done = play("--case", str(case))

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("first", [1, 1001])
def test_no_seed_breaks_a_rule(first: int) -> None:
    done = play("--hours", "1", "--first", str(first))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 runs with a violation" in done.stdout


def test_seed_is_the_same_run_each_time() -> None:
    one, other = play("--seed", "7"), play("--seed", "7")

    assert one.returncode == 0, one.stdout + one.stderr
    assert len(one.stdout.splitlines()) > 20
    assert one.stdout == other.stdout


def test_agent_that_has_no_patience_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules can be broken: who ends sessions after half a second does."""
    monkeypatch.setattr(evidence, "patience", lambda _check: 0.5)
    plan = Plan(1, tick=5.0, asks=1.0, troubles=(Trouble("frozen", 20.0, 30.0, (0,)),))

    rules = {violation.rule for violation in simulate(plan).violations}

    assert rules == {"a living session is ended"}


def test_shortest_list_that_fails_is_found() -> None:
    plan = make_plan(3)
    needed = {plan.troubles[2], plan.troubles[-1]}

    shorter = shrink(plan, lambda tried: needed <= set(tried.troubles) or _is_moved(tried, needed))

    assert [trouble.kind for trouble in shorter.troubles] == [
        trouble.kind for trouble in plan.troubles if trouble in needed
    ]


def _is_moved(plan: Plan, needed: set[Trouble]) -> bool:
    kinds = [trouble.kind for trouble in plan.troubles]
    return sorted(kinds) == sorted(trouble.kind for trouble in needed)


def test_plan_is_written_and_read_again() -> None:
    plan = make_plan(5)

    assert from_json(plan.to_json()) == plan
