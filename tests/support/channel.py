"""TLS over a non-blocking socket, awaited.

asyncio's own TLS transports hide whether a peer closed or reset during the handshake and decide
themselves how a connection ends. Here both are plain, which is what a fault bench counts, and a
connection costs less CPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import struct
from typing import Callable, TypeVar

from support.address import Address

T = TypeVar("T")

HEAD_LIMIT = 65536  # bytes of a request's or a response's head


class ProtocolError(Exception):
    """The peer does not speak HTTP/1.1, or not as wanted; `reason` says so in a word."""

    def __init__(self, text: str, reason: str = "malformed") -> None:
        super().__init__(text)
        self.reason = reason


class Channel:
    """One TLS connection; one task at a time uses it."""

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._pending = bytearray()

    @classmethod
    async def accept(cls, raw: socket.socket, context: ssl.SSLContext) -> Channel:
        """Shake hands as the server; on failure the socket is closed."""
        return await cls._shake(
            context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        )

    @classmethod
    async def connect(cls, to: Address, context: ssl.SSLContext) -> Channel:
        """Connect and shake hands as the client; on failure the socket is closed."""
        raw = socket.socket(to.family, socket.SOCK_STREAM)
        try:
            raw.setblocking(False)
            await asyncio.get_running_loop().sock_connect(raw, tuple(to))
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            name = to.host if context.check_hostname else None
            tls = context.wrap_socket(raw, server_hostname=name, do_handshake_on_connect=False)
        except BaseException:
            raw.close()
            raise
        return await cls._shake(tls)

    @classmethod
    async def _shake(cls, tls: ssl.SSLSocket) -> Channel:
        channel = cls(tls)
        try:
            await channel._finish(tls.do_handshake)
        except BaseException:
            tls.close()
            raise
        return channel

    async def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            part = rest
            rest = rest[await self._finish(lambda part=part: self._tls.send(part)) :]  # type: ignore[misc]

    async def receive(self, limit: int = 65536) -> bytes:
        """Return what is there, b"" at the end of the stream."""
        if self._pending:
            data = bytes(self._pending[:limit])
            del self._pending[:limit]
            return data
        return await self._finish(lambda: self._tls.recv(limit))

    async def read_until(self, end: bytes, limit: int = HEAD_LIMIT) -> bytes:
        """Return all up to and with `end`; raise EOFError if the stream ends before it."""
        while (at := self._pending.find(end)) < 0:
            if len(self._pending) > limit:
                raise ProtocolError(f"no {end!r} within {limit} bytes")
            await self._fill()
        return self._take(at + len(end))

    async def read_exactly(self, size: int) -> bytes:
        """Return `size` bytes; raise EOFError if the stream ends before them."""
        while len(self._pending) < size:
            await self._fill()
        return self._take(size)

    def half_close(self) -> None:
        """Send a FIN: a proxy then closes both sides, and `drain` sees it."""
        with contextlib.suppress(OSError):
            self._tls.shutdown(socket.SHUT_WR)

    async def drain(self, seconds: float) -> None:
        """Read until the peer has closed, at most so long.

        Closing a socket with unread bytes sends a reset, which a proxy logs as an error, and the
        side that closes first keeps the port in TIME_WAIT: let that be the one whose port is fixed.
        """
        self._pending.clear()
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(self._read_out(), seconds)

    def say_goodbye(self) -> None:
        """Send TLS's close_notify without waiting for the peer's."""
        with contextlib.suppress(OSError, ValueError):
            self._tls.unwrap()

    def close(self) -> None:
        """Send a FIN and no more (no close_notify: the peer may be gone and answer a reset)."""
        self._tls.close()

    def _take(self, size: int) -> bytes:
        taken = bytes(self._pending[:size])
        del self._pending[:size]
        return taken

    async def _fill(self) -> None:
        data = await self._finish(lambda: self._tls.recv(65536))
        if not data:
            raise EOFError
        self._pending += data

    async def _read_out(self) -> None:
        while await self.receive():
            pass

    async def _finish(self, call: Callable[[], T]) -> T:
        """Repeat a non-blocking call until it has its way, waiting as OpenSSL asks."""
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                await readable(self._tls)
            except ssl.SSLWantWriteError:
                await self._writable()
            except OSError:
                _forget_errors()
                raise

    async def _writable(self) -> None:
        ready = self._loop.create_future()
        self._loop.add_writer(self._tls, _wake, ready)
        try:
            await ready
        finally:
            self._loop.remove_writer(self._tls)


async def readable(sock: socket.socket) -> None:
    """Wait until a non-blocking socket has something to read, or its end."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(sock, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


def _forget_errors() -> None:
    """Empty OpenSSL's queue of errors, which all connections of a thread share.

    Python 3.13.5 leaves that of a reset connection there, and the next one to read is then told
    that it was reset. A handshake begins by emptying the queue.
    """
    nobody = _CONTEXT.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    with contextlib.suppress(ssl.SSLWantReadError):
        nobody.do_handshake()


_CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_CONTEXT.check_hostname = False


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def close_with_reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def reason_of(error: BaseException) -> str:
    """One word for why a connection failed.

    `ports` and `files` are this machine's own limits, not the peer's fault.
    """
    if isinstance(error, ProtocolError):
        return error.reason
    for kinds, reason in _REASONS:
        if isinstance(error, kinds):
            return reason
    if isinstance(error, OSError):
        return _ERRNOS.get(error.errno or 0, "os")
    return type(error).__name__.lower()


_REASONS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((asyncio.TimeoutError, TimeoutError), "timeout"),
    ((EOFError, ssl.SSLEOFError, ssl.SSLZeroReturnError), "eof"),
    ((ssl.SSLError,), "tls"),
    ((ConnectionRefusedError,), "refused"),
    ((ConnectionResetError, ConnectionAbortedError, BrokenPipeError), "reset"),
)
_ERRNOS = {
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EADDRNOTAVAIL: "ports",
    errno.EMFILE: "files",
    errno.ENFILE: "files",
}
