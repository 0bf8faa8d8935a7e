"""Workers whose master was killed: they go on serving, and keep a new master from starting."""

from __future__ import annotations

import signal
from pathlib import Path

from kube_nginx_agent.nginx.process import (
    Process,
    identify,
    is_worker,
    parent_of,
    processes_holding,
    runs,
    signal_if_there,
)
from kube_nginx_agent.node.files import number_of, read_proc
from kube_nginx_agent.node.waiting import wait_until

_ACCEPTING = "00010000"  # proc(5), /proc/net/unix: the flag __SO_ACCEPTCON of a listening socket
_GRACE = 1.0  # seconds; a worker that runs at all closes its listening sockets in milliseconds


def find_orphans(generation_socket: Path, binary: Path) -> list[Process]:
    """Return the workers without a master that listen on *our* generation socket.

    The socket tells our workers from those of any other nginx, also after its file is gone.
    """
    inodes = _listening_inodes(generation_socket)
    orphans = []
    for pid in processes_holding(inodes) if inodes else ():
        parent = parent_of(pid)
        if runs(pid, binary) and is_worker(pid) and not (parent and runs(parent, binary)):
            process = identify(pid)
            if process:
                orphans.append(process)
    return orphans


def retire_orphans(generation_socket: Path, binary: Path) -> list[Process]:
    """Make orphans stop listening, so that a new master can; return those that there were.

    SIGQUIT is a graceful end for a worker too: it closes its listening sockets and keeps its
    sessions to their end. One that is hung and can't react is killed.
    """
    orphans = find_orphans(generation_socket, binary)
    for orphan in orphans:
        signal_if_there(orphan, signal.SIGQUIT)
    if not wait_until(lambda: not find_orphans(generation_socket, binary), _GRACE, poll=0.01):
        for orphan in find_orphans(generation_socket, binary):
            signal_if_there(orphan, signal.SIGKILL)
    return orphans


def _listening_inodes(path: Path) -> set[int]:
    """Return the inodes of the listening unix sockets of that name.

    Others' names may be any bytes, and so look like a line of their own.
    """
    found = set()
    for line in read_proc("/proc/self/net/unix").split("\n")[1:]:
        words = line.split(maxsplit=7)
        if len(words) == 8 and words[7] == str(path) and words[3] == _ACCEPTING:
            found.add(number_of(words[6]))
    return {inode for inode in found if inode is not None}
