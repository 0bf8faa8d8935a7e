"""The helper that ends stuck sessions: socket-activated, with CAP_NET_ADMIN and nothing else.

``kube-nginx-cut.service`` runs it as nginx's user. A message is ``ADDRESS INODE...``; the answer
is how many sockets were ended, or why none. It ends only sockets to that address, with those
inodes, that a process of its own user in the cgroup of ``kube-nginx.service`` holds, which it
looks for itself; so whoever may talk to it can end nothing else. That is the agent alone: the
socket is its group's, which nginx is not in.

One client is served at a time, and none can keep the next one waiting for long.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import time

from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.net.sock_diag import diag_socket
from kube_nginx_agent.node.files import names_in, read_proc
from kube_nginx_agent.sessions.held import sockets_of
from kube_nginx_agent.sessions.table import destroy_all, list_to

MAX_MESSAGE = 64 * 1024  # bytes
_LISTEN_FD = 3  # sd_listen_fds(3)
_IDLE = 60.0  # seconds after which it ends, to be started again when it is needed
_MESSAGE_WITHIN = 1.0
"""Seconds for a message to come, and for its answer to be taken."""
_CLIENT_WITHIN = 5.0
"""Seconds for all messages of a client; 4,000 sessions are a message, and end in 0.3 s."""
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
                serve(client)


def serve(client: socket.socket) -> None:
    """Answer the messages of one client until it hangs up, or is too slow."""
    client.settimeout(_MESSAGE_WITHIN)
    deadline = time.monotonic() + _CLIENT_WITHIN
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    if uid != os.getuid():
        client.send(b"only nginx's own user may ask")
        return
    try:
        while time.monotonic() < deadline:
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
    """Return the processes of our own user in nginx's unit; other users' are closed to us.

    That is beside our slice or, of an nginx that has outlived an upgrade from 0.1, in it. Raise
    OSError where we are in no unit ourselves: then nobody can be told from nginx.
    """
    ours = _cgroups(os.getpid()).items()
    places = [(name, path) for name, path in ours if path.endswith(f"/{_OWN_UNIT}")]
    if not places:
        raise OSError(errno.ENOENT, f"the helper does not run as {_OWN_UNIT}")
    hierarchy, own = places[0]
    slice_ = own[: -len(f"/{_OWN_UNIT}")]
    units = tuple(f"{place}/{_NGINX_UNIT}/" for place in (slice_.rpartition("/")[0], slice_))
    pids = (int(name) for name in names_in("/proc") if name.isdecimal())
    return [pid for pid in pids if f"{_cgroups(pid).get(hierarchy, '')}/".startswith(units)]


def _cgroups(pid: int) -> dict[str, str]:
    """Return where the process is in each hierarchy of cgroups(7), by the hierarchy's name.

    systemd's own is version 2, called "", or "name=systemd", and a host can have both: that of a
    container's systemd is then not the first one, and in the other all processes are at "/".
    """
    lines = [line.partition(":")[2] for line in read_proc(f"/proc/{pid}/cgroup").splitlines()]
    places = (line.partition(":") for line in lines)
    return {name: path for name, _, path in places if name in ("", "name=systemd")}


if __name__ == "__main__":
    sys.exit(main())
