"""debian/tests, as autopkgtest runs them, on booted systems with the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator

import pytest

from system.machine import Machine
from system.node import Node
from system.packages import HERE
from system.roots import get_root

CONTROL = (HERE / "debian/tests/control").read_text(encoding="utf-8")
TESTS = re.findall(r"^Tests: (.*)$", CONTROL, re.MULTILINE)
DEPENDS = set(re.findall(r"^Depends: (.*)$", CONTROL, re.MULTILINE))


@pytest.fixture
def machine(release: str, repository: Path) -> Iterator[Machine]:
    packages = {name for line in DEPENDS for name in line.split(", ")} - {"@"}
    root = get_root(release, *sorted(packages))
    with Machine(root, "autopkgtest", {repository: "/srv/apt", HERE: "/srv/source"}) as machine:
        yield machine


@pytest.mark.parametrize("name", TESTS)
def test_passes(node: Node, name: str) -> None:
    script = f"cd /srv/source; AUTOPKGTEST_TMP=$(mktemp -d) debian/tests/{name}"

    done = node.run("sh", "-euc", script, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
