"""What the administrator reads: lines with fields, and the catalog's explanation."""

from __future__ import annotations

import re

from kube_nginx_agent.notices import kinds
from system.machine import wait_until
from system.network import Fleet
from system.node import Node

GENERATION_LIVE = f"MESSAGE_ID={kinds.GENERATION_LIVE.message_id}"
CONFIG_REFUSED = f"MESSAGE_ID={kinds.CONFIG_REFUSED.message_id}"


def test_lines_have_fields(node: Node, fleet: Fleet) -> None:
    status = node.configure_and_wait(fleet.backends_yaml())

    entry = node.machine.entries("-u", "kube-nginx-agent", GENERATION_LIVE)[-1]

    assert entry["GENERATION"] == status["generation"]
    assert entry["SYSLOG_IDENTIFIER"] == "kube-nginx-agent"
    assert entry["PRIORITY"] == str(kinds.GENERATION_LIVE.priority)
    assert entry["MESSAGE"].startswith(f"generation {status['generation']} is live")


def test_catalog_explains_and_says_what_to_do(node: Node) -> None:
    node.configure("backends: [nonsense")
    wait_until(
        lambda: node.machine.entries("-u", "kube-nginx-agent", CONFIG_REFUSED), 10, "a refusal"
    )

    explained = node.output("journalctl", "--no-pager", "-x", "-u", "kube-nginx-agent")

    assert "Subject: A list of apiservers was refused" in explained
    assert "kube-nginx-agent check FILE" in explained


def test_catalog_has_every_kind_of_event(node: Node) -> None:
    known = set(re.findall(r"^[0-9a-f]{32}", node.output("journalctl", "--list-catalog"), re.M))

    assert {kind.message_id for kind in kinds.ALL} <= known


def test_nginx_logs_to_its_own_unit(node: Node) -> None:
    messages = [entry["MESSAGE"] for entry in node.machine.entries("-u", "kube-nginx")]

    assert any("start worker process" in message for message in messages)
