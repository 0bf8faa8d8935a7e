"""A broken backends.yaml at install, upgrade, boot and reload costs nothing."""

from __future__ import annotations

import pytest

from system.machine import Machine
from system.network import Fleet
from system.node import Node

BROKEN = "backends:\n  - 192.0.2.1:99999\n"


def _assert_says_why(node: Node) -> None:
    properties = node.machine.unit("kube-nginx-agent")
    assert properties["ActiveState"] == "active"
    assert "/etc/kube-nginx/backends.yaml:2:5" in properties["StatusText"]
    assert node.status()["exit_code"] == 1


def test_broken_file_at_install(machine: Machine) -> None:
    node = Node(machine)
    machine.shell("mkdir /etc/kube-nginx")
    node.configure(BROKEN)

    node.install()

    assert machine.unit("kube-nginx")["ActiveState"] == "active"
    _assert_says_why(node)


def test_broken_file_at_upgrade(node: Node, fleet: Fleet) -> None:
    node.configure_and_wait(fleet.backends_yaml())
    node.configure(BROKEN)

    node.upgrade()

    _assert_says_why(node)
    node.ask()


def test_broken_file_at_boot(node: Node, fleet: Fleet) -> None:
    node.configure_and_wait(fleet.backends_yaml())
    node.configure(BROKEN)

    node.machine.reboot()

    _assert_says_why(node)
    node.ask()


def test_broken_file_at_reload(node: Node, fleet: Fleet) -> None:
    node.configure_and_wait(fleet.backends_yaml())
    node.configure(BROKEN)

    reload = node.run("systemctl", "reload", "kube-nginx-agent", check=False)

    assert reload.returncode != 0
    log = node.machine.journal("-u", "kube-nginx-agent")
    assert "/etc/kube-nginx/backends.yaml:2:5" in log
    _assert_says_why(node)
    node.ask()


@pytest.mark.parametrize("way", ["chmod 000", "rm", "truncate -s 0", "ln -sf /nowhere"])
def test_file_that_can_not_be_read_leaves_the_last_list(node: Node, fleet: Fleet, way: str) -> None:
    before = node.configure_and_wait(fleet.backends_yaml())

    node.shell(f"{way} /etc/kube-nginx/backends.yaml")

    assert not node.machine.succeeds("systemctl", "reload", "kube-nginx-agent")
    assert node.status()["generation"] == before["generation"]
    node.ask()
