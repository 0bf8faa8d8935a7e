"""backends.yaml is the administrator's: no version of the package asks about it or touches it."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from system.machine import Machine
from system.network import Fleet
from system.node import Node
from system.packages import NEWER_VERSION, OLD_VERSION
from system.roots import get_root

LIST = "/etc/kube-nginx/backends.yaml"
NEWER = f"{NEWER_VERSION}-1"

_UNATTENDED = """
cat >/etc/apt/apt.conf.d/52kube-nginx-agent <<END
Unattended-Upgrade::Origins-Pattern { "origin=kube-nginx-agent,codename=stable"; };
END
"""


@pytest.fixture
def machine(release: str, history: Path) -> Iterator[Machine]:
    with Machine(
        get_root(release, "unattended-upgrades"), "list", {history: "/srv/apt"}
    ) as machine:
        yield machine


@pytest.fixture
def empty(machine: Machine) -> Node:
    """A node without the package, whose apt knows the repository with three versions."""
    node = Node(machine)
    node.use_repository("/srv/apt")
    return node


@pytest.fixture
def this(empty: Node) -> str:
    """The version under test."""
    lines = empty.output("apt-cache", "madison", "kube-nginx-agent").splitlines()
    versions = {line.split("|")[1].strip() for line in lines}
    assert len(versions) == 3, versions
    (version,) = versions - {OLD_VERSION, NEWER}
    return version


def _install(node: Node, version: str, *options: str) -> None:
    node.apt("install", *options, f"kube-nginx-agent={version}")
    assert node.version() == f"installed {version}"


def _state(node: Node) -> str:
    """Return content, mode, owner and time of the list."""
    return node.shell(f"cat {LIST}; stat --format='%a %U %G %y' {LIST}")


def _write(node: Node, text: str) -> str:
    node.shell("mkdir -p /etc/kube-nginx")
    node.configure(text)
    node.shell(f"chmod 640 {LIST}; chgrp adm {LIST}")
    return _state(node)


def _loosen(node: Node) -> None:
    """Let the agent's user read it again: it was closed to show that the mode stays."""
    node.shell(f"chmod 644 {LIST}")
    node.wait_for_answer()


def test_list_that_was_there_first_is_taken_as_it_is(empty: Node, this: str, fleet: Fleet) -> None:
    before = _write(empty, fleet.backends_yaml())

    _install(empty, this)

    assert _state(empty) == before
    _loosen(empty)


def test_link_that_leads_nowhere_stays_one(empty: Node, this: str) -> None:
    empty.shell(f"mkdir /etc/kube-nginx; ln -s /nowhere {LIST}")

    _install(empty, this)

    assert empty.output("readlink", LIST) == "/nowhere"


def test_fresh_list_is_readable_and_no_conffile(empty: Node, this: str) -> None:
    _install(empty, this)

    assert _state(empty).split("\n")[-1].startswith("644 root root ")
    assert empty.shell(f"cmp {LIST} /usr/share/kube-nginx-agent/backends.yaml") == ""
    assert "backends.yaml" not in empty.output(
        "cat", "/var/lib/dpkg/info/kube-nginx-agent.conffiles"
    )


@pytest.mark.parametrize("edited", [True, False], ids=["edited", "as it came"])
def test_list_survives_the_upgrade_from_the_version_where_it_was_a_conffile(
    empty: Node, this: str, fleet: Fleet, edited: bool
) -> None:
    _install(empty, OLD_VERSION)
    before = _write(empty, fleet.backends_yaml()) if edited else _state(empty)

    _install(empty, this)
    assert _state(empty) == before
    _install(empty, NEWER)
    assert _state(empty) == before

    if edited:
        _loosen(empty)


def test_unattended_upgrade_takes_the_version_that_drops_the_conffile(
    empty: Node, fleet: Fleet
) -> None:
    _install(empty, OLD_VERSION)
    before = _write(empty, fleet.backends_yaml())
    empty.shell(_UNATTENDED)

    said = empty.run("unattended-upgrade", "--verbose")

    assert empty.version() == f"installed {NEWER}", said.stdout + said.stderr
    assert _state(empty) == before
    _loosen(empty)


def test_downgrade_to_the_version_where_it_was_a_conffile_asks_nothing(
    empty: Node, this: str, fleet: Fleet
) -> None:
    _install(empty, OLD_VERSION)
    before = _write(empty, fleet.backends_yaml())
    _install(empty, this)

    _install(empty, OLD_VERSION, "--allow-downgrades")

    assert _state(empty) == before
    _loosen(empty)


def test_downgrade_and_upgrade_between_versions_without_it(
    empty: Node, this: str, fleet: Fleet
) -> None:
    _install(empty, NEWER)
    before = _write(empty, fleet.backends_yaml())

    _install(empty, this, "--allow-downgrades")
    assert _state(empty) == before
    _install(empty, NEWER)

    assert _state(empty) == before
    _loosen(empty)


def test_reinstall_leaves_an_edited_list(empty: Node, this: str, fleet: Fleet) -> None:
    _install(empty, this)
    before = _write(empty, fleet.backends_yaml())

    _install(empty, this, "--reinstall")

    assert _state(empty) == before
    _loosen(empty)


def test_list_stays_at_remove_and_goes_at_purge(empty: Node, this: str, fleet: Fleet) -> None:
    _install(empty, OLD_VERSION)
    _install(empty, this)
    before = _write(empty, fleet.backends_yaml())

    empty.apt("remove", "kube-nginx-agent")
    assert _state(empty) == before
    empty.apt("purge", "kube-nginx-agent")

    assert not empty.machine.succeeds("test", "-e", "/etc/kube-nginx")


def test_purge_leaves_what_else_the_administrator_put_there(empty: Node, this: str) -> None:
    _install(empty, this)
    empty.shell("touch /etc/kube-nginx/ca.crt /etc/kube-nginx/backends.yaml~")

    empty.apt("purge", "kube-nginx-agent")

    assert empty.output("ls", "-A", "/etc/kube-nginx") == "ca.crt"


@pytest.mark.parametrize("way", ["reboot", "reinstall", "upgrade"])
def test_deleted_list_is_not_replaced_by_an_empty_one(
    empty: Node, this: str, fleet: Fleet, way: str
) -> None:
    _install(empty, this)
    empty.configure_and_wait(fleet.backends_yaml())
    empty.shell(f"rm {LIST}")

    if way == "reboot":
        empty.machine.reboot()
    elif way == "reinstall":
        _install(empty, this, "--reinstall")
    else:
        _install(empty, NEWER)

    assert not empty.machine.succeeds("test", "-e", LIST)
    empty.wait_for_answer()
