"""The agent as PID 1 of a container: nobody else collects what ends there, or shows its log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import psutil
import pytest

from support.agent_process import AgentProcess
from support.process import wait_until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
SECONDS = 10.0


@pytest.fixture
def contained(agent: AgentProcess, stand_ins: object) -> Iterator[subprocess.Popen[bytes]]:
    """The agent, PID 1 of a PID namespace of its own; its output goes to a file."""
    assert callable(stand_ins)
    (api,) = stand_ins(1)
    agent.write([str(api.address)])
    verbs = ["run", "--standalone", f"--config={agent.config}", f"--nginx={agent.nginx}"]
    source = Path(__file__).resolve().parents[2] / "agent"
    with (agent.config.parent / "output").open("wb") as output:
        process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-m",
             "kube_nginx_agent", *verbs, *agent.folders],
            env={**os.environ, "PYTHONPATH": str(source)}, stdout=output, stderr=output, cwd="/",
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def output_of(agent: AgentProcess) -> str:
    return (agent.config.parent / "output").read_text()


def init_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    return psutil.Process(process.pid).children()[0]


@needs_root
def test_orphans_are_collected(agent: AgentProcess, contained: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: "is live on" in output_of(agent), SECONDS, "nginx serves")
    init = init_of(contained)
    master = next(child for child in init.children() if "master" in "".join(child.cmdline()))

    os.kill(master.pid, signal.SIGKILL)
    wait_until(lambda: output_of(agent).count("is live on") == 2, SECONDS, "it serves again")

    def zombies() -> list[psutil.Process]:
        family = init.children(recursive=True)
        return [child for child in family if child.status() == psutil.STATUS_ZOMBIE]

    wait_until(lambda: not zombies(), 15.0, "no zombie is left")


@needs_root
def test_nginx_own_log_reaches_the_output(
    agent: AgentProcess, contained: subprocess.Popen[bytes]
) -> None:
    wait_until(lambda: "is live on" in output_of(agent), SECONDS, "nginx serves")

    wait_until(lambda: "start worker process" in output_of(agent), SECONDS, "nginx's own lines")


@needs_root
def test_stop_ends_all(agent: AgentProcess, contained: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: "is live on" in output_of(agent), SECONDS, "nginx serves")

    os.kill(init_of(contained).pid, signal.SIGTERM)

    assert contained.wait(SECONDS) == 0
