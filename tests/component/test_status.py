"""What `status` says of a running agent: the words, the exit code, the JSON."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

from kube_nginx_agent import __version__
from support.agent_process import SECONDS, AgentProcess
from support.process import wait_until

Apis = tuple[str, ...]


def as_json(agent: AgentProcess) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(agent.cli("status", "--json").stdout)
    return content


def test_a_well_agent_is_0_and_says_what_is_live(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:3])
    wait_until_up(agent)
    answer = agent.cli("status")
    assert (answer.returncode, answer.stderr) == (0, "")
    lines = answer.stdout.splitlines()
    live = f"apiservers.* generation {agent.generation()} live on {agent.listen}"
    assert re.match(f"ok: 3.*{live}", lines[0])
    assert f"agent       {__version__}, pid {agent.pid}, for " in answer.stdout
    assert re.search(rf"nginx +nginx/1\.\S+.*, pid {agent.master_pid()}", answer.stdout)
    assert f"config      {agent.config}" in answer.stdout
    assert all(re.search(rf"^{address} +up ", answer.stdout, re.MULTILINE) for address in apis[:3])


def test_the_json_has_all_that_programs_need(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:2])
    content = as_json(agent)
    assert content["verdict"] == "ok"
    assert content["pid"] == agent.pid
    assert content["nginx_pid"] == agent.master_pid()
    assert content["generation"] == content["wanted_generation"] == agent.generation()
    assert content["listen"] == [str(agent.listen)]
    assert content["problems"] == []
    assert {backend["address"] for backend in content["backends"]} == set(apis[:2])
    wait_until_up(agent)


def wait_until_up(agent: AgentProcess) -> None:
    """Wait until every backend has answered: one that has not yet is `new`."""
    wait_until(
        lambda: {backend["state"] for backend in as_json(agent)["backends"]} == {"up"},
        SECONDS,
        "all are up",
    )


def test_weights_backups_and_drained_ones_are_shown(agent: AgentProcess, apis: Apis) -> None:
    heavy, spare, old = apis[:3]
    agent.write_text(
        f"listen: {agent.listen}\n"
        "balance: least_conn\n"
        "backends:\n"
        f"  - {{address: '{heavy}', weight: 7}}\n"
        f"  - {{address: '{spare}', backup: true}}\n"
        f"  - {{address: '{old}', drain: true}}\n"
    )
    agent.start()
    wait_until(
        lambda: {backend["state"] for backend in as_json(agent)["backends"]} == {"up", "draining"},
        SECONDS,
        "the two are up",
    )
    shown = agent.cli("status").stdout
    assert re.search(rf"^{heavy} +up ", shown, re.MULTILINE)
    assert re.search(rf"^{spare} +up \(backup\) ", shown, re.MULTILINE)
    assert re.search(rf"^{old} +draining .*drain: true in the list", shown, re.MULTILINE)
    weights = {backend["address"]: backend["weight"] for backend in as_json(agent)["backends"]}
    assert weights == {heavy: 7, spare: 1, old: 1}


def test_a_degraded_agent_is_1_and_the_worst_comes_first(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:1])
    agent.config.write_text("oops")
    agent.wait_for_line("error: ")
    wait_until(lambda: agent.cli("status").returncode == 1, SECONDS, "it is degraded")
    answer = agent.cli("status")
    assert answer.stdout.startswith(f"degraded: {agent.config}:1:1: ")
    assert f"generation {agent.generation()} live on" in answer.stdout.splitlines()[0]
    assert re.search(r"^problem for \d+ s: ", answer.stdout, re.MULTILINE)
    (problem,) = as_json(agent)["problems"]
    assert problem["kind"] == "configuration refused"
    assert set(problem) >= {"what", "where", "hint", "since"}


def test_an_agent_that_was_killed_is_3_although_its_status_is_still_there(
    agent: AgentProcess, apis: Apis
) -> None:
    agent.start(apis[:1])
    agent.kill()
    answer = agent.cli("status")
    assert (agent.agent_dir / "status.json").exists()
    assert (answer.returncode, answer.stdout) == (3, "")


def test_an_agent_that_does_not_report_is_not_taken_for_well(
    agent: AgentProcess, apis: Apis
) -> None:
    """The file's own time is what counts; here it is moved, for a minute is long."""
    agent.start(apis[:1])
    agent.send(signal.SIGSTOP)
    os.waitid(os.P_PID, agent.pid, os.WSTOPPED)
    file = agent.agent_dir / "status.json"
    content = json.loads(file.read_text())
    content["updated_at"] -= 61
    file.write_text(json.dumps(content))
    answer = agent.cli("status")
    agent.send(signal.SIGCONT)
    assert answer.returncode == 1
    assert re.search(r"^this is 6\d s old: the agent has not reported since$", answer.stderr)


def test_a_status_file_that_is_garbage_is_one_line(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:1])
    (agent.agent_dir / "status.json").write_text("{")
    answer = agent.cli("status")
    if answer.returncode != 0:  # the agent may just have written a good one
        assert answer.returncode == 4
        assert "Traceback" not in answer.stderr
        assert answer.stderr.count("\n") == 1


def test_the_status_goes_on_while_nothing_happens(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:1])
    first = as_json(agent)["updated_at"]
    wait_until(lambda: as_json(agent)["updated_at"] > first, 15, "it has reported again")


def test_a_run_folder_that_was_emptied_is_filled_again(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:1])
    (agent.agent_dir / "status.json").unlink()
    agent.write(apis[1:2])
    agent.wait_for_applies(2)
    assert agent.cli("status").returncode == 0
