"""The apt repository: what it tells apt, what it keeps, and what it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from system.machine import Machine, wait_until
from system.node import Node
from system.packages import HERE, NEWER_VERSION, build_debs, build_newer_debs, signing_key

POOL = "pool/main/k/kube-nginx-agent"


class Publisher:
    """Somebody with a key and a folder to serve."""

    def __init__(self, key: str, environment: dict[str, str], folder: Path) -> None:
        self.folder = folder
        self._key = key
        self._environment = environment

    def publish(self, debs: Path, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(HERE / "packaging/apt/build"), self._key, str(debs), str(self.folder)],
            env={**self._environment, **settings},
            capture_output=True,
            text=True,
            check=False,
        )

    def index(self) -> str:
        return (self.folder / "dists/stable/InRelease").read_text(encoding="utf-8")

    def files(self) -> dict[str, bytes]:
        return {
            str(file.relative_to(self.folder)): file.read_bytes()
            for file in sorted(self.folder.rglob("*"))
            if file.is_file()
        }


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Publisher]:
    with signing_key() as (key, environment):
        yield Publisher(key, environment, tmp_path / "apt")


def _debs(folder: Path, *sources: Path) -> Path:
    folder.mkdir()
    for source in sources:
        for deb in source.glob("kube-nginx-agent_*.deb"):
            shutil.copy(deb, folder)
    return folder


def test_index_names_suite_and_end_and_strong_sums_alone(publisher: Publisher) -> None:
    assert publisher.publish(build_debs()).returncode == 0

    fields = dict(line.split(": ", 1) for line in publisher.index().splitlines() if ": " in line)
    assert fields["Suite"] == fields["Codename"] == "stable"
    assert fields["Origin"] == "kube-nginx-agent"
    assert fields["Acquire-By-Hash"] == "yes"
    assert fields["Valid-Until"].endswith(" +0000")
    assert "MD5Sum" not in publisher.index()
    assert "SHA1:" not in publisher.index()


def test_earlier_versions_stay_and_so_do_the_files_of_the_former_index(
    publisher: Publisher,
) -> None:
    publisher.publish(build_debs())
    former = {name for name in publisher.files() if "/by-hash/" in name}

    publisher.publish(build_newer_debs())

    names = publisher.files()
    assert len([name for name in names if name.startswith(f"{POOL}/kube-nginx-agent_")]) == 2
    now = {Path(name).name for name in names if name.startswith("dists/stable/")}
    # rglob does not follow the link, and the folder that it leads to is named after the time.
    now |= {Path(name).name for name in names if "/by-hash/" in name}
    assert {Path(name).name for name in former} <= now


def test_version_that_was_published_is_not_replaced(publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish(build_debs())
    before = publisher.files()
    changed = _debs(tmp_path / "changed", build_newer_debs(), build_debs())
    first = sorted(changed.glob("*_0*.deb"))[0]
    first.write_bytes(first.read_bytes() + b"\n")

    done = publisher.publish(changed)

    assert done.returncode == 1
    assert "raise the version" in done.stderr
    assert publisher.files() == before


def test_failure_on_the_way_changes_nothing_that_is_read(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.publish(build_debs())
    before = publisher.index()
    # A key that is listed, and can't sign.
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "gpg").write_text(
        '#!/bin/sh\ncase "$*" in *--clearsign*) exit 2 ;; esac\nexec /usr/bin/gpg "$@"\n'
    )
    (fake / "gpg").chmod(0o755)

    done = publisher.publish(build_newer_debs(), PATH=f"{fake}:{os.environ['PATH']}")

    assert done.returncode != 0
    assert publisher.index() == before
    assert [path.name for path in (publisher.folder / "dists").glob(".new*")] == []


def test_folder_with_something_else_in_it_is_left_alone(publisher: Publisher) -> None:
    publisher.folder.mkdir()
    (publisher.folder / "thesis.txt").write_text("four years of work")

    done = publisher.publish(build_debs())

    assert done.returncode == 1
    assert "no repository of this program" in done.stderr
    assert list(publisher.folder.iterdir()) == [publisher.folder / "thesis.txt"]


def test_old_version_can_be_installed_and_an_expired_index_is_refused(
    publisher: Publisher, root: Path
) -> None:
    publisher.publish(build_debs())
    publisher.publish(build_newer_debs())
    with Machine(root, "apt", {publisher.folder: "/srv/apt"}) as machine:
        node = Node(machine)
        node.use_repository("/srv/apt")
        lines = node.output("apt-cache", "madison", "kube-nginx-agent").splitlines()
        newest, oldest = (line.split("|")[1].strip() for line in lines)
        assert newest == f"{NEWER_VERSION}-1"

        node.apt("install", f"kube-nginx-agent={oldest}")
        assert node.version() == f"installed {oldest}"

        # The root may have been told not to look: its own archive can be a snapshot of an old day.
        checks = ("-o", "Acquire::Check-Date=true", "-o", "Acquire::Check-Valid-Until=true")
        update = ("apt-get", *checks, "update")
        assert node.machine.succeeds(*update)
        publisher.publish(build_debs(), VALID_DAYS="0")
        refused = wait_until(lambda: node.run(*update, check=False).stderr, 10, "it to expire")
        assert "is expired" in refused
