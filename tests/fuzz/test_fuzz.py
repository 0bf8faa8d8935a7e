"""A short fuzz of every reader; `make fuzz SECONDS=600` is the long one."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from fuzz.__main__ import SEEDS
from fuzz.campaign import NAMES, fuzz

SECONDS = 10


@pytest.mark.parametrize("name", NAMES)
def test_any_input_is_read_or_refused(name: str, tmp_path: Path) -> None:
    outcome = fuzz(name, SECONDS, tmp_path)

    assert outcome.finding == ""
    assert outcome.runs >= len(list((SEEDS / name).iterdir()))
    if not outcome.is_fuzzed:
        warnings.warn(f"{name}: no atheris here: {outcome.runs} seeds replayed", stacklevel=1)


def test_every_reader_is_fuzzed() -> None:
    program = "from fuzz.targets import TARGETS; print(*TARGETS)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": ":".join(sys.path[1:])},
        capture_output=True,
        text=True,
        check=True,
    )

    assert tuple(done.stdout.split()) == NAMES


def test_finding_is_told(tmp_path: Path) -> None:
    """A reader that is broken, as the fuzzer must see it."""
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(
        "import kube_nginx_agent.nginx.log as log\n"
        "def parse(data):\n    raise IndexError('broken')\n"
        "log.parse_message = parse\n"
    )
    path = f"{tmp_path}:{':'.join(sys.path[1:])}"

    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "nginx-log", "--seconds=2", f"--crashes={tmp_path}"],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )

    assert done.returncode != 0
    assert "IndexError: broken" in done.stdout + done.stderr
