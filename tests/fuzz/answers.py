"""Answers of an apiserver, over a real connection to a server on loopback that says any bytes."""

from __future__ import annotations

import socket
import ssl
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Callable

from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.health.readyz import ReadyzProbe
from kube_nginx_agent.net.tls import trust_anybody
from kube_nginx_agent.observation import Layer, Observation
from support.certs import make_certs

_TIMEOUT = 1.0
_FOR_ANOTHER = 0.005  # seconds that the server waits for a second question
_LONGEST_WORDS = 300


def answers_of_an_apiserver() -> Callable[[bytes], None]:
    """A probe sees something, in printable words and in time, whatever comes.

    The first byte: 0 to 15 are sent in the place of a TLS handshake, the others in the place of an
    HTTP answer; the lowest bit cuts the answer in two, and the second keeps the connection.
    """
    sys.setswitchinterval(0.0002)  # else server and probe wait 5 ms for each other at each turn
    server = _Server()

    def run(data: bytes) -> None:
        form, server.answer = (data[0], data[1:]) if data else (16, b"")
        server.is_tls, server.is_split = form >= 16, bool(form & 1)
        server.keeps = bool(form & 2)
        probe = ReadyzProbe(parse_address(server.address), "/readyz", trust_anybody)
        try:
            # The same connection again, as far as it is kept: what is left over is read there.
            for _ in range(2 if server.keeps else 1):
                _check(probe.look(_TIMEOUT))
        finally:
            probe.close()

    return run


def _check(seen: Observation) -> None:
    assert seen.layer is Layer.READYZ
    assert seen.detail.isprintable(), seen.detail
    assert len(seen.detail) <= _LONGEST_WORDS, len(seen.detail)


class _Server:
    """Serves one connection after the other: says ``answer`` to a question, and hangs up."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="kna-fuzz-"))
        certs = make_certs(folder)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certs.cert, certs.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.answer = b""
        self.is_tls = self.is_split = self.keeps = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            plain, _ = self._listener.accept()
            with suppress(OSError), plain:
                plain.settimeout(_TIMEOUT)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.is_tls:
                    with self._context.wrap_socket(plain, server_side=True) as tls:
                        self._answer(tls)
                else:
                    self._answer(plain)

    def _answer(self, connection: socket.socket) -> None:
        for turn in range(2 if self.keeps else 1):
            if turn:
                connection.settimeout(_FOR_ANOTHER)
            if not connection.recv(4096):
                return
            middle = len(self.answer) // 2 if self.is_split else 0
            for part in (self.answer[:middle], self.answer[middle:]):
                if part:
                    connection.sendall(part)
