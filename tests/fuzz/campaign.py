"""Fuzz each reader in a process of its own, and count: what `make fuzz` and the tests run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

NAMES = ("backends", "readyz", "nginx-log", "proc", "status", "helper")

_TESTS = Path(__file__).resolve().parents[1]
_EXECUTED = re.compile(r"^stat::number_of_executed_units:\s+(\d+)$", re.MULTILINE)
_REPLAYED = re.compile(r"^replayed: (\d+)", re.MULTILINE)
_STARTING = 60  # seconds that a slow machine may need beside those that were asked for


@dataclass(frozen=True)
class Outcome:
    """How often a reader was run, and what it did wrong: nothing, or the end of what it said."""

    name: str
    runs: int
    is_fuzzed: bool
    """False where there is no atheris, and the seeds were run once each."""
    finding: str


def fuzz(name: str, seconds: int, crashes: Path, corpus: Path | None = None) -> Outcome:
    """Run one reader for so many seconds."""
    command = [sys.executable, "-m", "fuzz", name, f"--seconds={seconds}", f"--crashes={crashes}"]
    if corpus:
        command.append(f"--corpus={corpus}")
    path = os.pathsep.join([str(_TESTS.parent / "agent"), str(_TESTS)])
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        timeout=seconds + _STARTING,
        check=False,
    )
    said = (done.stdout + done.stderr).decode("utf-8", "backslashreplace")
    executed = _EXECUTED.search(said)
    counted = executed or _REPLAYED.search(said)
    finding = "" if done.returncode == 0 and counted else said[-4000:]
    return Outcome(name, int(counted[1]) if counted else 0, executed is not None, finding)


def main(seconds: int, folder: Path) -> int:
    """Fuzz all of them, two at a time; corpora and findings go to ``folder``. Return how it was."""
    crashes = folder / "crashes"
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(fuzz, name, seconds, crashes, folder / name) for name in NAMES]
        outcomes = []
        for future in running:
            outcome = future.result()
            outcomes.append(outcome)
            how = "runs" if outcome.is_fuzzed else "seeds, for there is no atheris"
            print(f"{outcome.name:10} {outcome.runs:>10} {how}", flush=True)
            print(outcome.finding, end="", flush=True)
    found = sum(bool(outcome.finding) for outcome in outcomes)
    print(f"{found} of {len(NAMES)} readers with a finding; what found it is in {crashes}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
