"""Starts, stops, crashes and restarts of the agent and of its nginx, seen by clients."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Callable

import pytest

from component.rig import who_answers
from support.address import Address
from support.agent_process import LIVE, SECONDS, AgentProcess, run_cli
from support.apiserver import StandIn
from support.load import Load
from support.process import wait_until

EDITS = 10

Apis = tuple[str, ...]
StandIns = Callable[[int], "list[StandIn]"]


def has_ended(pid: int) -> bool:
    """Tell whether there is no such process, but for a dead one that nobody has waited for."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def stand_in_addresses(apis: list[StandIn]) -> list[Address]:
    return [api.address for api in apis]


# Under load


def test_edits_under_load_fail_no_connection_and_cut_no_watch(
    agent: AgentProcess, stand_ins: StandIns
) -> None:
    apis = stand_in_addresses(stand_ins(3))
    agent.start(apis)
    with Load(agent.listen, rate=60, watches=6) as load:
        load.until(lambda seen: len(seen.lines) >= 6 and seen.count("ok") > 20, SECONDS, "it runs")
        for number in range(EDITS):
            # The watches stay with the old workers; all three stay in the list in some order.
            agent.write_text(agent.text(apis) + f"workers: {1 + number % 2}\n")
            agent.wait_for_applies(number + 2)
        seen = load.stop()
    assert seen.reasons() == {}
    assert seen.cuts == []
    assert seen.misses == []
    assert len(agent.lines("warning|error")) <= len(agent.lines("earlier generations"))


def test_a_killed_agent_and_its_successor_are_not_noticed_by_clients(
    agent: AgentProcess, stand_ins: StandIns
) -> None:
    agent.start(stand_in_addresses(stand_ins(2)))
    master, workers = agent.master_pid(), agent.worker_pids()
    with Load(agent.listen, rate=60, watches=4) as load:
        load.until(lambda seen: len(seen.lines) >= 4 and seen.count("ok") > 20, SECONDS, "it runs")
        agent.restart()
        begun = time.monotonic()
        load.until(lambda seen: seen.count("ok", since=begun) > 20, SECONDS, "it goes on")
        seen = load.stop()
    assert seen.reasons() == {}
    assert seen.cuts == []
    assert (agent.master_pid(), agent.worker_pids()) == (master, workers)
    agent.wait_for_applies(1)


# Restarts of the agent


def test_an_edit_made_while_no_agent_ran_goes_live_at_its_start(
    agent: AgentProcess, apis: Apis
) -> None:
    agent.start(apis[:1])
    agent.kill()
    agent.write(apis[1:3])
    agent.start()
    agent.wait_for_servers(apis[1:3])


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("oops"), Path.unlink])
def test_an_agent_that_starts_with_a_broken_list_goes_on_with_the_accepted_one(
    agent: AgentProcess, apis: Apis, spoil: Callable[[Path], None]
) -> None:
    agent.start(apis[:1])
    workers = agent.worker_pids()
    agent.kill()
    spoil(agent.config)
    agent.start()
    agent.wait_for_line("error: .*backends.yaml")
    assert agent.servers() == set(apis[:1])
    assert agent.worker_pids() == workers
    wait_until(lambda: agent.cli("status").returncode == 1, SECONDS, "it is degraded")

    agent.write(apis[1:3])
    agent.wait_for_servers(apis[1:3])


def test_nginx_is_started_from_the_accepted_list_when_both_are_gone_and_the_file_is_broken(
    agent: AgentProcess,
    apis: Apis,
) -> None:
    """A power failure, and a broken file at boot."""
    agent.start(apis[:1])
    agent.stop()
    agent.config.write_text("oops")
    agent.start()
    assert agent.servers() == set(apis[:1])


def test_a_live_config_that_was_changed_is_restored_and_the_difference_said(
    agent: AgentProcess,
    apis: Apis,
) -> None:
    agent.start(apis[:1])
    live = agent.state_dir / "kube-nginx.conf"
    text = live.read_text()
    edited = live.with_name("edited")
    edited.write_text(text.replace("max_fails=0", "max_fails=7"))
    edited.replace(live)  # all at once, as editors do
    agent.wait_for_line("changed by another hand: it is restored")
    assert agent.lines(r"\+.*max_fails=7")
    assert live.read_text() == text
    agent.wait_for_applies(1)


# nginx


def test_a_killed_nginx_is_restarted_and_that_is_said(
    agent: AgentProcess, stand_ins: StandIns
) -> None:
    apis = stand_ins(1)
    agent.start(stand_in_addresses(apis))
    master = agent.master_pid()
    os.kill(master, signal.SIGKILL)
    agent.wait_for_line(rf"error: nginx \(master {master}\) has ended")
    agent.wait_for_line(LIVE, count=2)
    assert agent.master_pid() != master
    assert who_answers(agent.listen) == apis[0].name


