"""Whose certificates the readyz probe accepts: the cluster's CA, where one is known."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path
from typing import Iterable, Tuple

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.intake.ca_file import UNCHECKED, load_ca
from kube_nginx_agent.net.tls import trust_anybody
from kube_nginx_agent.node import files
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.problems import Problem

CLUSTER_CA = (Path("/etc/kubernetes/pki/ca.crt"), Path("/etc/kubernetes/ssl/ca.pem"))
"""Where kubeadm and the hand-made clusters keep the CA of the apiservers' certificates."""

_Version = Tuple[str, int, int, int, int]
_UNSEEN: _Version = ("", 0, 0, 0, 0)


class Trust:
    """Gives out the TLS context; the file is looked for again at each question.

    It may come after us, as kubeadm's does, and be rotated. While it is gone or unusable, the last
    good one goes on; before there was one, anybody is trusted, and ``problems`` says so.
    """

    def __init__(self, ca_file: str | None) -> None:
        """Take ``health_check.readyz.ca_file``; None stands for the cluster's usual places."""
        self._is_wanted = ca_file != UNCHECKED
        self._named = Path(ca_file) if ca_file and self._is_wanted else None
        self._lock = threading.Lock()
        self._version: _Version | None = None
        self._good: ssl.SSLContext | None = None
        self._error: AgentError | None = None
        self._is_absent = False

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection: another object whenever the CA has changed."""
        with self._lock:
            self._look()
            return self._good or trust_anybody()

    @property
    def is_blind(self) -> bool:
        """Tell whether nobody's certificate is checked, though none was named nor declined."""
        with self._lock:
            self._look()
            return self._is_absent and self._good is None

    def problems(self) -> Iterable[Problem]:
        """Return what keeps the file from being used; the absence of an unnamed one is none."""
        with self._lock:
            self._look()
            if self._error is None:
                return ()
            instead = "the one read before is used" if self._good else "no certificate is checked"
            what = f"{self._error.what}; {instead} meanwhile"
            error = AgentError(what, where=self._error.where, hint=self._error.hint)
            return (Problem("ca file", kinds.NO_CA, error, {}),)

    def _look(self) -> None:
        """Read the file if it is not the one that was read last."""
        if not self._is_wanted:
            return
        path = self._named or next((ca for ca in CLUSTER_CA if _may_be_there(ca)), None)
        self._is_absent = path is None
        version = _version_of(path) if path else _UNSEEN
        if version == self._version:
            return
        self._version, self._error = version, None
        if path is None:
            return
        try:
            self._good = load_ca(path)
        except AgentError as error:
            self._error = error


def _may_be_there(path: Path) -> bool:
    """Tell whether there is something, or we may not even look."""
    try:
        return files.status_of(path) is not None
    except files.FileError:
        return True


def _version_of(path: Path) -> _Version:
    """Return what differs after each change, that of the mode included (inode(7): ctime)."""
    try:
        status = files.status_of(path)
    except files.FileError as error:
        return (str(path), error.errno, 0, 0, 0)
    if status is None:
        return (str(path), 0, 0, 0, 0)
    return (str(path), status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
