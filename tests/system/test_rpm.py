"""The rpm's payload and scriptlets on a booted system; its dependencies are satisfied by hand."""

from __future__ import annotations

from typing import Iterator

import pytest

from system.machine import Machine
from system.network import Fleet
from system.node import Node
from system.packages import build_rpms
from system.roots import get_root

# Debian's rpm wants a database of its own, and Fedora's systemd reloads by a trigger.
_INSTALL = """
rpm --install --nodeps /srv/rpms/kube-nginx-agent-*.$(uname -m).rpm
systemctl daemon-reload
systemctl enable --quiet --now kube-nginx kube-nginx-cut.socket kube-nginx-agent
"""


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(get_root("bookworm", "rpm"), "rpm", {build_rpms(): "/srv/rpms"}) as machine:
        yield machine


def test_daemon_runs_from_the_rpm(machine: Machine, fleet: Fleet) -> None:
    machine.shell(_INSTALL)

    Node(machine).configure_and_wait(fleet.backends_yaml())

    assert machine.unit("kube-nginx")["User"] == "kube-nginx"
    assert Node(machine).ask() in {"api1", "api2", "api3"}


def test_edited_list_survives_a_reinstall(machine: Machine, fleet: Fleet) -> None:
    machine.shell(_INSTALL)
    Node(machine).configure_and_wait(fleet.backends_yaml())

    machine.shell("rpm --reinstall --nodeps /srv/rpms/kube-nginx-agent-*.$(uname -m).rpm")

    Node(machine).wait_for_answer()


def test_erase_stops_both_units(machine: Machine) -> None:
    machine.shell(_INSTALL)

    machine.shell("rpm --erase kube-nginx-agent; systemctl daemon-reload")

    assert machine.run("pgrep", "--uid", "kube-nginx", check=False).stdout == ""
    assert not machine.succeeds("test", "-e", "/run/kube-nginx")
