"""Stops, crashes and reboots: the data plane never waits for the control plane."""

from __future__ import annotations

import time

from system.machine import wait_until
from system.network import Fleet
from system.node import Node

AGENT_IS_UP = 30.0


def test_reboot_serves_before_the_agent_is_up(node: Node, fleet: Fleet) -> None:
    node.configure_and_wait(fleet.backends_yaml())
    node.shell("systemctl mask kube-nginx-agent")

    node.machine.reboot()

    assert node.machine.unit("kube-nginx-agent")["ActiveState"] == "inactive"
    node.ask()


def test_reboot_needs_no_reload(node: Node, fleet: Fleet) -> None:
    before = node.configure_and_wait(fleet.backends_yaml())

    node.machine.reboot()

    assert node.status()["generation"] == before["generation"]
    assert "reconfiguring" not in node.machine.journal("-u", "kube-nginx", "--boot")


def test_agent_that_stops_is_killed_or_restarts_leaves_nginx_alone(
    node: Node, fleet: Fleet
) -> None:
    node.configure_and_wait(fleet.backends_yaml())
    nginx = node.nginx_pid()
    with node.load() as load:
        node.shell("systemctl restart kube-nginx-agent")
        node.shell("systemctl kill -s KILL kube-nginx-agent")
        _wait_for_agent(node)
        node.shell("systemctl stop kube-nginx-agent")
        seen = load.stop()

    assert node.nginx_pid() == nginx
    assert (seen.count("failed"), seen.cuts) == (0, [])
    assert "reconfiguring" not in _nginx_log_after_start_of_load(node, seen.started)


def test_nginx_that_is_killed_serves_again_within_a_second(node: Node, fleet: Fleet) -> None:
    node.configure_and_wait(fleet.backends_yaml())
    with node.load(watches=0) as load:
        load.until(lambda seen: seen.count("ok") > 10, 10, "traffic")
        killed = time.monotonic()
        node.shell("systemctl kill --kill-who=main -s KILL kube-nginx")
        load.until(lambda seen: seen.count("ok", since=killed + 1.0) > 50, 10, "traffic again")
        seen = load.stop()

    assert seen.count("failed", since=killed + 1.0) == 0


def test_nginx_that_the_administrator_stops_stays_stopped(node: Node) -> None:
    node.shell("systemctl stop kube-nginx")

    wait_until(lambda: node.status()["exit_code"] == 2, 15, "the agent to say so")
    assert "not running" in node.status_line()
    assert node.machine.unit("kube-nginx")["ActiveState"] == "inactive"

    node.shell("systemctl start kube-nginx")
    wait_until(lambda: node.status()["exit_code"] == 0, 15, "the agent to find it")


def test_stopping_one_unit_leaves_the_files_of_the_other(node: Node) -> None:
    node.shell("systemctl stop kube-nginx-agent")
    assert node.machine.succeeds("test", "-S", "/run/kube-nginx/generation.sock")

    node.shell("systemctl start kube-nginx-agent; systemctl stop kube-nginx")
    assert node.machine.succeeds("test", "-S", "/run/kube-nginx/log.sock")


def test_hung_agent_is_restarted_by_the_watchdog(node: Node) -> None:
    folder = "/run/systemd/system/kube-nginx-agent.service.d"
    node.shell(f"mkdir -p {folder}")
    node.machine.write(f"{folder}/quick.conf", "[Service]\nWatchdogSec=3s\n")
    node.shell("systemctl daemon-reload && systemctl restart kube-nginx-agent")
    hung = node.machine.unit("kube-nginx-agent")["MainPID"]

    node.shell("systemctl kill -s STOP kube-nginx-agent")

    wait_until(
        lambda: node.machine.unit("kube-nginx-agent")["MainPID"] not in ("0", hung),
        60,
        "another agent",
    )
    _wait_for_agent(node)


def test_nginx_starts_at_boot_without_a_network(node: Node) -> None:
    node.machine.reboot()

    assert node.machine.unit("kube-nginx")["ActiveState"] == "active"


def test_nginx_starts_without_a_complaint_about_its_pid_file(node: Node) -> None:
    for _ in range(20):
        node.shell("systemctl restart kube-nginx")

    words = node.machine.journal("--boot", "_PID=1", "--unit=kube-nginx")
    assert words.count("Started") >= 20
    assert "PID" not in words


def _wait_for_agent(node: Node) -> None:
    wait_until(
        lambda: node.machine.unit("kube-nginx-agent")["ActiveState"] == "active",
        AGENT_IS_UP,
        "the agent to be active",
    )


def _nginx_log_after_start_of_load(node: Node, started: float) -> str:
    since = time.time() - (time.monotonic() - started)
    return node.machine.journal("-u", "kube-nginx", f"--since=@{since:.3f}")
