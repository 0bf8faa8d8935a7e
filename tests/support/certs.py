"""A certificate authority and server certificates for the stand-ins, made by the openssl command.

One folder serves any number of processes at once: a lock lets one of them work, a certificate that
is there is complete (it is renamed in last), and what is there is not made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Iterator

KINDS = ("good", "expired", "foreign")
NAMES = ("localhost", "kubernetes.default", "127.0.0.1", "::1")

# `openssl ca` and not `openssl x509`: only it can set both dates in OpenSSL 3.0 (Debian 12).
# Key identifiers and the critical key usage are what Python 3.13's strict verification asks for.
CONFIG = """\
[ca]
default_ca = here
[here]
database = index
new_certs_dir = .
serial = serial
default_md = sha256
policy = names
unique_subject = no
[names]
commonName = supplied
[req]
distinguished_name = empty
[empty]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
subjectAltName = {names}
"""


class CertsError(Exception):
    """The openssl command is missing or refused."""


@dataclass(frozen=True)
class Certs:
    """PEM files: the authority that clients trust, and what the server presents."""

    ca: Path
    cert: Path
    key: Path


def make_certs(folder: Path, addresses: Sequence[str] = (), *, kind: str = "good") -> Certs:
    """Make, or find, a server certificate for the usual local names and `addresses`.

    `expired` ended a year ago; `foreign` comes from another authority than the one returned as
    `ca`, so that verifying it fails. Good ones last ten years and began two days ago: tests move
    the clock.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
    names = sorted({*NAMES, *addresses})
    leaf = kind if names == sorted(NAMES) else f"{kind}-{_digest(names)}"
    authority = "foreign-ca" if kind == "foreign" else "ca"
    end = -365 if kind == "expired" else 3650
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        for name in {"ca", authority}:
            _make_missing(folder, name, signer=name, names=names, days=(-730, 3650))
        _make_missing(folder, leaf, signer=authority, names=names, days=(min(-2, end - 1), end))
    return Certs(folder / "ca.crt", folder / f"{leaf}.crt", folder / f"{leaf}.key")


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(names).encode()).hexdigest()[:8]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_missing(
    folder: Path, name: str, *, signer: str, names: Sequence[str], days: tuple[int, int]
) -> None:
    """Make NAME.key and NAME.crt, signed by `signer` (itself for an authority), if not there."""
    if (folder / f"{name}.crt").exists():
        return
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=folder))
    try:
        _sign(work, folder, name, signer, names, days)
        for made in (f"{name}.key", f"{name}.crt"):  # the certificate last: it says "complete"
            (work / made).replace(folder / made)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _sign(
    work: Path, folder: Path, name: str, signer: str, names: Sequence[str], days: tuple[int, int]
) -> None:
    own = signer == name
    (work / "config").write_text(CONFIG.format(names=", ".join(map(_alternative, names))))
    (work / "index").touch()
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    request = ["-keyout", f"{name}.key", "-out", "request", "-subj", f"/CN=test {name}"]
    _openssl(work, ["req", "-new", "-config", "config", *curve, *request])
    authority = ["-selfsign", "-keyfile", f"{name}.key"]
    if not own:
        paths = [str(folder.resolve() / f"{signer}.{suffix}") for suffix in ("crt", "key")]
        authority = ["-cert", paths[0], "-keyfile", paths[1]]
    start, end = (_date(day) for day in days)
    what = ["-extensions", "authority" if own else "server", "-startdate", start, "-enddate", end]
    out = ["-in", "request", "-out", f"{name}.crt"]
    ca = ["ca", "-batch", "-notext", "-rand_serial", "-config", "config"]
    _openssl(work, [*ca, *authority, *what, *out])


def _alternative(name: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def _date(days: int) -> str:
    return (datetime.now(timezone.utc) + timedelta(days=days)).strftime("%Y%m%d%H%M%SZ")


def _openssl(folder: Path, arguments: Sequence[str]) -> None:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["openssl", *arguments],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise CertsError("no openssl command: install the package openssl") from None
    if done.returncode:
        raise CertsError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
