"""Bad input while the agent runs costs nothing: the last good list goes on, and it is said once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from support.address import Address
from support.agent_process import LIVE, AgentProcess
from support.process import wait_until

NOT_ROOT = 65534

Apis = tuple[str, ...]
Spoil = Callable[[AgentProcess], None]


def invalid(agent: AgentProcess) -> None:
    agent.write_text("backend:\n  - 127.0.0.1:6443\nlisten: 127.0.0.1:99999\n")


def empty(agent: AgentProcess) -> None:
    agent.config.write_bytes(b"")


def truncated(agent: AgentProcess) -> None:
    agent.config.write_text("backends: [127.0.0.1:6443, ")


def binary(agent: AgentProcess) -> None:
    agent.config.write_bytes(os.urandom(4096))


def nul(agent: AgentProcess) -> None:
    agent.write_text("backends:\0 []\n")


def huge(agent: AgentProcess) -> None:
    line = "# " + "x" * (1 << 20) + "\n"
    with agent.config.open("w") as file:
        for _ in range(100):
            file.write(line)


def unreadable(agent: AgentProcess) -> None:
    agent.config.chmod(0)


def fifo(agent: AgentProcess) -> None:
    agent.config.unlink()
    os.mkfifo(agent.config)


def folder_instead(agent: AgentProcess) -> None:
    agent.config.unlink()
    agent.config.mkdir()


def deleted(agent: AgentProcess) -> None:
    agent.config.unlink()


def folder_deleted(agent: AgentProcess) -> None:
    agent.config.unlink()
    agent.config.parent.rmdir()


SPOILERS: dict[Spoil, str] = {
    invalid: r"backends.yaml:1:1: backend: .*did you mean",
    empty: r"backends.yaml.*empty",
    truncated: r"backends.yaml:[12]:\d+: not valid YAML",
    binary: r"backends.yaml.*",
    nul: r"backends.yaml:1:10: ",
    huge: r"backends.yaml.*(larger|bytes|big|KiB|MiB|kB)",
    fifo: r"backends.yaml: .*it is not a regular file",
    folder_instead: r"backends.yaml: it can't be read: Is a directory; it must be a file",
    deleted: r"backends.yaml: it can't be read: No such file",
    folder_deleted: r"backends.yaml: it can't be read: No such file",
}


def restore(agent: AgentProcess, backends: Apis) -> None:
    """Put a good file where something else may be."""
    if agent.config.is_dir():
        agent.config.rmdir()
    agent.config.parent.mkdir(exist_ok=True)
    agent.write(backends)


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_bad_input_leaves_the_last_good_list_and_is_said_once(
    agent: AgentProcess, apis: Apis, spoil: Spoil
) -> None:
    agent.start(apis[:2])
    generation, workers = agent.generation(), agent.worker_pids()

    spoil(agent)
    line = agent.wait_for_line(f"error: .*{SPOILERS[spoil]}")
    problem = wait_for_problem(agent)

    assert problem["what"] in line
    assert agent.generation() == generation
    assert agent.worker_pids() == workers
    status = agent.cli("status")
    assert status.returncode == 1
    assert problem["what"] in status.stdout.splitlines()[0]
    check = agent.check()
    assert check.returncode == 1
    assert problem["what"].partition(" (and ")[0] in check.stderr
    assert "Traceback" not in check.stderr
    asked = agent.cli("reload")
    assert asked.returncode == 1
    assert problem["what"] in asked.stderr
    said = [line.partition("error: ")[2] for line in agent.lines("error: ")]
    assert len(said) == len(set(said)) == len(check.stderr.splitlines())

    restore(agent, apis[:2])
    agent.wait_for_line("over after ")
    wait_until(lambda: (agent.status() or {})["verdict"] == "ok", 5, "the status is well again")
    assert agent.cli("status").returncode == 0
    assert agent.worker_pids() == workers
    agent.wait_for_applies(1)


def wait_for_problem(agent: AgentProcess) -> dict[str, str]:
    problem: dict[str, str] = wait_until(
        lambda: ((agent.status() or {}).get("problems") or [None])[0], 5, "the status has it"
    )
    return problem


@pytest.fixture
def agent_of_nobody(folder: Path, nginx_binary: Path, listen: Address) -> Iterator[AgentProcess]:
    if os.geteuid() != 0:
        pytest.skip("becomes another user")
    with AgentProcess(folder, nginx_binary, listen, uid=NOT_ROOT) as agent:
        yield agent


def test_a_file_that_may_not_be_read_is_said_and_taken_when_it_may(
    agent_of_nobody: AgentProcess, apis: Apis
) -> None:
    agent = agent_of_nobody
    agent.start(apis[:2])

    agent.write(apis[2:3])
    agent.config.chmod(0)
    agent.wait_for_line("backends.yaml: it can't be read: Permission denied; .*chmod 644")
    assert agent.servers() == set(apis[:2])
    check = agent.check()
    assert (check.returncode, "Permission denied" in check.stderr) == (1, True)

    agent.config.chmod(0o644)
    agent.wait_for_servers(apis[2:3])


def test_errors_of_one_file_are_all_said(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:2])
    agent.write_text("backends: [1.2.3.4:99999, 'a b', 5.6.7.8:0]\nworkers: many\n")
    agent.wait_for_line("workers: ")
    assert len(agent.lines("error: .*backends.yaml:[12]:[0-9]+: ")) == 4


def test_a_second_error_is_said_when_the_first_is_gone(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:2])
    invalid(agent)
    agent.wait_for_line("did you mean")
    deleted(agent)
    agent.wait_for_line("No such file")
    problems = wait_until(
        lambda: [
            problem
            for problem in (agent.status() or {})["problems"]
            if "No such file" in problem["what"]
        ],
        5,
        "the status follows",
    )
    assert len(problems) == 1
    assert len(agent.lines(LIVE)) == 1


def test_a_list_that_nginx_cannot_serve_leaves_the_last_good_one(
    agent: AgentProcess, apis: Apis
) -> None:
    """Valid for us, and only a start shows that it can't be: an address that isn't ours."""
    agent.start(apis[:2])
    agent.write_text("listen: 192.0.2.1:8443\nbackends: []\n")
    agent.wait_for_line(r"error: .*192\.0\.2\.1:8443.*the last good config goes")
    assert agent.servers() == set(apis[:2])
    wait_for_problem(agent)
    assert agent.cli("status").returncode == 1
    assert agent.check().returncode == 1

    agent.write(apis[2:3])
    agent.wait_for_servers(apis[2:3])
    wait_until(lambda: (agent.status() or {})["verdict"] == "ok", 5, "the status is well again")
