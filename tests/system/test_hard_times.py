"""What a node goes through that is no apiserver's fault and no file's: it costs no client anything.

A node as in test_self_healing, in a group of its own. Each fault is gone again before the next.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import Iterator

import pytest

from kube_nginx_agent.notices import kinds
from system.healing import (
    RUN,
    entries_since,
    master,
    reported,
    wait_for_servers,
    wait_until_well,
    workers,
)
from system.machine import wait_until
from system.network import Fleet
from system.node import Node

pytestmark = pytest.mark.xdist_group("hard-times")

UNIT = "kube-nginx-agent"
_DROP_IN = f"/run/systemd/system/{UNIT}.service.d/trial.conf"
_HUP = """
import os, signal, sys, time
end = time.monotonic() + 1.0
for number in range(1000):
    os.kill(int(sys.argv[1]), signal.SIGHUP)
    time.sleep(max(end - time.monotonic(), 0.0) / (1000 - number))
"""
_SECOND = "runuser -u kube-nginx -- kube-nginx-agent run 2>&1"


@pytest.fixture
def node(healing: Node) -> Node:
    return healing


@pytest.fixture
def fleet(fleet_of_healing: Fleet) -> Fleet:
    return fleet_of_healing


@contextmanager
def unharmed(node: Node) -> Iterator[None]:
    """Have clients use the node meanwhile: none is turned away, no session is ended."""
    with node.load(rate=20.0, watches=5) as load:
        load.until(lambda seen: len(seen.lines) > 5, 10, "open watches")
        yield
        lines = len(load.so_far().lines)
        load.until(lambda seen: len(seen.lines) > lines + 10, 15, "more lines on the watches")
        seen = load.stop()
    assert (seen.count("failed"), seen.cuts) == (0, [])


@contextmanager
def unit_with(node: Node, setting: str) -> Iterator[None]:
    """Restart the agent with one more setting of its unit, and without it at the end."""
    node.shell(f"mkdir -p $(dirname {_DROP_IN})")
    node.machine.write(_DROP_IN, f"[Service]\n{setting}\n")
    restart = f"systemctl daemon-reload; systemctl restart {UNIT}"
    node.shell(restart)
    try:
        yield
    finally:
        node.shell(f"rm {_DROP_IN}; {restart}")


def agent(node: Node) -> int:
    return int(node.machine.unit(UNIT)["MainPID"])


def test_state_folder_that_is_read_only_keeps_the_old_list_served(node: Node, fleet: Fleet) -> None:
    first = fleet.addresses[0]
    with unharmed(node):
        with unit_with(node, "ReadOnlyPaths=/var/lib/kube-nginx"):
            wait_until_well(node)
            node.configure(f"backends: [{first}]\n")

            reported(node, "Read-only file system")
        wait_for_servers(node, first)


def test_agent_with_too_few_descriptors_leaves_nobody_out(node: Node) -> None:
    since, before = time.time(), workers(node)
    with unharmed(node):
        with unit_with(node, "LimitNOFILE=20"):
            wait_until(lambda: node.machine.unit(UNIT)["NRestarts"] or agent(node), 10, "a try")
            node.ask()
        wait_until_well(node)
    assert workers(node) == before
    assert entries_since(node, kinds.BACKEND_DOWN, since) == []
    assert entries_since(node, kinds.SESSIONS_CUT, since) == []


def test_second_agent_says_that_there_is_one_and_ends(node: Node) -> None:
    pid = agent(node)
    with unharmed(node):
        done = node.run("sh", "-c", _SECOND, check=False)

    assert done.returncode == 1
    assert str(pid) in done.stdout
    assert agent(node) == pid


def test_pid_file_with_a_strangers_pid_is_mended_and_the_stranger_left_alone(
    node: Node, fleet: Fleet
) -> None:
    before, first = master(node), fleet.addresses[0]
    node.run("systemd-run", "--quiet", "--unit=stranger", "sleep", "600")
    stranger = node.machine.unit("stranger")["MainPID"]
    with unharmed(node):
        node.shell(f"echo {stranger} >{RUN}/nginx.pid")

        wait_until(lambda: master(node) == before, 15, "the pid file to be mended")
        node.configure(f"backends: [{first}]\n")
        wait_for_servers(node, first)

    assert node.machine.unit("stranger")["MainPID"] == stranger
    node.run("systemctl", "stop", "stranger")


@pytest.mark.parametrize("socket", ["/run/systemd/journal/socket", "/run/systemd/notify"])
def test_socket_of_systemd_that_is_away_costs_no_edit(
    node: Node, fleet: Fleet, socket: str
) -> None:
    first = fleet.addresses[0]
    pid = agent(node)
    with unharmed(node):
        node.run("mv", socket, f"{socket}.away")
        try:
            node.configure(f"backends: [{first}]\n")
            wait_for_servers(node, first)
        finally:
            node.run("mv", f"{socket}.away", socket)
    assert agent(node) == pid


def test_thousand_signals_in_a_second_cost_no_reload_of_nginx(node: Node) -> None:
    pid, before = agent(node), workers(node)
    with unharmed(node):
        node.run("python3", "-c", _HUP, str(pid))

        wait_until_well(node)
    assert agent(node) == pid
    assert workers(node) == before


def test_node_that_was_suspended_goes_on_as_it_was(node: Node) -> None:
    since = time.time()
    pid, before = agent(node), workers(node)
    processes = " ".join(map(str, [pid, master(node), *before]))
    with node.load(rate=5.0, watches=5) as load:
        load.until(lambda seen: len(seen.lines) > 5, 10, "open watches")
        node.shell(f"kill -STOP {processes}; sleep 5; kill -CONT {processes}")
        lines = len(load.so_far().lines)
        load.until(lambda seen: len(seen.lines) > lines + 10, 15, "more lines on the watches")
        seen = load.stop()

    assert seen.cuts == []
    assert (agent(node), workers(node)) == (pid, before)
    assert entries_since(node, kinds.SESSIONS_CUT, since) == []
    assert entries_since(node, kinds.BACKEND_DOWN, since) == []
    wait_until_well(node)


def test_agent_that_may_not_see_sessions_says_so_and_the_rest_works(
    node: Node, fleet: Fleet
) -> None:
    first = fleet.addresses[0]
    with unharmed(node):
        families = "RestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
        with unit_with(node, families):
            reported(node, "sessions can't be told", timeout=15)
            node.configure(f"backends: [{first}]\n")
            wait_for_live(node, first)
        wait_until_well(node)


def wait_for_live(node: Node, address: str) -> None:
    """Wait until one server is live, though something else is wrong."""

    def is_live() -> bool:
        status = node.status()
        return status["is_list_live"] and [b["address"] for b in status["backends"]] == [address]

    wait_until(is_live, 10, f"{address} to be live")


def test_draining_worker_that_is_killed_costs_its_own_sessions_alone(
    node: Node, fleet: Fleet
) -> None:
    old = set(workers(node))
    with node.load(rate=20.0, watches=5) as load:
        load.until(lambda seen: len(seen.lines) > 5, 10, "open watches")
        node.configure(f"workers: 3\n{fleet.backends_yaml()}")
        wait_until(lambda: set(workers(node)) - old, 10, "new workers")
        wait_until_well(node)
        draining = old & set(workers(node))
        assert draining
        node.run("kill", "-KILL", *map(str, draining))
        lines = len(load.so_far().lines)
        load.until(lambda seen: len(seen.lines) > lines + 10, 15, "lines on the watches again")
        seen = load.stop()

    assert seen.count("failed") == 0
    assert not draining & set(workers(node))
    wait_until_well(node)
