"""The nginx that the project builds: small, hardened, with what the job needs and no more."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from kube_nginx_agent.nginx.binary import Nginx, NginxError

PACKAGING = Path(__file__).resolve().parents[2] / "packaging" / "nginx"

DIRECTIVES_WANTED = {
    "stream": "stream {{ }}",
    "proxy": "stream {{ server {{ listen unix:{folder}/s; proxy_pass 127.0.0.1:1; }} }}",
    "return": 'stream {{ server {{ listen unix:{folder}/s; return "x"; }} }}',
    "zone": "stream {{ upstream u {{ zone u 64k; server 127.0.0.1:1; }} }}",
    "hash": "stream {{ upstream u {{ hash x consistent; server 127.0.0.1:1; }} }}",
    "least_conn": "stream {{ upstream u {{ least_conn; server 127.0.0.1:1; }} }}",
    "random": "stream {{ upstream u {{ random two least_conn; server 127.0.0.1:1; }} }}",
    "log": "stream {{ log_format f x; }}",
}

DIRECTIVES_UNWANTED = {
    "http": "http {{ }}",
    "mail": "mail {{ }}",
    "ssl": "stream {{ ssl_certificate x; }}",
    "ssl_preread": "stream {{ ssl_preread on; }}",
    "realip": "stream {{ set_real_ip_from 127.0.0.1; }}",
    "access": "stream {{ allow all; }}",
    "geo": "stream {{ geo $x {{ }} }}",
    "limit_conn": "stream {{ limit_conn_zone x zone=x:1m; }}",
    "map": "stream {{ map x $x {{ }} }}",
    "pass": "stream {{ server {{ listen unix:{folder}/s; pass 127.0.0.1:1; }} }}",
    "set": "stream {{ server {{ listen unix:{folder}/s; set $x x; }} }}",
    "split_clients": "stream {{ split_clients x $x {{ }} }}",
    "thread_pool": "thread_pool x threads=1;",
}

FEATURES = {
    "--with-stream",
    "--without-http",
    "--without-pcre",
    "--without-select_module",
    "--without-poll_module",
    *(
        f"--without-stream_{module}_module"
        for module in ("access", "geo", "limit_conn", "map", "pass", "set", "split_clients")
    ),
}


def output(*command: object) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        list(map(str, command)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return done.stdout


def pinned(name: str) -> str:
    found = re.search(rf"^{name}=(.+)$", (PACKAGING / "source").read_text(), re.MULTILINE)
    assert found
    return found[1]


# What it is


def test_it_says_its_version_and_who_built_it(nginx_binary: Path) -> None:
    version = f"nginx version: nginx/{pinned('NGINX_VERSION')} (kube-nginx-agent)"

    assert output(nginx_binary, "-V").splitlines()[0] == version


def test_pinned_version_is_recent() -> None:
    assert tuple(map(int, pinned("NGINX_VERSION").split("."))) >= (1, 26, 3)


def test_it_is_configured_with_the_wanted_features_alone(nginx_binary: Path) -> None:
    words = output(nginx_binary, "-V").split()

    assert {word for word in words if re.match("--with(out)?-(?!cc-opt|ld-opt)", word)} == FEATURES


def refusal(nginx_binary: Path, folder: Path, directive: str) -> str:
    """Return why `nginx -t` refuses a config with this directive; empty if it does not."""
    config = folder / "nginx.conf"
    text = directive.format(folder=folder)
    config.write_text(f"pid {folder}/pid;\nerror_log stderr;\nevents {{ }}\n{text}\n")
    try:
        Nginx(nginx_binary).test(config)
    except NginxError as error:
        return error.what
    return ""


@pytest.mark.parametrize("directive", DIRECTIVES_WANTED.values(), ids=DIRECTIVES_WANTED)
def test_it_knows_what_the_job_needs(nginx_binary: Path, folder: Path, directive: str) -> None:
    assert refusal(nginx_binary, folder, directive) == ""


@pytest.mark.parametrize("directive", DIRECTIVES_UNWANTED.values(), ids=DIRECTIVES_UNWANTED)
def test_it_does_not_know_what_the_job_does_not_need(
    nginx_binary: Path, folder: Path, directive: str
) -> None:
    assert "unknown directive" in refusal(nginx_binary, folder, directive)


# How it is built


def test_it_needs_libc_alone(nginx_binary: Path) -> None:
    libraries = {
        line.split()[0].rpartition("/")[2] for line in output("ldd", nginx_binary).splitlines()
    }
    parts_of_libc = r"libc\.so\.6|ld-linux.*\.so\.\d|linux-vdso\.so\.1"

    assert "libc.so.6" in libraries
    assert [name for name in libraries if not re.fullmatch(parts_of_libc, name)] == []


def test_it_is_stripped_and_small(nginx_binary: Path) -> None:
    assert ".symtab" not in output("readelf", "-SW", nginx_binary)
    assert nginx_binary.stat().st_size < 600_000


def test_it_is_loaded_anywhere(nginx_binary: Path) -> None:
    assert re.search(r"Type:\s+DYN", output("readelf", "-hW", nginx_binary))
    assert re.search(r"FLAGS_1.*\bPIE\b", output("readelf", "-dW", nginx_binary))


def test_it_binds_every_symbol_at_the_start(nginx_binary: Path) -> None:
    assert re.search(r"\(FLAGS\).*BIND_NOW", output("readelf", "-dW", nginx_binary))


def test_its_relocations_are_read_only(nginx_binary: Path) -> None:
    assert "GNU_RELRO" in output("readelf", "-lW", nginx_binary)


def test_its_stack_holds_no_code(nginx_binary: Path) -> None:
    stack = re.search(r"GNU_STACK.*", output("readelf", "-lW", nginx_binary))

    assert stack
    assert "RWE" not in stack[0]


def test_its_stack_is_guarded(nginx_binary: Path) -> None:
    assert "__stack_chk_fail" in output("readelf", "--dyn-syms", "-W", nginx_binary)


def test_its_calls_of_libc_are_checked(nginx_binary: Path) -> None:
    symbols = output("readelf", "--dyn-syms", "-W", nginx_binary)

    assert re.search(r"__(memcpy|read|vsnprintf|pread64)_chk", symbols)


# Where it comes from


def packaging(script: str, *arguments: Path, tarball: Path | None = None) -> tuple[int, str]:
    """Run fetch or build; return the exit code and what it says to standard error."""
    environment = {**os.environ, "NGINX_TARBALL": str(tarball or "")}
    done = subprocess.run(
        [PACKAGING / script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    tarball = tmp_path / "nginx.tar.gz"
    tarball.write_bytes(b"not the release")
    return tarball


def test_named_tarball_with_a_wrong_checksum_is_refused(tmp_path: Path, wrong: Path) -> None:
    code, error = packaging("fetch", tmp_path / "cache", tarball=wrong)

    assert code == 1
    assert f"{wrong}: wrong checksum: expected sha256 {pinned('NGINX_SHA256')}" in error


def test_refused_tarball_is_not_kept(tmp_path: Path, wrong: Path) -> None:
    packaging("fetch", tmp_path / "cache", tarball=wrong)

    assert list((tmp_path / "cache").iterdir()) == []


def test_named_tarball_that_is_missing_is_an_error(tmp_path: Path) -> None:
    code, error = packaging("fetch", tmp_path / "cache", tarball=tmp_path / "missing")

    assert code == 1
    assert f"NGINX_TARBALL={tmp_path}/missing: no such file" in error


def test_build_refuses_a_tarball_with_a_wrong_checksum(tmp_path: Path, wrong: Path) -> None:
    code, error = packaging("build", wrong, tmp_path / "out")

    assert code == 1
    assert f"{wrong}: wrong checksum" in error


def test_build_refuses_a_missing_tarball(tmp_path: Path) -> None:
    code, error = packaging("build", tmp_path / "missing", tmp_path / "out")

    assert code == 1
    assert "missing" in error


def test_build_refuses_a_folder_with_other_sources(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()

    code, error = packaging("build", tmp_path / "source", tmp_path / "out")

    assert code == 1
    assert f"not the source of nginx {pinned('NGINX_VERSION')}" in error


def test_refused_build_leaves_no_binary(tmp_path: Path, wrong: Path) -> None:
    packaging("build", wrong, tmp_path / "out")

    assert list((tmp_path / "out").iterdir()) == []


# What is patched in it


@pytest.fixture(scope="module")
def tarball() -> Path:
    """Return the pinned release, which `make nginx` has left in the cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kube-nginx-agent"
    done = subprocess.run(
        [PACKAGING / "fetch", cache], stdout=subprocess.PIPE, text=True, timeout=300, check=True
    )
    return Path(done.stdout.strip())


