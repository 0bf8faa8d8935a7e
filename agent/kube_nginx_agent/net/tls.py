"""The one edge to TLS: whose certificates are accepted, and what a far end may cost.

Names are never checked: a certificate need not have the address that this node reaches it at, and
clients check it for 127.0.0.1 themselves.
"""

from __future__ import annotations

import socket
import ssl
import time
from functools import cache
from typing import Any, cast

from kube_nginx_agent.errors import AgentError


class NoAuthorityError(AgentError):
    """A file is there and can be read, but holds no certificate: it never will by waiting."""


class EndlessError(Exception):
    """The far end has sent more than it may."""


class LimitedSocket(ssl.SSLSocket):
    """A TLS socket whose reads share one deadline and one budget, so that no trickle is endless.

    Both belong to the connection and not to the context, which many connections share.
    """

    deadline: float | None = None
    """Of the monotonic clock; None: each read has the socket's own time-out."""
    budget: int | None = None
    """Bytes that may still come; None: any number."""

    def recv_into(self, *arguments: Any, **keywords: Any) -> int:
        """Read as ``socket.recv_into``; raise socket.timeout at the deadline, EndlessError."""
        if self.deadline is not None:
            self.settimeout(_left(self.deadline))
        count = super().recv_into(*arguments, **keywords)
        if self.budget is not None:
            self.budget -= count
            if self.budget < 0:
                raise EndlessError
        return count


@cache
def trust_anybody() -> ssl.SSLContext:
    """Return the context that accepts every certificate."""
    context = _client_context()
    context.verify_mode = ssl.CERT_NONE
    return context


def trust_only(pem: bytes, where: str) -> ssl.SSLContext:
    """Return a context that accepts what kubelet does with these bytes of a CA file.

    Go takes every certificate of the file for a root, also an intermediate one, which OpenSSL does
    only when told so. Raise NoAuthorityError, which names the file ``where``.
    """
    context = _client_context()
    context.verify_flags |= _PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        what = "it holds no certificate of an authority"
        hint = "it is a PEM file, such as /etc/kubernetes/pki/ca.crt"
        raise NoAuthorityError(what, where=where, hint=hint) from error
    return context


def begin_tls(
    plain: socket.socket, context: ssl.SSLContext, server_name: str | None = None
) -> LimitedSocket:
    """Take the connection over; the handshake is still to be made (``do_handshake``).

    ``plain`` is closed on failure, and detached else.
    """
    try:
        # None of these waits: whoever wants to end the handshake gets to know the socket first.
        made = context.wrap_socket(
            plain, do_handshake_on_connect=False, server_hostname=server_name
        )
        return cast(LimitedSocket, made)  # as the context's ``sslsocket_class`` says
    except BaseException:
        plain.close()
        raise


_PARTIAL_CHAIN = ssl.VerifyFlags(0x80000)
"""X509_V_FLAG_PARTIAL_CHAIN of OpenSSL's x509_vfy.h: Python names it since 3.10."""


def _client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.sslsocket_class = LimitedSocket
    return context


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise socket.timeout("timed out")
    return left
