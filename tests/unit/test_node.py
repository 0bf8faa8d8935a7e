"""What differs from node to node."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from kube_nginx_agent.node.facts import look_at_node
from unit.making import ips

MACHINE_ID = "0123456789abcdef0123456789abcdef"


@dataclass
class Entry:
    """What psutil says of one address."""

    family: int
    address: str


def id_of(tmp_path: Path, machine_id: bytes) -> str:
    file = tmp_path / "machine-id"
    file.write_bytes(machine_id)
    return look_at_node(file).id


def test_id_is_stable(tmp_path: Path) -> None:
    assert id_of(tmp_path, MACHINE_ID.encode()) == id_of(tmp_path, f"{MACHINE_ID}\n".encode())


def test_id_differs_from_machine_to_machine(tmp_path: Path) -> None:
    assert id_of(tmp_path, MACHINE_ID.encode()) != id_of(tmp_path, MACHINE_ID[::-1].encode())


def test_id_does_not_tell_the_machine_id(tmp_path: Path) -> None:
    node_id = id_of(tmp_path, MACHINE_ID.encode())

    assert re.fullmatch("[0-9a-f]{12}", node_id)
    assert node_id not in MACHINE_ID


@pytest.mark.parametrize(
    "machine_id", [b"", b"\n", b"\xff", b"uninitialized\n", MACHINE_ID.encode()]
)
def test_clones_that_share_a_machine_id_or_have_none_are_told_apart_by_host_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine_id: bytes
) -> None:
    ids = set()
    for name in ("node-1", "node-2"):
        monkeypatch.setattr(socket, "gethostname", lambda name=name: name)
        ids.add(id_of(tmp_path, machine_id))

    assert len(ids) == 2


def test_id_of_an_image_is_none(tmp_path: Path) -> None:
    assert id_of(tmp_path, b"uninitialized\n") == id_of(tmp_path, b"")


def test_missing_machine_id_file_is_no_error(tmp_path: Path) -> None:
    assert look_at_node(tmp_path / "missing").id


def test_machine_id_that_is_no_file_is_no_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "machine-id")

    assert look_at_node(tmp_path / "machine-id").id


def test_own_addresses_are_known() -> None:
    assert ip_address("127.0.0.1") in look_at_node().addresses


def test_addresses_of_both_families_that_others_can_connect_to_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = [
        Entry(socket.AF_INET, "10.0.0.9"),
        Entry(socket.AF_INET6, "fe80::1%eth0"),
        Entry(socket.AF_INET6, "2001:db8::9"),
        Entry(psutil.AF_LINK, "02:00:00:00:00:01"),
        Entry(socket.AF_INET, "what"),
    ]
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"eth0": entries})

    assert look_at_node().addresses == ips(["10.0.0.9", "2001:db8::9"])


def test_addresses_that_cannot_be_told_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(psutil, "net_if_addrs", fail)

    assert look_at_node().addresses == frozenset()


def test_host_name_of_any_bytes_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node-\udcff")

    assert look_at_node(tmp_path / "machine-id").id


class NoIpv6(socket.socket):
    def bind(self, *_: object) -> None:
        raise OSError(99, "Cannot assign requested address")


def test_node_without_ipv6_loopback_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", NoIpv6)

    assert not look_at_node(tmp_path / "machine-id").has_ipv6_loopback
