"""The one node on which faults are healed, and what is asked of it."""

from __future__ import annotations

import re
from typing import Any

from kube_nginx_agent.notices import kinds
from system.machine import wait_until
from system.node import Node

LIVE = "/var/lib/kube-nginx/kube-nginx.conf"
RUN = "/run/kube-nginx"
POLL = 10.0
"""Seconds after which the agent finds what no event has told it."""


def wait_until_well(node: Node, timeout: float = 20.0) -> dict[str, Any]:
    def well() -> dict[str, Any]:
        status = node.status()
        return status if status["exit_code"] == 0 else {}

    return wait_until(well, timeout, "the node to be well")


def reported(node: Node, words: str, timeout: float = 5.0) -> dict[str, Any]:
    """Wait until these words stand among the open problems; return the status that has them."""

    def status() -> dict[str, Any]:
        now = node.status()
        return now if words in str(now.get("problems")) else {}

    found = wait_until(status, timeout, f"a report of {words!r}")
    assert found["exit_code"] == 1
    return found


def pass_now(node: Node) -> None:
    """Have the agent look at everything, where it would only do so in its own time."""
    node.run("systemctl", "reload", "kube-nginx-agent", check=False)


def master(node: Node) -> int:
    return int(node.output("cat", f"{RUN}/nginx.pid"))


def workers(node: Node) -> list[int]:
    return list(map(int, node.output("pgrep", "-P", str(master(node))).split()))


def entries_since(node: Node, kind: kinds.Kind, since: float) -> list[dict[str, Any]]:
    return node.machine.entries(
        "-u", "kube-nginx-agent", f"--since=@{since:.3f}", f"MESSAGE_ID={kind.message_id}"
    )


def wait_for_servers(node: Node, *addresses: str, timeout: float = POLL) -> None:
    """Wait until these and no others stand in the live config, and nginx serves it."""
    server = re.compile(r"^ +server (\S+:\d+)[ ;]", re.MULTILINE)

    def are_live() -> bool:
        return set(server.findall(node.output("cat", LIVE))) == set(addresses)

    wait_until(are_live, timeout, f"{addresses} to be live")
    wait_until_well(node)
