"""A booted Debian of each release, with and without the package, apiservers beside it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Iterator

import pytest

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
