"""The rpm's payload and scriptlets on a booted system; its dependencies are satisfied by hand."""

from __future__ import annotations

from typing import Iterator

import pytest

from system.machine import Machine
from system.network import Fleet
from system.node import Node
from system.packages import build_old_rpms, build_rpms
from system.roots import cache_folder, get_root

# Debian's rpm wants a database of its own, and Fedora's systemd reloads by a trigger.
_INSTALL = """
rpm --install --nodeps /srv/rpms/kube-nginx-agent-[0-9]*.$(uname -m).rpm
systemctl daemon-reload
systemctl enable --quiet --now kube-nginx kube-nginx-cut.socket kube-nginx-agent
"""

_LOCAL = "/usr/local/lib/python3.11/dist-packages"


@pytest.fixture
def machine() -> Iterator[Machine]:
    binds = {build_rpms(): "/srv/rpms", build_old_rpms(): "/srv/old"}
    with Machine(get_root("bookworm", "rpm"), "rpm", binds) as machine:
        yield machine


def test_daemon_runs_from_the_rpm(machine: Machine, fleet: Fleet) -> None:
    machine.shell(_INSTALL)

    Node(machine).configure_and_wait(fleet.backends_yaml())

    assert machine.unit("kube-nginx")["User"] == "kube-nginx"
    assert Node(machine).ask() in {"api1", "api2", "api3"}


def test_edited_list_survives_a_reinstall(machine: Machine, fleet: Fleet) -> None:
    machine.shell(_INSTALL)
    Node(machine).configure_and_wait(fleet.backends_yaml())

    machine.shell("rpm --reinstall --nodeps /srv/rpms/kube-nginx-agent-[0-9]*.$(uname -m).rpm")

    Node(machine).wait_for_answer()


_UPGRADE = "rpm --upgrade --nodeps /srv/rpms/kube-nginx-agent-[0-9]*.$(uname -m).rpm"
_LIST = "/etc/kube-nginx/backends.yaml"


def _state(machine: Machine) -> str:
    return machine.shell(f"cat {_LIST}; stat --format='%a %U %G %y' {_LIST}")


def _write(machine: Machine, text: str) -> str:
    machine.shell("mkdir -p /etc/kube-nginx")
    machine.write(_LIST, text)
    machine.shell(f"chmod 640 {_LIST}; chgrp adm {_LIST}")
    return _state(machine)


def test_list_that_was_there_first_is_taken_as_it_is(machine: Machine, fleet: Fleet) -> None:
    before = _write(machine, fleet.backends_yaml())

    machine.shell(_INSTALL)

    assert _state(machine) == before
    assert machine.output("ls", "-A", "/etc/kube-nginx") == "backends.yaml"


@pytest.mark.parametrize("edited", [True, False], ids=["edited", "as it came"])
def test_list_survives_the_upgrade_from_the_version_that_shipped_it(
    machine: Machine, fleet: Fleet, edited: bool
) -> None:
    machine.shell(_INSTALL.replace("/srv/rpms", "/srv/old"))
    before = _write(machine, fleet.backends_yaml()) if edited else _state(machine)

    machine.shell(_UPGRADE)

    assert _state(machine) == before
    assert machine.output("ls", "-A", "/etc/kube-nginx") == "backends.yaml"


def test_fresh_list_is_the_empty_one(machine: Machine) -> None:
    machine.shell(_INSTALL)

    assert _state(machine).split("\n")[-1].startswith("644 root root ")
    machine.shell(f"cmp {_LIST} /usr/share/kube-nginx-agent/backends.yaml")


def test_deleted_list_is_not_replaced_by_an_empty_one(machine: Machine, fleet: Fleet) -> None:
    machine.shell(_INSTALL)
    Node(machine).configure_and_wait(fleet.backends_yaml())

    machine.shell(f"rm {_LIST}; rpm --reinstall --nodeps /srv/rpms/kube-nginx-agent-[0-9]*.rpm")

    assert not machine.succeeds("test", "-e", _LIST)
    Node(machine).wait_for_answer()


def test_erase_keeps_an_edited_list_and_nothing_of_the_state(
    machine: Machine, fleet: Fleet
) -> None:
    machine.shell(_INSTALL)
    Node(machine).configure_and_wait(fleet.backends_yaml())

    machine.shell("rpm --erase kube-nginx-agent; systemctl daemon-reload")

    kept = machine.output("sh", "-c", "cat /etc/kube-nginx/backends.yaml*")
    assert kept == fleet.backends_yaml().strip()
    assert not machine.succeeds("test", "-e", "/var/lib/kube-nginx")


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
