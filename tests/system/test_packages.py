"""The packages as files: what checkers say of them, and whether two builds are the same."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from system.machine import CommandError, Machine
from system.node import Node
from system.packages import HERE, build_debs, build_rpms
from system.roots import get_root

# What one release's lintian says and the other's has no word for, so that no override fits both.
_EXPLAINED = (
    # Debian's nodes boot with systemd; elsewhere there is `kube-nginx-agent run --standalone`.
    "package-supports-alternative-init-but-no-init.d-script",
    # That of Debian 12 knows 4.6.2; Debian 13's calls that out of date.
    "newer-standards-version",
)
_LINTIAN = ("lintian", "--fail-on=none", "--allow-root", "--pedantic", "--display-info")


def test_lintian_has_no_complaint(release: str) -> None:
    debs = build_debs()
    with Machine(get_root(release, "lintian"), "lintian", {debs: "/srv/debs"}) as machine:
        changes = next(debs.glob("*.changes")).name

        found = machine.run(*_LINTIAN, f"/srv/debs/{changes}")

    said = found.stdout.splitlines()
    assert [line for line in said if not any(tag in line for tag in _EXPLAINED)] == []


def test_rpmlint_has_no_complaint() -> None:
    rpms = [str(rpm) for rpm in build_rpms().glob("*.rpm")]
    spec = str(HERE / "rpm/kube-nginx-agent.spec")
    config = str(HERE / "packaging/rpm/rpmlint.toml")

    found = subprocess.run(
        ["rpmlint", "--strict", "--config", config, *rpms, spec],
        capture_output=True,
        text=True,
        check=False,
    )

    assert found.returncode == 0, found.stdout


def test_build_in_another_folder_gives_the_same_debs(tmp_path: Path) -> None:
    tree = tmp_path / "elsewhere" / "source"
    shutil.copytree(HERE, tree, symlinks=True, ignore=_what_is_not_source)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    subprocess.run(
        [tree / "packaging/deb/build", tmp_path / "dist"],
        check=True,
        umask=0o077,
        env={**os.environ, "TMPDIR": str(scratch)},
    )

    first, second = (
        {deb.name: deb.read_bytes() for deb in folder.glob("*.deb")}
        for folder in (build_debs(), tmp_path / "dist")
    )
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_package_that_was_changed_on_the_way_is_not_installed(
    root: Path, repository: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "apt"
    shutil.copytree(repository, changed)
    for index in changed.glob("dists/stable/main/binary-*/**/*"):
        if index.is_file():
            index.write_bytes(index.read_bytes() + b"\n")

    with Machine(root, "tampered", {changed: "/srv/apt"}) as machine:
        with pytest.raises(CommandError):
            Node(machine).install()
        assert not machine.succeeds("dpkg", "--status", "kube-nginx-agent")


def _what_is_not_source(_folder: str, names: list[str]) -> set[str]:
    """Leave git out too: the build must not need it."""
    return {name for name in names if name in (".git", "dist") or name.endswith("cache__")}
