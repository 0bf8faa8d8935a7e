"""Who holds a TCP address: ``nginx -t`` and the exit code of a reload are both silent about it."""

from __future__ import annotations

import errno
import ipaddress
import os
import pwd
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Container, Iterable

import psutil

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.model import IPAddress, SocketAddress
from kube_nginx_agent.net.sock_diag import LISTEN, diag_socket, dump
from kube_nginx_agent.nginx.process import Process, processes_holding, workers
from kube_nginx_agent.node.files import read_proc

_LISTEN = "0A"  # proc(5), /proc/net/tcp: TCP_LISTEN of include/net/tcp_states.h


@dataclass(frozen=True)
class Holder:
    """A process that listens; ``pid`` is None when this user may not know."""

    user: str
    pid: int | None
    name: str
    uid: int = -1

    def __str__(self) -> str:
        """Return words for an error message."""
        if self.pid is None:
            return f"a process of user {self.user}"
        return f"{self.name} (pid {self.pid}, user {self.user})"


class AddressHeldError(AgentError):
    """An address that nginx is to listen on can't be bound."""

    def __init__(self, address: SocketAddress, number: int, holder: Holder | None) -> None:
        """Name the address, the errno of bind(2), and, if it is known, who has it."""
        reason = f"it can't be listened on: {os.strerror(number)}"
        what = f"it is held by {holder}" if holder else reason
        super().__init__(what, where=str(address), hint=_advice(address, number, holder))
        self.holder = holder


def _advice(address: SocketAddress, number: int, holder: Holder | None) -> str:
    if holder and holder.pid is None:
        return f"`ss -ltnp 'sport = :{address.port}'` as root names it; end it or change listen"
    if holder:
        return "end that process or change listen"
    if number == errno.EADDRNOTAVAIL:
        family = f"ipv{address.ip.version}"
        return (
            f"it joins as soon as the node has the address; with the sysctl "
            f"net.{family}.ip_nonlocal_bind=1 nginx listens before"
        )
    if number == errno.EACCES:
        return (
            "use a port from 1024 up, or lower the sysctl net.ipv4.ip_unprivileged_port_start to "
            f"{address.port}"
        )
    return "change listen"


class OwnAddressError(AgentError):
    """nginx has the port on another address, which keeps itself off this one."""

    def __init__(self, address: SocketAddress, held: SocketAddress) -> None:
        """Name both addresses: nginx binds the new one before it closes the old one."""
        super().__init__(
            f"nginx itself listens on {held} and can't pass from there to here in one step",
            where=str(address),
            hint="change listen to another port first, and then to this one",
        )


def check_free(address: SocketAddress, own: Container[int] = ()) -> None:
    """Raise AgentError unless nginx, whose processes have the pids ``own``, has it or can bind it.

    Binds the address for an instant as nginx would, without listening: no client can notice.
    """
    error = try_to_bind(address)
    if error:
        ip, holder = find_holder(address) if error.errno == errno.EADDRINUSE else (None, None)
        if ip and holder and holder.pid in own:
            if ip != address.ip:
                raise OwnAddressError(address, SocketAddress(ip, address.port)) from error
            return
        raise AddressHeldError(address, error.errno or 0, holder) from error


def try_to_bind(address: SocketAddress) -> OSError | None:
    """Bind the address for an instant, as nginx would, and return why that fails, if it does."""
    family = socket.AF_INET6 if address.ip.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # nginx's default
            probe.bind((str(address.ip), address.port))
    except OSError as error:
        return error
    return None


def check_listen(
    listen: Iterable[SocketAddress], master: Process | None, orphans: Iterable[Process] = ()
) -> None:
    """Raise AgentError unless the nginx of ``master`` has or can bind each address.

    Or will be able to, once the ``orphans`` of an earlier master have retired.
    """
    own = {orphan.pid for orphan in orphans}
    if master:
        own |= {master.pid, *(worker.process.pid for worker in workers(master))}
    for address in listen:
        check_free(address, own)


def find_holder(address: SocketAddress) -> tuple[IPAddress, Holder] | tuple[None, None]:
    """Return who listens where it keeps others off the address, after the IP that it listens on."""
    for ip, uid, inode in _listeners_on(address.port):
        if _keeps_off(ip, address.ip):
            pid = next(processes_holding({inode}), None)
            return ip, Holder(_user_name(uid), pid, _name_of(pid) if pid else "", uid)
    return None, None


def _keeps_off(held: IPAddress, wanted: IPAddress) -> bool:
    """Tell whether who has one keeps others off the other; who has all of IPv6 has IPv4 too."""
    if held.version != wanted.version:
        return held.version == 6 and held.is_unspecified
    return held == wanted or held.is_unspecified or wanted.is_unspecified


def _listeners_on(port: int) -> list[tuple[IPAddress, int, int]]:
    """Return (address, uid, inode) of everybody who listens on a port in this network namespace.

    Both ways show the uid of sockets whose process can't be looked into. For sock_diag the kernel
    walks the listeners only, for proc(5) its whole table.
    """
    try:
        with diag_socket() as diag:
            families = (socket.AF_INET, socket.AF_INET6)
            found = [e for f in families for e in dump(diag, f, [LISTEN], local_port=port)]
    except OSError:
        return [(ip, uid, inode) for ip, p, uid, inode in _listeners_of_proc() if p == port]
    return [(entry.local.ip, entry.uid, entry.inode) for entry in found]


def _listeners_of_proc() -> list[tuple[IPAddress, int, int, int]]:
    """Return (address, port, uid, inode) of everybody who listens, as proc(5) shows it."""
    found = []
    for table in ("tcp", "tcp6"):
        for line in read_proc(f"/proc/self/net/{table}").splitlines()[1:]:
            fields = line.split()
            if fields[3:4] == [_LISTEN]:
                with suppress(ValueError, IndexError):  # nothing that we know how to read
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