def test_an_emptied_run_folder_is_filled_again_and_no_session_is_cut(
    agent: AgentProcess, stand_ins: StandIns
) -> None:
    apis = stand_ins(2)
    agent.start(stand_in_addresses(apis))
    master = agent.master_pid()
    with Load(agent.listen, rate=30, watches=4) as load:
        load.until(lambda seen: len(seen.lines) >= 4, SECONDS, "it runs")
        for entry in agent.run_dir.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        agent.wait_for_line("was gone and is put back")
        agent.wait_for_line(LIVE, count=2)
        agent.write(stand_in_addresses(apis[:1]))
        agent.wait_for_line(LIVE, count=3)
        seen = load.stop()
    assert seen.reasons() == {}
    assert seen.cuts == []
    assert int((agent.run_dir / "nginx.pid").read_text()) == master
    status = agent.status()
    assert status is not None
    assert status["verdict"] == "ok"


def test_a_comment_is_not_taken_for_the_cause_of_what_comes_later(
    agent: AgentProcess, apis: Apis
) -> None:
    agent.start(apis[:1])
    agent.write_text(agent.text(apis[:1]) + "# a comment\n")
    agent.wait_for_line("1 backend$", count=2)
    os.kill(agent.master_pid(), signal.SIGKILL)
    assert "after the edit" not in agent.wait_for_line(LIVE, count=2)


# Several agents


def test_a_second_agent_on_the_same_folders_says_so_and_ends(
    agent: AgentProcess, apis: Apis
) -> None:
    agent.start(apis[:1])
    second = run_cli("run", "--standalone", f"--config={agent.config}", f"--nginx={agent.nginx}",
                     *agent.folders)  # fmt: skip
    assert second.returncode == 1
    assert f"another agent (pid {agent.pid}) works on this folder" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    assert agent.servers() == set(apis[:1])


# Signals and verbs


def test_hup_takes_an_edit_at_once(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:1])
    agent.write(apis[1:3])
    agent.send(signal.SIGHUP)
    agent.wait_for_servers(apis[1:3])
    agent.wait_for_applies(2)


def test_reload_waits_until_the_edit_is_live(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:1])
    agent.write(apis[1:3])
    asked = agent.cli("reload")
    assert agent.servers() == set(apis[1:3])
    assert (asked.returncode, asked.stderr) == (0, "")
    assert f"generation {agent.generation()} live on {agent.listen}" in asked.stdout


def test_reload_of_a_broken_list_tells_why_and_leaves_the_last_good_one(
    agent: AgentProcess,
    apis: Apis,
) -> None:
    agent.start(apis[:1])
    agent.write_text("backends: [oops oops]\n")
    asked = agent.cli("reload")
    assert (asked.returncode, asked.stdout) == (1, "")
    assert "backends.yaml:1:12: backends[0]" in asked.stderr
    assert agent.servers() == set(apis[:1])


def test_reload_without_an_agent_says_so(agent: AgentProcess) -> None:
    asked = agent.cli("reload")
    assert asked.returncode == 3
    assert "the agent is not running" in asked.stderr
    assert len(asked.stderr.splitlines()) == 1


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_nginx_too_and_leaves_nothing_but_the_state(
    agent: AgentProcess, apis: Apis, signum: signal.Signals
) -> None:
    agent.start(apis[:1])
    pids = agent.nginx_pids()
    agent.send(signum)
    assert agent.wait() == 0
    assert agent.lines()[-1].endswith(f"kube-nginx-agent stops ({signum.name})")
    assert all(map(has_ended, pids))
    assert [path for path in agent.run_dir.rglob("*") if not path.is_dir()] == [agent.lock]
    assert {path.name for path in agent.state_dir.iterdir()} == {
        "kube-nginx.conf",
        "spare",
        "last-good.conf",
        "accepted-backends.yaml",
    }
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(agent.listen, SECONDS)
    assert agent.cli("status").returncode == 3


def test_a_stop_is_obeyed_while_a_burst_of_edits_goes_on(agent: AgentProcess, apis: Apis) -> None:
    agent.start(apis[:1])
    end = threading.Event()

    def edit() -> None:
        while not end.wait(0.01):
            agent.write(apis[1:3] if time.monotonic_ns() % 2 else apis[:1])

    writer = threading.Thread(target=edit)
    writer.start()
    try:
        assert agent.stop() == 0
    finally:
        end.set()
        writer.join()


# The first start


def test_an_empty_list_closes_connections_at_once(agent: AgentProcess) -> None:
    agent.start(())
    began = time.monotonic()
    with socket.create_connection(agent.listen, SECONDS) as client:
        assert client.recv(1) == b""
    assert time.monotonic() - began < 1
    agent.wait_for_line("no backends configured")
    status = agent.cli("status")
    assert status.returncode == 0
    assert status.stdout.startswith("ok: no backends configured, generation ")


def test_a_list_that_is_emptied_and_filled_again(agent: AgentProcess, stand_ins: StandIns) -> None:
    apis = stand_ins(1)
    agent.start(stand_in_addresses(apis))
    agent.write(())
    agent.wait_for_applies(2)
    assert who_answers(agent.listen) == ""
    agent.write(stand_in_addresses(apis))
    agent.wait_for_applies(3)
    assert who_answers(agent.listen) == apis[0].name
