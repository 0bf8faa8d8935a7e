"""What somebody does who has taken over a worker of nginx; run with just the rights of its unit.

Prints, as JSON, what each try came to: "done", or the reason why not.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Callable

_PTRACE_SEIZE = 0x4206
_PIDFD_GETFD = 438
_LIBC = ctypes.CDLL(None, use_errno=True)

_VICTIMS = {"agent": sys.argv[1], "other": sys.argv[2]}
"""PID:ADDRESS of the agent, and of a process of the same user that is not sealed."""


class _Span(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _call(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def copy_memory(pid: int, address: int, name: str) -> None:
    buffer = ctypes.create_string_buffer(8)
    here = _Span(ctypes.addressof(buffer), 8)
    there = _Span(address, 8)
    _call(getattr(_LIBC, name)(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0))


def open_memory(pid: int, address: int) -> None:
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(address)
        content = memory.read(8)
        memory.seek(address)
        memory.write(content)


def trace(pid: int) -> None:
    _call(_LIBC.ptrace(_PTRACE_SEIZE, pid, None, None))


def take_descriptor(pid: int) -> None:
    _call(_LIBC.syscall(_PIDFD_GETFD, os.pidfd_open(pid), 0, 0))


def through_its_root(pid: int) -> None:
    Path(f"/proc/{pid}/root/var/lib/kube-nginx/planted").write_text("x")


def alter(file: str) -> None:
    with open(file, "r+b") as opened:
        opened.write(opened.read())


def plant(folder: str) -> None:
    Path(folder, "planted").write_text("x")


def ask_helper() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as helper:
        helper.connect("/run/kube-nginx-cut.sock")


def replace_helper() -> None:
    Path("/run/kube-nginx-cut.sock").unlink()


def move_away(folder: str) -> None:
    Path(folder).rename(f"{folder}.away")


def tries() -> dict[str, Callable[[], None]]:
    found: dict[str, Callable[[], None]] = {}
    for who, victim in _VICTIMS.items():
        pid, address = int(victim.partition(":")[0]), int(victim.partition(":")[2], 16)
        found[f"open memory of {who}"] = partial(open_memory, pid, address)
        found[f"read memory of {who}"] = partial(copy_memory, pid, address, "process_vm_readv")
        found[f"write memory of {who}"] = partial(copy_memory, pid, address, "process_vm_writev")
        found[f"trace {who}"] = partial(trace, pid)
        found[f"take a descriptor of {who}"] = partial(take_descriptor, pid)
        found[f"write through the root of {who}"] = partial(through_its_root, pid)
    for file in (
        "/run/kube-nginx/status.json",
        "/run/kube-nginx-agent/status.json",
        "/run/kube-nginx-agent/private/agent.lock",
        "/run/kube-nginx/agent.lock",
        "/var/lib/kube-nginx/kube-nginx.conf",
        "/var/lib/kube-nginx/accepted-backends.yaml",
        "/etc/kube-nginx/backends.yaml",
        "/usr/libexec/kube-nginx/nginx",
    ):
        found[f"alter {file}"] = partial(alter, file)
    for folder in (
        "/run/kube-nginx-agent",
        "/run/kube-nginx-agent/private",
        "/var/lib/kube-nginx",
        "/etc/kube-nginx",
        "/run",
        "/run/lock",
        "/run/systemd",
    ):
        found[f"plant in {folder}"] = partial(plant, folder)
    found["move the agent's folder away"] = partial(move_away, "/run/kube-nginx-agent")
    found["ask the helper"] = ask_helper
    found["remove the helper's socket"] = replace_helper
    return found


def main() -> None:
    outcomes = {}
    for name, attempt in tries().items():
        try:
            attempt()
        except OSError as error:
            outcomes[name] = errno.errorcode.get(error.errno or 0, str(error))
        else:
            outcomes[name] = "done"
    print(json.dumps(outcomes), flush=True)


if __name__ == "__main__":
    main()
