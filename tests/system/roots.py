"""Debian roots to boot: made once by mmdebstrap from the mirror that this machine's apt uses."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

RELEASES = ("bookworm", "trixie")

_PACKAGES = (
    "systemd-sysv",
    "iproute2",
    "procps",
    # What the package depends on: the booted machine has no network to get it from.
    "python3",
    "python3-psutil",
    "python3-requests",
    "python3-sdnotify",
    "python3-systemd",
    "python3-watchdog",
    "python3-yaml",
)
_APT_SETTINGS = ("Acquire::Check-", "Acquire::http", "Acquire::https", "Acquire::Retries")
_FORM = "2"
"""To be counted up when a root is made in another way."""
_KEPT_FOR = 30 * 24 * 3600


def cache_folder() -> Path:
    """Return where roots are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kube-nginx-agent" / "roots"


def get_root(release: str, *more: str) -> Path:
    """Return the root of a Debian release, made now if there is none; not to be written to.

    ``more`` are packages beyond what every machine has.
    """
    packages = (*_PACKAGES, *more)
    key = hashlib.sha256(repr((_FORM, release, packages)).encode()).hexdigest()[:12]
    root = cache_folder() / f"{release}-{platform.machine()}-{key}"
    root.parent.mkdir(parents=True, exist_ok=True)
    with _locked(root.with_suffix(".lock")):
        if not root.exists():
            _forget_unused(root.parent)
            _make(release, packages, root)
    return root


def _forget_unused(folder: Path) -> None:
    """Remove the roots that were not asked for in a month: taking the lock sets its time."""
    for lock in folder.glob("*.lock"):
        if lock.stat().st_mtime < time.time() - _KEPT_FOR:
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink()


def _make(release: str, packages: tuple[str, ...], root: Path) -> None:
    part = root.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"]
    command += [f"--include={','.join(packages)}"]
    command += [f"--aptopt={setting}" for setting in _apt_settings()]
    # Empty, not missing: an id of its own for each machine, and no first-boot questions.
    command += ["--customize-hook=rm -f $1/etc/hostname; : >$1/etc/machine-id"]
    subprocess.run([*command, release, str(part), _mirror()], check=True)
    part.rename(root)


def _mirror() -> str:
    """Return the Debian archive that this machine installs from."""
    form = "$(ORIGIN) $(LABEL) $(REPO_URI)"
    targets = _output("apt-get", "indextargets", "--format", form, "Created-By: Packages")
    for line in targets.splitlines():
        origin, label, uri = line.split(" ", 2)
        if (origin, label) == ("Debian", "Debian"):
            return uri
    raise RuntimeError("apt knows no Debian archive here; run `apt-get update` on a Debian system")


def _apt_settings() -> list[str]:
    """Return what this machine's apt is told about its mirror: proxies, snapshots of old dates."""
    settings = _output("apt-config", "dump", "--no-empty", "--format", '%F "%v";%n')
    return [line for line in settings.splitlines() if line.startswith(_APT_SETTINGS)]


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
