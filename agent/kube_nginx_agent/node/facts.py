"""What differs from node to node: an id of its own, and whether it has IPv6."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

from kube_nginx_agent.model import Node
from kube_nginx_agent.node.files import read_text


def discover_node(machine_id_file: Path = Path("/etc/machine-id")) -> Node:
    """Look at this machine; the host name stands in where there is no machine id."""
    return Node(id=_node_id(machine_id_file), has_ipv6_loopback=_has_ipv6_loopback())


def spread(node: Node, what: str, least: float, most: float) -> float:
    """Return a number between the two that is this node's own, and stays the same."""
    digest = hashlib.sha256(f"{node.id} {what}".encode()).digest()
    return least + (most - least) * int.from_bytes(digest[:4], "big") / 0xFFFFFFFF


def _node_id(machine_id_file: Path) -> str:
    """Hash the machine id, as machine-id(5) asks of programs that show something derived of it."""
    seed = (read_text(machine_id_file) or "").strip()
    digest = hashlib.sha256(f"kube-nginx-agent:{seed or socket.gethostname()}".encode())
    return digest.hexdigest()[:12]


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
