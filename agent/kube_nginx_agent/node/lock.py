"""One agent on one run folder: a lock that the kernel drops however its holder ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from kube_nginx_agent.errors import AgentError

_PATIENCE = 1.0  # seconds; `kube-nginx-agent status` holds it for an instant


def take_lock(file: Path) -> int:
    """Take the lock until this process ends, and return its descriptor.

    Raise AgentError when another agent has it.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise AgentError(
            f"it can't be written: {error.strerror}",
            where=str(file),
            hint="run as the user that owns the folder, or choose another --run-dir",
        ) from error
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
                raise AgentError(
                    f"another agent (pid {holder}) works on this folder",
                    where=str(file.parent),
                    hint="stop it first, or choose another --run-dir and --state-dir",
                ) from error
            time.sleep(0.02)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
    return descriptor
