"""The rpm's payload and scriptlets on a booted system; its dependencies are satisfied by hand."""

from __future__ import annotations

from typing import Iterator

import pytest

from system.machine import Machine
from system.network import Fleet
from system.node import Node
from system.packages import build_rpms
from system.roots import cache_folder, get_root

# Debian's rpm wants a database of its own, and Fedora's systemd reloads by a trigger.
_INSTALL = """
rpm --install --nodeps /srv/rpms/kube-nginx-agent-*.$(uname -m).rpm
systemctl daemon-reload
systemctl enable --quiet --now kube-nginx kube-nginx-cut.socket kube-nginx-agent
"""

_LOCAL = "/usr/local/lib/python3.11/dist-packages"


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


@pytest.fixture(params=["sdnotify", "watchdog"])
def carried(request: pytest.FixtureRequest) -> str:
    """A Python package that the release does not have, and that the rpm carries."""
    return str(request.param)


@pytest.fixture
def poor_machine(carried: str) -> Iterator[Machine]:
    """A machine without that package, whatever depends on it."""
    root, rpms = get_root("bookworm", "rpm"), build_rpms(carried)
    with Machine(root, "rpm", {rpms: "/srv/rpms"}) as machine:
        machine.shell(f"dpkg --purge --force-depends python3-{carried}")
        yield machine


def test_rpm_carries_what_the_release_lacks(poor_machine: Machine, carried: str) -> None:
    with Fleet(poor_machine, cache_folder().parent / "certs") as fleet:
        poor_machine.shell(_INSTALL)
        Node(poor_machine).configure_and_wait(fleet.backends_yaml())

        assert Node(poor_machine).ask() in {"api1", "api2", "api3"}

    provided = poor_machine.output("rpm", "--query", "--provides", "kube-nginx-agent")
    assert f"bundled(python3dist({carried})) = " in provided
    assert "/kube_nginx_agent/_carried/" in _place_of(poor_machine, carried)


def test_carried_package_is_for_our_commands_alone(poor_machine: Machine, carried: str) -> None:
    poor_machine.shell(_INSTALL)

    assert not poor_machine.succeeds("python3", "-c", f"import {carried}")


def test_package_of_the_system_goes_before_the_carried_one(
    poor_machine: Machine, carried: str
) -> None:
    poor_machine.shell(_INSTALL)

    poor_machine.shell(f"mkdir -p {_LOCAL}/{carried}; touch {_LOCAL}/{carried}/__init__.py")

    assert _LOCAL in _place_of(poor_machine, carried)


def _place_of(machine: Machine, package: str) -> str:
    """Return where our commands find a Python package."""
    script = f"import kube_nginx_agent, {package}; print({package}.__file__)"
    return machine.output("python3", "-I", "-c", script)


def test_erase_stops_both_units(machine: Machine) -> None:
    machine.shell(_INSTALL)

    machine.shell("rpm --erase kube-nginx-agent; systemctl daemon-reload")

    assert machine.run("pgrep", "--uid", "kube-nginx", check=False).stdout == ""
    assert not machine.succeeds("test", "-e", "/run/kube-nginx")
