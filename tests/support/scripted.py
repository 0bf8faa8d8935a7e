"""A TLS server that sends what a test gives it, for answers that no server means to give."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from typing import Callable

from support.address import Address
from support.certs import Certs
from support.process import Closing

Say = Callable[[ssl.SSLSocket], None]


class ScriptedServer(Closing):
    """Runs ``say`` on each connection, once the head of a question has come."""

    def __init__(self, certs: Certs, say: Say) -> None:
        self._say = say
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certs.cert, certs.key)
        self.names: list[str | None] = []
        self._context.sni_callback = lambda _tls, name, _context: self.names.append(name)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(*self._listener.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with suppress(OSError), plain, self._context.wrap_socket(plain, server_side=True) as tls:
            while tls.recv(65536):
                self._say(tls)
