"""How the packages are built: options, symbols, another architecture, the unit tests."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from system.machine import wait_until
from system.packages import HERE, build_debs

NGINX = "usr/libexec/kube-nginx/nginx"
_HOUSE = Path("/usr/aarch64-linux-gnu")

_ANSWERS = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ }}
stream {{
    server {{ listen unix:{folder}/answer.sock; return "from arm64"; }}
}}
"""


def _build(out: Path, tree: Path = HERE, kind: str = "deb", **settings: str) -> str:
    done = subprocess.run(
        [str(tree / "packaging" / kind / "build"), str(out)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout.strip()


def _unpack(deb: Path, folder: Path) -> Path:
    subprocess.run(["dpkg-deb", "--extract", str(deb), str(folder)], check=True)
    return folder


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def test_symbols_are_in_a_package_of_their_own(tmp_path: Path) -> None:
    debs = build_debs()
    nginx = _unpack(next(debs.glob("kube-nginx-agent_*.deb")), tmp_path / "deb") / NGINX
    symbols = _unpack(next(debs.glob("kube-nginx-agent-dbgsym_*.deb")), tmp_path / "dbgsym")

    build_id = re.search(r"Build ID: (\w\w)(\w+)", _said("readelf", "--notes", str(nginx)))

    assert build_id
    assert ".symtab" not in _said("readelf", "--sections", "--wide", str(nginx))
    assert (symbols / f"usr/lib/debug/.build-id/{build_id[1]}/{build_id[2]}.debug").exists()


def test_options_of_the_builder_are_honoured(tmp_path: Path) -> None:
    _build(tmp_path / "dist", DEB_BUILD_OPTIONS="nocheck nostrip noopt")

    (deb,) = (tmp_path / "dist").glob("*.deb")
    nginx = _unpack(deb, tmp_path / "deb") / NGINX
    assert ".symtab" in _said("readelf", "--sections", "--wide", str(nginx))
    flags = re.findall(r"-O\d|-D_FORTIFY_SOURCE", _said(str(nginx), "-V"))
    assert flags[-1] == "-O0", flags


@pytest.mark.skipif(platform.machine() != "x86_64", reason="it is built across from amd64")
def test_package_for_arm64_is_built_here_and_its_nginx_serves(tmp_path: Path) -> None:
    deb = Path(_build(tmp_path / "dist", ARCH="arm64"))

    assert deb.name.endswith("_arm64.deb")
    assert _said("dpkg-deb", "--field", str(deb), "Architecture").strip() == "arm64"
    assert ":arm64" not in _said("dpkg-deb", "--field", str(deb), "Depends")
    nginx = _unpack(deb, tmp_path / "deb") / NGINX
    config, answer = tmp_path / "nginx.conf", tmp_path / "answer.sock"
    config.write_text(_ANSWERS.format(folder=tmp_path))
    qemu = ["qemu-aarch64-static", "-L", str(_HOUSE), str(nginx), "-c", str(config)]
    with subprocess.Popen(qemu, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: answer.exists() or process.poll() is not None, 20, "nginx")
            assert process.poll() is None, process.stderr and process.stderr.read()
            script = "import socket,sys;s=socket.socket(1);s.connect(sys.argv[1]);print(s.recv(99))"
            assert "from arm64" in _said("/usr/bin/python3", "-c", script, str(answer))
        finally:
            process.terminate()


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_unit_test_that_fails_stops_the_build(tmp_path: Path, kind: str) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(HERE, tree, symlinks=True, ignore=shutil.ignore_patterns(".git", "dist"))
    (tree / "tests/unit/test_aaa.py").write_text(
        "def test_that_fails() -> None:\n    assert 'seen by the builder' == ''\n"
    )

    with pytest.raises(RuntimeError, match="seen by the builder"):
        _build(tmp_path / "dist", tree, kind)