HEADER = "Origin: the tests\nCVE: none, it is harmless\n"
HARMLESS = """\
--- a/src/core/nginx.c
+++ b/src/core/nginx.c
@@ -397,3 +397,3 @@
         ngx_write_stderr(
-            "Usage: nginx [-?hvVtTq] [-s signal] [-p prefix]" NGX_LINEFEED
+            "Usage: patched [-?hvVtTq] [-s signal] [-p prefix]" NGX_LINEFEED
             "             [-e filename] [-c filename] [-g directives]"
"""


def build_patched(tarball: Path, folder: Path, patch: str) -> subprocess.CompletedProcess[str]:
    patches, out = folder / "patches", folder / "out"
    patches.mkdir()
    (patches / "series").write_text("# a comment\n\nmend.patch\n")
    (patches / "mend.patch").write_text(patch)
    return subprocess.run(
        [PACKAGING / "build", tarball, out],
        env={**os.environ, "NGINX_PATCHES": str(patches), "CFLAGS": "-O0 -D_FORTIFY_SOURCE=0"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_patch_of_the_series_is_built_in(tarball: Path, tmp_path: Path) -> None:
    done = build_patched(tarball, tmp_path, HEADER + HARMLESS)

    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: patched" in output(tmp_path / "out/nginx", "-h")


@pytest.mark.parametrize(
    ("patch", "refusal"),
    [
        (HARMLESS, "no Origin: in its header"),
        (f"Origin: the tests\n{HARMLESS}", "no CVE: in its header"),
        (HEADER + HARMLESS.replace("nginx [", "old ["), "it does not fit nginx"),
    ],
    ids=["no origin", "no CVE", "of another version"],
)
def test_patch_that_is_not_as_it_must_be_is_refused(
    tarball: Path, tmp_path: Path, patch: str, refusal: str
) -> None:
    done = build_patched(tarball, tmp_path, patch)

    assert done.returncode == 1
    assert f"mend.patch: {refusal}" in done.stderr
    assert not (tmp_path / "out/nginx").exists()


def test_every_patch_of_ours_stands_in_the_series() -> None:
    lines = (PACKAGING / "patches/series").read_text().splitlines()
    named = {line for line in lines if line and not line.startswith("#")}

    assert {file.name for file in (PACKAGING / "patches").iterdir()} == {"series", *named}


# What it lacks


def outdated(folder: Path, versions: str, *, available: bool, update: int = 0) -> tuple[int, str]:
    """Run `outdated` with a pool that lists these versions; return its exit code and its words."""
    tools = {
        "apt-get": f"case $* in *' update'*) exit {update} ;; esac; exit {0 if available else 100}",
        "apt-cache": f"printf 'Version: %s\\n' {versions}",
    }
    for name, script in tools.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    done = subprocess.run(
        [PACKAGING / "outdated"],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def newer(name: str, step: int) -> str:
    major, minor, patch = map(int, pinned(name).split("."))
    return f"{major}.{minor + step}.{patch + 1}-1"


def test_pool_without_anything_newer_is_well(tmp_path: Path) -> None:
    ours, mainline = f"1.22.1-9 {pinned('NGINX_DEBIAN_REVIEWED')}", newer("NGINX_VERSION", 1)

    code, said = outdated(tmp_path, f"{ours} {mainline}", available=True)

    assert (code, said.splitlines()[-1]) == (0, "nothing newer is listed")


@pytest.mark.parametrize(
    ("available", "words"), [(True, "can be had"), (False, "listed, but can't be had")]
)
def test_newer_stable_release_is_told(tmp_path: Path, available: bool, words: str) -> None:
    version = newer("NGINX_REVIEWED", 0)

    code, said = outdated(tmp_path, version, available=available)

    assert code == 1
    assert said.splitlines()[-1] == f"{version}: newer, and not gone through; {words}"


def test_release_that_was_gone_through_is_told_all_the_same(tmp_path: Path) -> None:
    code, said = outdated(tmp_path, f"{pinned('NGINX_REVIEWED')}-1", available=True)

    assert code == 1
    assert said.splitlines()[-1].endswith("-1: newer; can be had")


def test_patches_of_debian_for_our_release_are_told(tmp_path: Path) -> None:
    version = f"{pinned('NGINX_DEBIAN_REVIEWED')}+deb13u1"

    code, said = outdated(tmp_path, version, available=False)

    assert code == 1
    assert said.splitlines()[-1] == f"{version}: patches for ours; listed, but can't be had"


@pytest.mark.parametrize(("versions", "update"), [("", 0), ("1.22.1-9", 100)])
def test_pool_that_can_not_be_asked_is_no_good_news(
    tmp_path: Path, versions: str, update: int
) -> None:
    code, said = outdated(tmp_path, versions, available=True, update=update)

    assert code == 2
    assert "the pool can't be asked" in said
