"""What real nodes do to a running agent: it lives, serves on, says what is wrong, and mends it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Callable

import pytest

from component.rig import holder, who_answers
from support.address import Address
from support.agent_process import LIVE, SECONDS, AgentProcess, command, environment
from support.apiserver import StandIn
from support.process import wait_until

StandIns = Callable[[int], "list[StandIn]"]
FreePort = Callable[[], int]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may start it as another user")
SOMEBODY = 12345


def problems(agent: AgentProcess) -> list[str]:
    status = agent.status()
    return [problem["what"] for problem in status["problems"]] if status else []


def two_listens(agent: AgentProcess, other: Address, backends: list[str]) -> str:
    items = "".join(f"  - {backend}\n" for backend in backends)
    return f"listen: [{agent.listen}, {other}]\nbackends:\n{items}"


# Base and overlay


def test_edit_that_can_not_go_live_leaves_failover_on(
    agent: AgentProcess, stand_ins: StandIns, free_port: FreePort
) -> None:
    one, two = stand_ins(2)
    agent.start([one.address, two.address])
    elsewhere = Address("127.0.0.1", free_port())
    with holder(elsewhere):
        agent.write_text(f"listen: {elsewhere}\nbackends:\n  - {one.address}\n")
        agent.wait_for_line("it is held by")

        one.close()

        agent.wait_for_line(f"{one.address}: it is down")
        left_out = re.compile(rf"server {one.address} .* down;")
        wait_until(
            lambda: left_out.search(agent.live_text() or ""), SECONDS, "the dead one is left out"
        )
        status = agent.status()
        assert status
        assert status["listen"] == [str(agent.listen)]
        assert agent.cli("status").returncode == 1
        assert agent.cli("reload").returncode == 1
    wait_until(lambda: who_answers(elsewhere) == "", SECONDS, "the edit goes live")


def test_reload_asks_for_the_list_and_not_for_the_fleet(
    agent: AgentProcess, stand_ins: StandIns
) -> None:
    one, two = stand_ins(2)
    agent.start([one.address, two.address])
    one.close()
    agent.wait_for_line(f"{one.address}: it is down")

    assert agent.cli("status").returncode == 1
    assert agent.cli("reload").returncode == 0


def test_list_that_was_live_goes_on_when_the_agent_is_restarted_over_one_that_can_not(
    agent: AgentProcess, apis: tuple[str, ...], free_port: FreePort
) -> None:
    agent.start(apis[:2])
    elsewhere = Address("127.0.0.1", free_port())
    with holder(elsewhere):
        agent.write_text(f"listen: {elsewhere}\nbackends:\n  - {apis[2]}\n")
        agent.wait_for_line("it is held by")
        agent.restart()

        assert agent.servers() == set(apis[:2])
        status = agent.status()
        assert status
        assert {backend["address"] for backend in status["backends"]} == set(apis[:2])


# Listen addresses


def test_held_address_takes_the_others_down_neither_at_the_start_nor_at_an_edit(
    agent: AgentProcess, apis: tuple[str, ...], free_port: FreePort
) -> None:
    other = Address("127.0.0.1", free_port())
    with holder(other):
        agent.write_text(two_listens(agent, other, [apis[0]]))
        agent.start()
        agent.write_text(two_listens(agent, other, [apis[1]]))
        agent.wait_for_servers([apis[1]])
        assert any("it is held by" in what for what in problems(agent))
        assert agent.cli("status").returncode == 1

    agent.wait_for_line(rf"is live on {agent.listen}, {other}", seconds=15)
    wait_until(lambda: agent.cli("status").returncode == 0, SECONDS, "all is well")


@needs_root
def test_address_that_the_node_does_not_have_joins_when_it_comes(
    folder: Path, nginx_binary: Path, apis: tuple[str, ...], agent: AgentProcess
) -> None:
    vip = Address("127.77.0.1", agent.listen.port)
    agent.write_text(two_listens(agent, Address("192.0.2.77", vip.port), [apis[0]]))
    agent.start()

    assert any("Cannot assign requested address" in what for what in problems(agent))
    status = agent.status()
    assert status
    assert status["listen"] == [str(agent.listen)]
    agent.write_text(two_listens(agent, vip, [apis[0]]))
    agent.wait_for_line(rf"is live on {agent.listen}, {vip}")
    wait_until(lambda: problems(agent) == [], SECONDS, "nothing is wrong")


# The run folder


def test_run_folder_that_is_removed_is_made_again(
    agent: AgentProcess, apis: tuple[str, ...]
) -> None:
    agent.start(apis[:1])
    shutil.rmtree(agent.run_dir.rename(agent.run_dir.with_name("gone")))

    agent.wait_for_line("was gone and is put back")
    wait_until(lambda: agent.cli("status").returncode == 0, SECONDS, "the status is back")
    agent.write(apis[1:2])
    agent.wait_for_servers(apis[1:2])


def test_emptied_run_folder_costs_no_descriptor(agent: AgentProcess, apis: tuple[str, ...]) -> None:
    agent.start(apis[:1])

    def count() -> int:
        return len(os.listdir(f"/proc/{agent.pid}/fd"))

    def empty(number: int) -> None:
        for file in (agent.lock, agent.run_dir / "log.sock"):
            file.unlink()
        agent.wait_for_line("was gone and is put back", count=number, seconds=15)

    empty(1)
    before = count()
    for number in range(2, 7):
        empty(number)
    wait_until(lambda: count() <= before + 1, SECONDS, f"not more than {before + 1} descriptors")


def test_status_and_reload_do_not_take_a_dead_agents_words_for_its_own(
    agent: AgentProcess, apis: tuple[str, ...]
) -> None:
    agent.start(apis[:1])
    agent.kill()

    status, asked = agent.cli("status"), agent.cli("reload")

    assert (status.returncode, asked.returncode) == (3, 3)
    assert "has ended since" in status.stderr


def test_reload_signals_nobody_whose_pid_was_an_agents_once(
    agent: AgentProcess, apis: tuple[str, ...]
) -> None:
    agent.start(apis[:1])
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        lock, status = agent.lock, agent.agent_dir / "status.json"
        agent.kill()
        lock.write_text(f"{stranger.pid} 1\n")
        content = json.loads(status.read_text())
        content["pid"] = stranger.pid
        status.write_text(json.dumps(content))

        assert agent.cli("reload").returncode == 3
        assert agent.cli("status").returncode == 3
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@needs_root
def test_status_that_may_not_be_read_is_not_taken_for_a_missing_agent(
    agent: AgentProcess, apis: tuple[str, ...]
) -> None:
    agent.start(apis[:1])
    agent.agent_dir.chmod(0o700)

    asked = agent.cli("status", uid=65534)

    assert asked.returncode == 4, asked.stderr


# A stop, whatever is going on


def test_stop_does_not_wait_for_a_test_that_hangs(
    agent: AgentProcess, apis: tuple[str, ...], folder: Path
) -> None:
    hanging = folder / "hanging"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    agent.nginx = hanging
    agent.write(apis[:1])
    agent.spawn()
    agent.wait_for_line("backend")
    child = wait_until(
        lambda: Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split(),
        SECONDS,
        "nginx -t hangs",
    )
    assert child

    began = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - began < 4.0  # the test alone has 5 s


_WITH_THREE_INODES_LEFT = """
mkdir -p "$0/run" && mount -t tmpfs -o nr_inodes=40,mode=755 tmpfs "$0/run" || exit
i=0
while : 2>/dev/null >"$0/run/filler$i"; do i=$((i + 1)); done
rm "$0/run/filler0" "$0/run/filler1" "$0/run/filler2"
exec "$@"
"""


@needs_root
def test_run_folder_that_is_full_at_the_start_is_said_and_all_serves_when_it_is_not(
    folder: Path, nginx_binary: Path, listen: Address, apis: tuple[str, ...]
) -> None:
    prefix = ("unshare", "--mount", "bash", "-c", _WITH_THREE_INODES_LEFT, str(folder))
    with AgentProcess(folder, nginx_binary, listen, prefix=prefix) as agent:
        agent.write(apis[:1])
        agent.spawn()
        agent.wait_for_line("log.sock: the socket can't be made: No space left on device")

        for filler in Path(f"/proc/{agent.pid}/root{agent.run_dir}").glob("filler*"):
            filler.unlink()

        wait_until(lambda: bool(who_answers(agent.listen)), SECONDS, "it serves")
        assert "Traceback" not in agent.log.read_text()


# Where it is started from


def test_closed_standard_error_is_no_reason_to_end(
    agent: AgentProcess, apis: tuple[str, ...]
) -> None:
    agent._prefix = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh"]
    agent.start(apis[:1])

    agent.write(apis[1:2])
    agent.wait_for_servers(apis[1:2])
    assert agent.cli("status").returncode == 0


@pytest.mark.parametrize("verb", [["version"], ["render"], ["--help"]])
def test_full_standard_output_is_one_line(agent: AgentProcess, verb: list[str]) -> None:
    agent.write(["127.0.0.1:6443"])
    more = [agent.config] if verb == ["render"] else []
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command(*verb, *more), env=environment(), stdout=full, stderr=subprocess.PIPE,
            text=True, check=False, timeout=30,
        )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.returncode != 0


def test_what_nginx_takes_for_inherited_sockets_is_not_passed_to_it(
    agent: AgentProcess, apis: tuple[str, ...]
) -> None:
    agent.variables = {"NGINX": "/usr/bin/nginx"}

    agent.start(apis[:1])

    assert agent.lines("error") == []


def test_agent_that_may_not_write_its_state_serves_on_and_says_so(
    agent: AgentProcess, apis: tuple[str, ...]
) -> None:
    agent.start(apis[:1])
    shutil.rmtree(agent.state_dir)
    agent.state_dir.write_text("in the way")

    agent.write(apis[1:2])

    agent.wait_for_line("it can't be written")
    assert who_answers(agent.listen)
    agent.state_dir.unlink()
    agent.state_dir.mkdir()
    agent.wait_for_servers(apis[1:2], seconds=20)


# What was not foreseen


def test_fault_of_our_own_in_a_part_is_said_and_keeps_no_other_part_from_its_work(
    agent: AgentProcess, apis: tuple[str, ...], folder: Path
) -> None:
    """Run it with one function that is broken, as a mistake would."""
    source = Path(__file__).resolve().parents[2] / "agent"
    runner = folder / "runner.py"
    runner.write_text(
        "import sys\n"
        "import kube_nginx_agent.node.run_folder as part\n"
        "def repair(self): raise ZeroDivisionError('a mistake')\n"
        "part.RunFolder.repair = repair\n"
        "from kube_nginx_agent.cli import main\n"
        "sys.exit(main())\n"
    )
    with agent.log.open("wb") as log:
        agent.write(apis[:1])
        process = subprocess.Popen(
            [*command()[:1], str(runner), "run", "--standalone", f"--config={agent.config}",
             f"--nginx={agent.nginx}", *agent.folders],
            env={**os.environ, "PYTHONPATH": str(source)}, stdout=log, stderr=log, cwd="/",
        )  # fmt: skip
    try:
        agent.wait_for_line(LIVE)
        agent.wait_for_line("run folder: internal error: ZeroDivisionError: a mistake")
        agent.write(apis[1:2])
        agent.wait_for_servers(apis[1:2])
        assert len(agent.lines("internal error")) == 1
        assert agent.lines("Traceback") == []
        assert agent.cli("status").returncode == 1
    finally:
        process.terminate()
        process.wait(20)


def test_abstract_socket_with_a_strange_name_does_not_keep_nginx_from_being_started(
    agent: AgentProcess, apis: tuple[str, ...]
) -> None:
    agent.start(apis[:1])
    with socket.socket(socket.AF_UNIX) as strange:
        strange.bind(b"\0\xff\xfe\n\x80 a name")
        os.kill(agent.master_pid(), signal.SIGKILL)

        agent.wait_for_line(LIVE, count=2)

    assert agent.lines("internal error") == []
