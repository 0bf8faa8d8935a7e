"""What the kernel shows in /proc, in which strangers choose names: readers take any text."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Callable
from unittest import mock

from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.nginx import capacity, orphans, ports, process
from kube_nginx_agent.node import lock
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.sessions import cut_helper, ownership

_SOCKET = Paths().generation_socket
_PID = 4711
_OURS = process.Process(_PID, 1)

_READERS: tuple[tuple[ModuleType, Callable[[], object]], ...] = (
    (process, lambda: process.identify(_PID)),
    (process, lambda: process.parent_of(_PID)),
    (process, lambda: process.is_stopped(_OURS)),
    (process, lambda: process.turns_of(_OURS)),
    (process, lambda: process.is_master(_PID, Path("/usr/lib/kube-nginx/nginx"))),
    (process, lambda: process.workers(_OURS)),
    (process, lambda: process.is_retiring(_OURS)),
    (orphans, lambda: orphans._listening_inodes(_SOCKET)),
    (ports, lambda: [SocketAddress(ip, port) for ip, port, *_ in ports._listeners_of_proc()]),
    (capacity, lambda: capacity._files_limit(_PID)),
    (capacity, capacity._source_ports),
    (ownership, lambda: ownership.cgroup_id(_PID)),
    (cut_helper, lambda: cut_helper._cgroups(_PID)),
    (lock, lambda: lock.words_of_holder(Path("/nonexistent"))),
)


def proc_text() -> Callable[[bytes], None]:
    """Nothing that stands there is an error: what is not understood is left out.

    The first byte picks the reader. ``%P`` stands for the path of the generation socket.
    """

    def run(data: bytes) -> None:
        module, read = _READERS[data[0] % len(_READERS) if data else 0]
        text = os.fsdecode(data[1:]).replace("%P", str(_SOCKET))
        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(module, "read_proc", return_value=text))
            if module is lock:
                # The file's own words, and the kernel's, both of them any text.
                stack.enter_context(mock.patch.object(module, "read_text", return_value=text))
            if module is process:
                stack.enter_context(mock.patch.object(module, "is_there", return_value=True))
            read()

    return run
