"""The helper that ends stuck sessions: socket-activated, with CAP_NET_ADMIN and nothing else.

``kube-nginx-cut.service`` runs it as nginx's user. A message is ``ADDRESS INODE...``; the answer
is how many sockets were ended, or why none. It ends only sockets to that address, with those
inodes, that a process of its own user in the cgroup of ``kube-nginx.service`` holds, which it
looks for itself; so whoever may talk to it, which is the same user, can end nothing else.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.net.sock_diag import diag_socket
from kube_nginx_agent.node.files import names_in, read_proc
from kube_nginx_agent.sessions.held import sockets_of
from kube_nginx_agent.sessions.table import destroy_all, list_to

MAX_MESSAGE = 64 * 1024  # bytes
_LISTEN_FD = 3  # sd_listen_fds(3)
_IDLE = 60.0  # seconds after which it ends, to be started again when it is needed
_OWN_UNIT, _NGINX_UNIT = "kube-nginx-cut.service", "kube-nginx.service"
_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7)


def main() -> int:
    """Serve until nobody has asked for a while; return the exit code."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        print("kube-nginx-cut: to be started by kube-nginx-cut.socket", file=sys.stderr)
        return 2
    with socket.socket(fileno=_LISTEN_FD) as listener:
        listener.settimeout(_IDLE)
        while True:
            try:
                client, _ = listener.accept()
            except socket.timeout:
                return 0
            with client:
                client.settimeout(_IDLE)
                serve(client)


def serve(client: socket.socket) -> None:
    """Answer the messages of one client until it hangs up."""
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    if uid != os.getuid():
        client.send(b"only nginx's own user may ask")
        return
    try:
        while True:
            message = client.recv(MAX_MESSAGE)
            if not message:
                return
            client.send(_answer(message).encode())
    except OSError:
        return  # A client that is gone or too slow.


def _answer(message: bytes) -> str:
    try:
        address, *inodes = message.decode("ascii").split()
        backend = parse_address(address)
        wanted = {int(inode) for inode in inodes}
    except ValueError:
        return "not understood: ADDRESS INODE..."
    try:
        held = {inode for pid in _nginx_pids() for inode in sockets_of(pid) or ()}
        with diag_socket() as diag:
            found = list_to(diag, {backend})
            return str(destroy_all(diag, [s for s in found if s.inode in wanted & held]))
    except OSError as error:
        return error.strerror or str(error)


def _nginx_pids() -> list[int]:
    """Return the processes of our own user in nginx's unit, the sibling of our own.

    Other users' are closed to us; where there is no such unit, all of our own user's are taken.
    """
    own = _cgroup(os.getpid())
    pids = [int(name) for name in names_in("/proc") if name.isdecimal()]
    if not own.endswith(f"/{_OWN_UNIT}"):
        return pids
    unit = own[: -len(_OWN_UNIT)] + _NGINX_UNIT
    return [pid for pid in pids if f"{_cgroup(pid)}/".startswith(f"{unit}/")]


def _cgroup(pid: int) -> str:
    """Return where systemd has put the process: version 2, or the named hierarchy (cgroups(7))."""
    for line in read_proc(f"/proc/{pid}/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "name=systemd" or (controllers == "" and path != "/"):
            return path
    return ""


if __name__ == "__main__":
    sys.exit(main())
