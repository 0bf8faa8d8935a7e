"""Who holds a TCP address: ``nginx -t`` and the exit code of a reload are both silent about it."""

from __future__ import annotations

import errno
import ipaddress
import os
import pwd
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Container, Iterable

import psutil

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.model import IPAddress, SocketAddress
from kube_nginx_agent.nginx.process import Process, processes_holding, workers

_PROC = Path("/proc")
_LISTEN = "0A"  # proc(5), /proc/net/tcp: TCP_LISTEN of include/net/tcp_states.h


@dataclass(frozen=True)
class Holder:
    """A process that listens; ``pid`` is None when this user may not know."""

    user: str
    pid: int | None
    name: str

    def __str__(self) -> str:
        """Return words for an error message."""
        if self.pid is None:
            return f"a process of user {self.user}"
        return f"{self.name} (pid {self.pid}, user {self.user})"


class AddressHeldError(AgentError):
    """An address that nginx is to listen on can't be bound."""

    def __init__(self, address: SocketAddress, reason: str, holder: Holder | None) -> None:
        """Name the address and, if it is known, who has it."""
        what = f"it is held by {holder}" if holder else reason
        if holder and holder.pid is None:
            hint = f"`ss -ltnp 'sport = :{address.port}'` as root names it; end it or change listen"
        else:
            hint = "end that process or change listen"
        super().__init__(what, where=str(address), hint=hint)
        self.holder = holder


def check_free(address: SocketAddress, own: Container[int] = ()) -> None:
    """Raise AddressHeldError unless nginx, whose processes have the pids ``own``, can bind it.

    Binds the address for an instant as nginx would, without listening: no client can notice.
    """
    family = socket.AF_INET6 if address.ip.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # nginx's default
            probe.bind((str(address.ip), address.port))
    except OSError as error:
        holder = find_holder(address) if error.errno == errno.EADDRINUSE else None
        if holder and holder.pid in own:
            return
        reason = f"it can't be listened on: {os.strerror(error.errno or 0)}"
        raise AddressHeldError(address, reason, holder) from error


def check_listen(listen: Iterable[SocketAddress], master: Process | None) -> None:
    """Raise AddressHeldError unless the nginx of ``master`` has or can bind each address."""
    own = {master.pid, *(worker.process.pid for worker in workers(master))} if master else set()
    for address in listen:
        check_free(address, own)


def find_holder(address: SocketAddress) -> Holder | None:
    """Return who listens on the address, or on all addresses at its port."""
    for ip, port, uid, inode in _listeners():
        if port == address.port and (ip == address.ip or ip.is_unspecified):
            pid = next(processes_holding({inode}), None)
            return Holder(_user_name(uid), pid, _name_of(pid) if pid else "")
    return None


def _listeners() -> list[tuple[IPAddress, int, int, int]]:
    """Return (address, port, uid, inode) of every listening TCP socket of this network namespace.

    Read from proc(5), which shows the uid of sockets whose process can't be looked into.
    """
    found = []
    for table in ("tcp", "tcp6"):
        try:
            lines = (_PROC / "self" / "net" / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN:
                host, port = fields[1].split(":")
                found.append((_address(host), int(port, 16), int(fields[7]), int(fields[9])))
    return found


def _address(digits: str) -> IPAddress:
    """Read an address as the kernel prints it: 32-bit words in the byte order of the machine."""
    words = [bytes.fromhex(digits[i : i + 8]) for i in range(0, len(digits), 8)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    return ipaddress.ip_address(b"".join(words))


def _name_of(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "a process"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
