"""The packages under test: built once for each state of the tree, served by a repository."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, Tuple

import pytest

HERE = Path(__file__).resolve().parents[2]

NEWER_VERSION = "99.0"
"""The version of the upgrade; its nginx differs in the words of ``nginx -V``."""

OLD_VERSION = "0.1.0-1"
"""The last version whose backends.yaml dpkg and rpm knew as a file of the package."""

_OLD_COMMIT = "7a0ecfc"
_NOT_PACKAGED = ("benchmarks", "dist", "tests")
_KEPT = 16
_KEY = "system tests <system-tests@packages.invalid>"


def build_debs() -> Path:
    """Return a folder with the packages of this tree."""
    return _build("deb", HERE)


def build_newer_debs() -> Path:
    """Return a folder with the packages of a later version of this tree, nginx's included."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        _unpack(HERE, tree)
        _replace(
            tree / "agent/kube_nginx_agent/__init__.py",
            f'__version__ = "{_version()}"',
            f'__version__ = "{NEWER_VERSION}"',
        )
        _replace(tree / "debian/changelog", f"({_version()}-1)", f"({NEWER_VERSION}-1)")
        _replace(
            tree / "packaging/nginx/build", "--build=kube-nginx-agent", "--build=kube-nginx-newer"
        )
        return _build("deb", tree)


def build_old_debs() -> Path:
    """Return a folder with the packages of OLD_VERSION, as they were built then."""
    return _build_old("deb")


def build_old_rpms() -> Path:
    """Return a folder with the rpms of OLD_VERSION."""
    return _build_old("rpm")


def build_rpms(carried: str = "") -> Path:
    """Return a folder with the rpms of this tree, built with Debian's rpmbuild.

    ``carried`` names the Python package that they bring along.
    """
    return _build("rpm", HERE, carried)


@contextmanager
def signed_repository(*folders: Path) -> Iterator[Path]:
    """Make an apt repository, signed with a key that exists for this only.

    The packages of each folder are published one after the other.
    """
    with tempfile.TemporaryDirectory(prefix="repository-") as folder:
        repository = Path(folder, "apt")
        with signing_key() as (key, environment):
            build = HERE / "packaging/apt/build"
            for debs in folders:
                _run(str(build), key, str(debs), str(repository), environment=environment)
        yield repository


@contextmanager
def signing_key() -> Iterator[Tuple[str, Dict[str, str]]]:
    """Make a key; yield its name, and the environment in which gpg knows it."""
    with tempfile.TemporaryDirectory(prefix="gnupg-") as keyring:
        environment = {**os.environ, "GNUPGHOME": keyring}
        make_key = ["--passphrase", "", "--quick-generate-key", _KEY, "ed25519", "sign", "never"]
        try:
            subprocess.run(["gpg", "--batch", "--quiet", *make_key], check=True, env=environment)
            yield _KEY, environment
        finally:
            subprocess.run(["gpgconf", "--kill", "all"], check=False, env=environment)


def _build_old(kind: str) -> Path:
    with tempfile.TemporaryDirectory() as folder:
        archive, tree = Path(folder, "tree.tar"), Path(folder, "tree")
        tree.mkdir()
        if not (HERE / ".git").exists():
            pytest.skip(f"{OLD_VERSION} is built from git's history, and this tree has none")
        _run("git", "-C", str(HERE), "archive", f"--output={archive}", _OLD_COMMIT)
        _run("tar", "--extract", f"--file={archive}", f"--directory={tree}")
        return _build(kind, tree)


def _build(kind: str, tree: Path, carried: str = "") -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "kube-nginx-agent" / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = folder / f"{kind}{carried}-{_state_of(tree)}"
        if not built.exists():
            _forget_all_but_the_latest(folder)
            with tempfile.TemporaryDirectory(dir=folder) as part:
                # The unit tests have a run of their own.
                skipped = {"DEB_BUILD_OPTIONS": "nocheck", "RPM_NOCHECK": "1"}
                environment = {**os.environ, **skipped, "CARRY": carried}
                _run(str(tree / "packaging" / kind / "build"), part, environment=environment)
                shutil.copytree(part, built)
        built.touch()
    return built


def _state_of(tree: Path) -> str:
    """Hash all of a tree but what no package is made of: what is new is taken to count."""
    digest = hashlib.sha256()
    for file in sorted(_packaged_files(tree)):
        digest.update(f"{file.relative_to(tree)}\0{file.stat().st_mode & 0o111}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _packaged_files(tree: Path) -> Iterator[Path]:
    for top in tree.iterdir():
        if top.name not in _NOT_PACKAGED and not top.name.startswith("."):
            for file in [top, *top.rglob("*")]:
                if file.is_file() and file.suffix != ".pyc":
                    yield file


def _forget_all_but_the_latest(folder: Path) -> None:
    built = sorted(folder.glob("*-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in built[_KEPT:]:
        shutil.rmtree(old)


def _unpack(tree: Path, target: Path) -> None:
    archive = target / "tree.tar.xz"
    _run(str(tree / "packaging/tarball"), str(archive))
    _run("tar", "--extract", f"--file={archive}", f"--directory={target}", "--strip-components=1")
    archive.unlink()


def _version() -> str:
    text = (HERE / "agent/kube_nginx_agent/__init__.py").read_text(encoding="utf-8")
    return text.partition('__version__ = "')[2].partition('"')[0]


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{file} has no {old}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def _run(*command: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
