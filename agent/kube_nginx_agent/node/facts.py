"""What differs from node to node and may change while we run: its id, IPv6, its addresses.

Cheap enough for each poll, and nothing here raises: what can't be told is left out.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
from contextlib import suppress
from pathlib import Path

import psutil

from kube_nginx_agent.model import IPAddress, Node
from kube_nginx_agent.node.files import read_text

_MACHINE_ID = Path("/etc/machine-id")
_UNSET = "uninitialized"
"""machine-id(5): what an image has for one that its first boot is to make."""


def look_at_node(machine_id_file: Path = _MACHINE_ID) -> Node:
    """Look at this machine as it is now."""
    return Node(
        id=_node_id(machine_id_file),
        has_ipv6_loopback=_has_ipv6_loopback(),
        addresses=_own_addresses(),
    )


def spread(node: Node, what: str, least: float, most: float) -> float:
    """Return a number between the two that is this node's own, and stays the same."""
    digest = hashlib.sha256(f"{node.id} {what}".encode()).digest()
    return least + (most - least) * int.from_bytes(digest[:4], "big") / 0xFFFFFFFF


def _node_id(machine_id_file: Path) -> str:
    """Hash the machine id, as machine-id(5) asks of programs that show something derived of it.

    With the host name, for cloned images share a machine id; a Kubernetes node is known by it.
    """
    machine_id = (read_text(machine_id_file) or "").strip()
    if machine_id == _UNSET:
        machine_id = ""
    seed = f"kube-nginx-agent:{machine_id}:{_host_name()}"
    return hashlib.sha256(seed.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _host_name() -> str:
    with suppress(OSError, UnicodeError):
        return socket.gethostname()
    return ""


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _own_addresses() -> frozenset[IPAddress]:
    """Return all but the link-local IPv6 ones: each pod's interface has one, and they come and go.

    They need a zone, so nobody can be told to connect to them.
    """
    try:
        interfaces = psutil.net_if_addrs()
    except (OSError, psutil.Error):
        return frozenset()
    found: set[IPAddress] = set()
    for entry in (entry for entries in interfaces.values() for entry in entries):
        if entry.family in (socket.AF_INET, socket.AF_INET6):
            with suppress(ValueError):
                # psutil gives a link-local address its zone: fe80::1%eth0.
                found.add(ipaddress.ip_address(entry.address.partition("%")[0]))
    return frozenset(ip for ip in found if ip.version == 4 or not ip.is_link_local)
