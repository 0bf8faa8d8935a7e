"""A running nginx: find its master, know it again, signal it, list its workers.

A pid alone is not an identity: it is reused. A process is known by its pid *and* its start time,
and is signalled through a pidfd, so that a signal can't reach a stranger.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import psutil

from kube_nginx_agent.node.files import (
    is_there,
    link_target,
    number_of,
    open_files_of,
    read_proc,
    read_text,
)

# The titles: nginx's src/os/unix/ngx_process_cycle.c.
_MASTER_TITLE = "nginx: master process"
_WORKER_TITLE = "nginx: worker process"
_RETIRING_TITLE = "is shutting down"
# proc_pid_stat(5): fields 3, 4 and 22, counted from the end of the command name, field 2.
_STATE_FIELD, _PARENT_FIELD, _START_TIME_FIELD = 0, 1, 19


@dataclass(frozen=True)
class Process:
    """One process for good: its pid, and its start time in clock ticks since boot."""

    pid: int
    start_time: int

    def __str__(self) -> str:
        """Return the two numbers, as the lock file has them."""
        return f"{self.pid} {self.start_time}"


@dataclass(frozen=True)
class Worker:
    """A worker of nginx; ``retiring`` is one that serves its last sessions after a reload."""

    process: Process
    retiring: bool


class ProcessGoneError(Exception):
    """The process has ended, or its pid belongs to another one by now."""


def identify(pid: int) -> Process | None:
    """Return the process that has this pid now, or None; a zombie has ended."""
    fields = _stat(pid)
    if not fields or fields[_STATE_FIELD] in ("Z", "X"):
        return None
    start_time = number_of(fields[_START_TIME_FIELD])
    return None if start_time is None else Process(pid, start_time)


def is_alive(process: Process) -> bool:
    """Tell whether it is still running."""
    return identify(process.pid) == process


def is_stopped(process: Process) -> bool:
    """Tell whether it is halted, by SIGSTOP or a debugger."""
    fields = _stat(process.pid)
    return bool(fields) and fields[_STATE_FIELD] in ("T", "t") and is_alive(process)


def send_signal(process: Process, signum: signal.Signals) -> None:
    """Signal exactly this process.

    Raise ProcessGoneError when it has ended, PermissionError when it is somebody else's.
    """
    with _pidfd(process) as descriptor:
        try:
            signal.pidfd_send_signal(descriptor, signum)
        except ProcessLookupError as error:
            raise ProcessGoneError(process) from error


def wait_until_gone(process: Process, timeout: float | None = None) -> bool:
    """Wait up to ``timeout`` seconds (None: for ever) for its end; tell whether it has ended."""
    try:
        with _pidfd(process) as descriptor:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(None if timeout is None else timeout * 1000))
    except ProcessGoneError:
        return True


def find_master(pid_file: Path, binary: Path) -> Process | None:
    """Return the master whose pid stands in ``pid_file``, if it is really one of our ``binary``.

    The file may be empty (``nginx -t`` creates it so), stale, or by now name a stranger, which
    may be a worker.
    """
    try:
        process = identify(int(read_text(pid_file) or ""))
    except ValueError:
        return None
    return process if process and is_master(process.pid, binary) else None


def find_lost_master(config: Path, binary: Path) -> Process | None:
    """Return the master that was started with ``config``, found by its title: the pid file is gone.

    One without a worker is none: a worker has its master's title until it sets its own. Of two,
    while an upgrade drains, it is the younger.
    """
    titles = {pid: title_of(pid) for pid in psutil.pids()}
    found = (
        identify(pid)
        for pid, title in titles.items()
        if title.endswith(f" -c {config}") and is_master(pid, binary)
    )
    masters = [process for process in found if process and workers(process)]
    return max(masters, key=_started) if masters else None


def _started(process: Process) -> int:
    return process.start_time


def is_master(pid: int, binary: Path) -> bool:
    """Tell a master by its title, which also names the binary that somebody has moved away."""
    title = title_of(pid)
    if not title.startswith(_MASTER_TITLE):
        return False
    return runs(pid, binary) or title.startswith(f"{_MASTER_TITLE} {binary} ")


def runs(pid: int, binary: Path) -> bool:
    """Tell whether the process runs ``binary``, also when a newer file has taken its place."""
    executable = link_target(Path(f"/proc/{pid}/exe"))
    own = os.path.realpath(binary)
    return executable in (own, f"{own} (deleted)")


def workers(master: Process) -> list[Worker]:
    """Return the workers of ``master``, those that retire included."""
    found = []
    for pid in _children(master.pid):
        title, process = title_of(pid), identify(pid)
        if process and title.startswith(_WORKER_TITLE):
            found.append(Worker(process, _RETIRING_TITLE in title))
    return found


def serving(master: Process) -> frozenset[Process]:
    """Return the children that accept connections, or are about to.

    One that was just forked has its master's title yet; one without any title has ended.
    """
    found = (identify(pid) for pid in _children(master.pid) if _accepts(title_of(pid)))
    return frozenset(process for process in found if process)


def is_retiring(master: Process) -> bool:
    """Tell whether it was told to quit: it serves its last sessions and starts no worker again."""
    titles = [title for title in map(title_of, _children(master.pid)) if title]
    return bool(titles) and not any(map(_accepts, titles))


def is_worker(pid: int) -> bool:
    """Tell whether the process calls itself a worker of nginx."""
    return title_of(pid).startswith(_WORKER_TITLE)


def turns_of(process: Process) -> int:
    """Return how often it has gone to sleep and woken (proc_pid_status(5)); 0 when it has ended.

    A process that waits for events does so for each round of them; one that is stuck, or runs in
    circles, never does.
    """
    for line in read_proc(f"/proc/{process.pid}/status").splitlines():
        name, _, value = line.partition(":")
        if name == "voluntary_ctxt_switches":
            return number_of(value.strip()) or 0
    return 0


def title_of(pid: int) -> str:
    """Return the command line, which nginx replaces by a title; empty when there is none."""
    return read_proc(f"/proc/{pid}/cmdline").replace("\0", " ").strip()


def _accepts(title: str) -> bool:
    return bool(title) and _RETIRING_TITLE not in title


def parent_of(pid: int) -> int | None:
    """Return the pid of the parent, or None when the process has ended."""
    fields = _stat(pid)
    return number_of(fields[_PARENT_FIELD]) if fields else None


def processes_holding(inodes: set[int]) -> Iterator[int]:
    """Yield the pids that have one of these sockets open, as far as this user may look."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for pid in psutil.pids():
        if any(link in wanted for _, link in open_files_of(pid)):
            yield pid


def signal_if_there(process: Process, signum: signal.Signals) -> bool:
    """Signal a process that may have ended, or may not be ours to signal; tell if it was done."""
    try:
        send_signal(process, signum)
    except (ProcessGoneError, PermissionError):
        return False
    return True


def _children(pid: int) -> list[int]:
    """Return the pids of the children; without CONFIG_PROC_CHILDREN the slow way."""
    file = Path(f"/proc/{pid}/task/{pid}/children")
    if is_there(file):
        found = map(number_of, read_proc(file).split())
        return [child for child in found if child is not None]
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


def _stat(pid: int) -> list[str]:
    # The command name is in brackets and may hold brackets and spaces itself.
    fields = read_proc(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields if len(fields) > _START_TIME_FIELD else []


@contextmanager
def _pidfd(process: Process) -> Iterator[int]:
    """Open the process; its identity is checked after the open, so it can't change any more."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError as error:
        raise ProcessGoneError(process) from error
    try:
        if identify(process.pid) != process:
            raise ProcessGoneError(process)
        yield descriptor
    finally:
        os.close(descriptor)
