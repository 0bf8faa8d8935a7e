"""The probe that sees more than the port: GET /readyz over a kept HTTPS connection.

http.client and not requests: a server that trickles one byte a second never exceeds a time-out a
read, the only kind that requests has; and it costs 5 MB of memory (docs/decisions/0006-probes.md).
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.net.tcp import connect, result_of, words_of
from kube_nginx_agent.observation import Layer, Observation, Result

CLUSTER_CA = (Path("/etc/kubernetes/pki/ca.crt"), Path("/etc/kubernetes/ssl/ca.pem"))
"""Where kubeadm and the hand-made clusters keep the CA of the apiservers' certificates."""

_MAX_BODY = 64 * 1024
"""Bytes; a verbose /readyz has 3 KB. What sends more is hung up on."""
_ALIVE = {401, 403, 429}
_MAX_IDLE = 60.0
"""Seconds; kube-apiserver closes a kept connection after 90."""


class ReadyzProbe:
    """Keeps one connection to one backend; not to be used by two threads at once."""

    def __init__(
        self, address: SocketAddress, path: str, context: Callable[[], ssl.SSLContext]
    ) -> None:
        """Take whom to ask for what; nothing is connected yet."""
        self._address = address
        self._path = path
        self._context = context
        self._connection: _Connection | None = None
        self._used_at = 0.0

    def look(self, timeout: float) -> Observation:
        """Ask once; all of it, connect and answer, takes at most ``timeout`` seconds."""
        began = time.monotonic()
        deadline = began + timeout
        kept = self._connection is not None and began - self._used_at < _MAX_IDLE
        try:
            if kept:
                with suppress(ConnectionError, http.client.HTTPException, ssl.SSLEOFError):
                    # A kept connection may have been closed meanwhile: no news of the server.
                    return replace(self._ask(began, deadline), is_fresh=False)
            self.close()
            return self._ask(time.monotonic(), deadline)
        except _ConnectError as error:
            self.close()
            return Observation(Layer.READYZ, result_of(error.cause), words_of(error.cause))
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            result, detail = _explain(error)
            return Observation(Layer.READYZ, result, detail, is_fresh=not kept)

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _reconnect(self, deadline: float) -> _Connection:
        self.close()
        self._connection = _Connection(self._address, self._context(), deadline)
        self._connection.connect()
        return self._connection

    def _ask(self, began: float, deadline: float) -> Observation:
        connection = self._connection or self._reconnect(deadline)
        connection.set_deadline(deadline)
        connection.request("GET", self._path, headers={"User-Agent": "kube-nginx-agent"})
        response = connection.getresponse()
        body = response.read(_MAX_BODY)
        self._used_at = time.monotonic()
        if not response.isclosed() or response.will_close:
            self.close()
        return _judge(response.status, body, self._used_at - began)


def _judge(status: int, body: bytes, rtt: float) -> Observation:
    detail = f"HTTP {status}"
    if status == http.client.OK:
        return Observation(Layer.READYZ, Result.OK, rtt=rtt)
    if status in _ALIVE:
        return Observation(Layer.READYZ, Result.ALIVE, detail, rtt)
    failed = [
        line[3:] for line in body.decode("utf-8", "replace").splitlines() if line[:3] == "[-]"
    ]
    if failed:
        detail += f": {', '.join(name.partition(' ')[0] for name in failed[:3])}"
    return Observation(Layer.READYZ, Result.NOT_READY, detail, rtt)


def _explain(error: Exception) -> tuple[Result, str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Result.CERTIFICATE, error.verify_message
    if isinstance(error, (socket.timeout, TimeoutError, ssl.SSLWantReadError)):
        return Result.SILENT, "it accepts connections but does not answer"
    if isinstance(error, (ssl.SSLEOFError, ConnectionError, http.client.RemoteDisconnected)):
        return Result.CLOSED, "it ends the connection without an answer"
    if isinstance(error, ssl.SSLError):
        return Result.GARBAGE, f"no TLS: {error.reason or error}"
    if isinstance(error, OSError):
        return Result.CLOSED, words_of(error)
    return Result.GARBAGE, "no HTTP"


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """Return what the probe trusts: ``ca_file``, or with None anybody. Raise OSError, ssl.SSLError.

    Names are not checked: a certificate need not have the address that this node reaches it at,
    and clients check it for 127.0.0.1 themselves.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if ca_file else ssl.CERT_NONE
    if ca_file:
        context.load_verify_locations(cafile=str(ca_file))
    context.sslsocket_class = _DeadlineSocket
    return context


class _ConnectError(Exception):
    """The connection could not be made: the TCP part."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause)
        self.cause = cause


class _DeadlineSocket(ssl.SSLSocket):
    """A TLS socket whose reads share one deadline, so that a trickle of bytes can't stretch it."""

    deadline: float | None = None

    def recv_into(self, *arguments: Any, **keywords: Any) -> int:
        if self.deadline is not None:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise socket.timeout("timed out")
            self.settimeout(left)
        return super().recv_into(*arguments, **keywords)


class _Connection(http.client.HTTPConnection):
    """An HTTP/1.1 connection over TLS to one address."""

    def __init__(self, address: SocketAddress, context: ssl.SSLContext, deadline: float) -> None:
        super().__init__(str(address.ip), address.port)
        self._address = address
        self._context = context
        self._deadline = deadline

    def connect(self) -> None:
        try:
            plain = connect(self._address, max(self._deadline - time.monotonic(), 0.001))
        except OSError as error:
            raise _ConnectError(error) from error
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.settimeout(max(self._deadline - time.monotonic(), 0.001))
        try:
            self.sock = self._context.wrap_socket(plain)
        except BaseException:
            plain.close()
            raise

    def set_deadline(self, deadline: float) -> None:
        """Have everything that follows end by then."""
        if isinstance(self.sock, _DeadlineSocket):
            self.sock.deadline = deadline
            self.sock.settimeout(max(deadline - time.monotonic(), 0.001))
