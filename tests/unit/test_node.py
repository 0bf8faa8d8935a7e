"""What differs from node to node."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from kube_nginx_agent.node.facts import discover_node

MACHINE_ID = "0123456789abcdef0123456789abcdef"


def id_of(tmp_path: Path, machine_id: bytes) -> str:
    file = tmp_path / "machine-id"
    file.write_bytes(machine_id)
    return discover_node(file).id


def test_id_is_stable(tmp_path: Path) -> None:
    assert id_of(tmp_path, MACHINE_ID.encode()) == id_of(tmp_path, f"{MACHINE_ID}\n".encode())


def test_id_differs_from_machine_to_machine(tmp_path: Path) -> None:
    assert id_of(tmp_path, MACHINE_ID.encode()) != id_of(tmp_path, MACHINE_ID[::-1].encode())


def test_id_does_not_tell_the_machine_id(tmp_path: Path) -> None:
    node_id = id_of(tmp_path, MACHINE_ID.encode())

    assert re.fullmatch("[0-9a-f]{12}", node_id)
    assert node_id not in MACHINE_ID


@pytest.mark.parametrize("machine_id", [b"", b"\n", b"\xff"])
def test_host_name_stands_in_for_a_missing_machine_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine_id: bytes
) -> None:
    ids = set()
    for name in ("node-1", "node-2"):
        monkeypatch.setattr(socket, "gethostname", lambda name=name: name)
        ids.add(id_of(tmp_path, machine_id))

    assert len(ids) == 2


def test_missing_machine_id_file_is_no_error(tmp_path: Path) -> None:
    assert discover_node(tmp_path / "missing").id


class NoIpv6(socket.socket):
    def bind(self, *_: object) -> None:
        raise OSError(99, "Cannot assign requested address")


def test_node_without_ipv6_loopback_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", NoIpv6)

    assert not discover_node(tmp_path / "machine-id").has_ipv6_loopback
