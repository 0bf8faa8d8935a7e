"""Whose certificates the readyz probe accepts: the cluster's CA, where one is known."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path
from typing import Iterable

from kube_nginx_agent.health.readyz import CLUSTER_CA, trust
from kube_nginx_agent.notices.problems import Problem


class Trust:
    """Gives out the TLS context; a CA file that was replaced is read again."""

    def __init__(self, ca_file: str | None) -> None:
        """Take the configured file; None stands for the cluster's usual places."""
        candidates = (Path(ca_file),) if ca_file else CLUSTER_CA
        self.file = next((path for path in candidates if path.exists()), None)
        """The CA file in use; None: anybody is trusted."""
        self._lock = threading.Lock()
        self._made: tuple[tuple[int, int], ssl.SSLContext] | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection; of a broken CA file the last good one."""
        with self._lock:
            version = self._version()
            if self._made is None or self._made[0] != version:
                self._made = (version, self._make())
            return self._made[1]

    def problems(self) -> Iterable[Problem]:
        """Yield what is wrong with the CA at present."""
        return ()

    def _make(self) -> ssl.SSLContext:
        try:
            return trust(self.file)
        except (OSError, ssl.SSLError):
            return self._made[1] if self._made else trust(None)

    def _version(self) -> tuple[int, int]:
        try:
            status = self.file.stat() if self.file else None
        except OSError:
            status = None
        return (status.st_ino, status.st_mtime_ns) if status else (0, 0)
