"""A booted Debian of each release, with and without the package, apiservers beside it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Iterator

import pytest

from system.healing import wait_until_well
from system.machine import Machine
from system.network import Fleet
from system.node import Node
from system.packages import build_debs, build_newer_debs, build_old_debs, signed_repository
from system.roots import RELEASES, cache_folder, get_root

_HERE = Path(__file__).parent
_NEEDS_ROOT = "boots real Debian systems: run as root"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder; without root it is skipped, with a line that says so."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.system)
            if os.geteuid():
                item.add_marker(pytest.mark.skip(reason=_NEEDS_ROOT))


@pytest.fixture(params=RELEASES, scope="session")
def release(request: pytest.FixtureRequest) -> str:
    """Run the test on each Debian release."""
    return str(request.param)


@pytest.fixture(scope="session")
def root(release: str) -> Path:
    """A root of the release, not to be written to."""
    for tool in ("mmdebstrap", "systemd-nspawn", "unshare", "nsenter", "ip"):
        assert shutil.which(tool), f"{tool} is missing; `packaging/setup test` installs it"
    return get_root(release)


@pytest.fixture(scope="session")
def repository() -> Iterator[Path]:
    """The package under test, in a signed apt repository."""
    with signed_repository(build_debs()) as folder:
        yield folder


@pytest.fixture(scope="session")
def newer_repository() -> Iterator[Path]:
    """A later version of it, with another nginx binary."""
    with signed_repository(build_newer_debs()) as folder:
        yield folder


@pytest.fixture(scope="session")
def history() -> Iterator[Path]:
    """A repository in which three versions were published, one after the other."""
    with signed_repository(build_old_debs(), build_debs(), build_newer_debs()) as folder:
        yield folder


@pytest.fixture
def machine(root: Path, repository: Path, newer_repository: Path) -> Iterator[Machine]:
    """A booted machine without the package."""
    binds = {repository: "/srv/apt", newer_repository: "/srv/newer"}
    with Machine(root, "node", binds) as machine:
        yield machine


@pytest.fixture
def node(machine: Machine) -> Node:
    """A booted machine with the package, as ``apt install`` leaves it."""
    node = Node(machine)
    node.install()
    return node


@pytest.fixture
def fleet(machine: Machine) -> Iterator[Fleet]:
    """Three apiservers that the machine can reach."""
    certs = cache_folder().parent / "certs"
    certs.mkdir(parents=True, exist_ok=True)
    with Fleet(machine, certs) as fleet:
        yield fleet


@pytest.fixture(scope="session")
def machine_of_healing(repository: Path) -> Iterator[Machine]:
    """The machine of the tests of self-healing that this process runs, one after the other."""
    with Machine(get_root("trixie"), "healing", {repository: "/srv/apt"}) as machine:
        yield machine


@pytest.fixture(scope="session")
def fleet_of_healing(machine_of_healing: Machine) -> Iterator[Fleet]:
    """Its apiservers."""
    certs = cache_folder().parent / "certs"
    certs.mkdir(parents=True, exist_ok=True)
    with Fleet(machine_of_healing, certs) as fleet:
        yield fleet


@pytest.fixture(scope="session")
def node_of_healing(machine_of_healing: Machine) -> Node:
    """The machine with the package."""
    node = Node(machine_of_healing)
    node.install()
    return node


@pytest.fixture
def healing(
    node_of_healing: Node, fleet_of_healing: Fleet, request: pytest.FixtureRequest
) -> Iterator[Node]:
    """The node, well, and well again after the test; a failed test shows what it said."""
    failed = request.session.testsfailed
    node_of_healing.configure_and_wait(fleet_of_healing.backends_yaml())
    wait_until_well(node_of_healing)
    since = time.time()
    yield node_of_healing
    if request.session.testsfailed > failed:
        print(node_of_healing.machine.journal(f"--since=@{since:.3f}"))
