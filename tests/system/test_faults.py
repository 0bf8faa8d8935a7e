"""A dead apiserver, with nothing but the privileges that the installed units have."""

from __future__ import annotations

import time
from typing import Any

from kube_nginx_agent.notices import kinds
from support.results import Line
from system.machine import wait_until
from system.network import Fleet
from system.node import Node

STALL_LIMIT = 8.0
"""Seconds; `make bench-faults` measures it, this only tells a cut from a timeout."""


def test_sessions_of_a_frozen_apiserver_are_cut_by_the_helper(node: Node, fleet: Fleet) -> None:
    node.configure_and_wait(fleet.backends_yaml())
    frozen = fleet.apiservers[0]
    with node.load(rate=20.0, watches=20) as load:
        load.until(lambda seen: frozen.name in {line.server for line in seen.lines}, 10, "a watch")
        at = time.monotonic()
        frozen.freeze()
        wait_until(lambda: _entries(node, kinds.SESSIONS_CUT), 15, "sessions to be cut")
        load.until(lambda seen: _all_watches_go_on(seen.lines, frozen.name), 15, "all watches")
        seen = load.stop()
        frozen.thaw()

    assert seen.longest_stall(since=at) < STALL_LIMIT
    assert seen.cuts_of_others({frozen.name}) == []
    assert node.machine.entries("-u", "kube-nginx-cut.service")
    assert _entries(node, kinds.CUT_FAILED) == []
    wait_until(lambda: node.status()["exit_code"] == 0, 30, "the apiserver to be back")


def _entries(node: Node, kind: kinds.Kind) -> list[dict[str, Any]]:
    return node.machine.entries("-u", "kube-nginx-agent", f"MESSAGE_ID={kind.message_id}")


def _all_watches_go_on(lines: list[Line], frozen: str) -> bool:
    """Tell whether the last line on each watch came from another apiserver."""
    last = {line.watch: line.server for line in lines}
    return len(last) == 20 and frozen not in last.values()
