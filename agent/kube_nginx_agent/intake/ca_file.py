"""The CA file that a list names: read as it is now, and whether waiting could make it usable."""

from __future__ import annotations

import errno
import ssl
from pathlib import Path

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.net.tls import NoAuthorityError, trust_only
from kube_nginx_agent.node.files import FileError, read_bytes

_LARGEST = 1024 * 1024
"""Bytes; a bundle of all public authorities has 220 KB."""

_NO_FILE = {errno.EINVAL, errno.EISDIR, errno.ENXIO}
"""What is no regular file: a pipe or device, a folder, a socket."""

UNCHECKED = "none"
"""What stands for a CA file where certificates are not to be checked."""


def load_ca(path: Path) -> ssl.SSLContext:
    """Return what accepts its certificates. Raise FileError, NoAuthorityError."""
    return trust_only(read_bytes(path, _LARGEST), str(path))


def refusal(ca_file: str | None) -> AgentError | None:
    """Return why a list that names this file is to be refused; None: it is usable, or may become.

    A missing file may come, a closed one be opened (kubeadm brings its CA after the package): with
    these the list is taken, and what is wrong is told. A folder, a pipe, a device, or a text that
    is no certificate is a mistake in the list.
    """
    if ca_file is None or ca_file == UNCHECKED:
        return None
    try:
        load_ca(Path(ca_file))
    except NoAuthorityError as error:
        return error
    except FileError as error:
        return error if error.errno in _NO_FILE else None
    return None
