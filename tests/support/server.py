"""The stand-in kube-apiserver itself: HTTP/1.1 over TLS, with faults on demand.

Times and answers follow what a kube-apiserver v1.36 did when measured: a silent connection is
closed after 32 s and an idle one after 90 s; a starting one says 403, then 500; at SIGTERM /readyz
turns red while all else is served on, then the listener closes, idle connections are closed, and
open watches are served to the end of the drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import ssl
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Optional

from support.address import Address
from support.channel import Channel, ProtocolError, close_with_reset, readable
from support.faults import Faults, Report
from support.wire import Request, head, response

HEAD_TIMEOUT = 32.0  # seconds for the handshake and the first request's head
IDLE_TIMEOUT = 90.0  # seconds between two requests
BACKLOG = 4096
GLANCE = 0.2  # seconds after which an open watch looks how often it is to tick
ACCEPT_RETRY = 0.5  # seconds; Go's net/http waits 5 ms to 1 s
HUGE = 1 << 30  # bytes
PATHS_COUNTED = 1000  # then they count as "others": a fuzzer must not grow the memory
HEALTH_PATHS = ("/readyz", "/livez", "/healthz")


@dataclass(frozen=True)
class Options:
    name: str
    listen: Address
    control: Optional[Path] = None  # unix socket; one JSON line in, one out
    shutdown_delay: float = 0.0  # seconds of red /readyz before the listener closes
    drain: float = 60.0  # seconds that open watches are served on
    warm_up: float = 0.0  # seconds after the start that /readyz is 403, then 500
    tick: float = 1.0  # seconds between two lines of a watch


@dataclass(eq=False)
class Session:
    """What a connection is doing, for the shutdown and the report."""

    task: asyncio.Task[None] = field(init=False)
    idle: bool = False  # between two requests
    watching: bool = False


class ApiServer:
    """One stand-in; `run` returns once it has shut down."""

    def __init__(self, options: Options, context: ssl.SSLContext, faults: Faults) -> None:
        self._options = options
        self._context = context
        self._faults = faults
        self._sessions: set[Session] = set()
        self._requests: Counter[str] = Counter()
        self._connections = 0
        self._handshakes_failed = 0
        self._started = time.monotonic()
        self._listener: Optional[socket.socket] = None
        self._control: Optional[asyncio.AbstractServer] = None
        self._stop = asyncio.Event()
        self._now = asyncio.Event()

    async def open(self) -> Address:
        """Listen, and return the address with the port that was had; raise OSError if held."""
        listener = socket.socket(self._options.listen.family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            listener.bind(tuple(self._options.listen))
            listener.listen(BACKLOG)
            await self._open_control()
        except OSError:
            listener.close()
            raise
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept_all)
        host, port = listener.getsockname()[:2]
        return Address(host, port)

    def stop(self) -> None:
        """Shut down as a kube-apiserver does at SIGTERM; the second time, at once."""
        if self._stop.is_set():
            self._now.set()
        self._stop.set()

    def stop_now(self) -> None:
        self._stop.set()
        self._now.set()

    async def run(self) -> None:
        await self._stop.wait()
        await self._unless_now(asyncio.sleep(self._options.shutdown_delay))
        self._close_listener()
        for session in self._sessions:
            if session.idle:
                session.task.cancel()
        await self._unless_now(asyncio.wait_for(self._all_done(), self._options.drain))
        for session in self._sessions:
            session.task.cancel()
        await self._all_done()
        if self._control is not None:
            self._control.close()
        if self._options.control is not None:
            self._options.control.unlink(missing_ok=True)

    async def _unless_now(self, wait: object) -> None:
        assert asyncio.iscoroutine(wait)
        both = {asyncio.ensure_future(wait), asyncio.ensure_future(self._now.wait())}
        _, late = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in late:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)

    async def _all_done(self) -> None:
        while self._sessions:
            await asyncio.wait({session.task for session in self._sessions})

    # Connections

    def _accept_all(self) -> None:
        if self._listener is None:
            return
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                try:
                    raw, _ = self._listener.accept()
                except OSError as error:
                    if error.errno != errno.EMFILE:
                        raise
                    self._pause_accepting()
                    return
                raw.setblocking(False)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connections += 1
                self._begin(raw)

    def _pause_accepting(self) -> None:
        """Leave new clients in the kernel's queue for a while: no more files may be opened."""
        assert self._listener is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)
        loop.call_later(ACCEPT_RETRY, self._resume_accepting)

    def _resume_accepting(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept_all)

    def _begin(self, raw: socket.socket) -> None:
        session = Session()
        session.task = asyncio.get_running_loop().create_task(self._serve(raw, session))
        session.task.add_done_callback(lambda _: self._sessions.discard(session))
        self._sessions.add(session)

    def _close_listener(self) -> None:
        """Close it, but serve who is in its queue: closing would reset them."""
        if self._listener is not None:
            self._accept_all()
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _serve(self, raw: socket.socket, session: Session) -> None:
        try:
            if self._faults.mode in ("reset", "plain"):
                await self._refuse_handshake(raw)
                return
            channel = await asyncio.wait_for(Channel.accept(raw, self._context), HEAD_TIMEOUT)
        except (OSError, asyncio.TimeoutError):
            self._handshakes_failed += 1
            return
        finally:
            raw.close()  # detached, so this does nothing, once TLS has taken it over
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.TimeoutError):
                await self._talk(channel, session)
        finally:
            channel.close()

    async def _refuse_handshake(self, raw: socket.socket) -> None:
        await asyncio.wait_for(readable(raw), HEAD_TIMEOUT)
        self._handshakes_failed += 1
        if self._faults.mode == "reset":
            close_with_reset(raw)
            return
        raw.recv(65536)
        raw.send(b"This is not TLS.\r\n")

    async def _talk(self, channel: Channel, session: Session) -> None:
        """Answer one request after another, until one side has enough."""
        keep, patience = True, HEAD_TIMEOUT
        while keep:
            try:
                start = await asyncio.wait_for(channel.read_until(b"\r\n\r\n"), patience)
                session.idle = False
                request = Request.parse(start)
                await channel.read_exactly(request.body)
            except ProtocolError:
                await channel.send(response(HTTPStatus.BAD_REQUEST, b"", keep=False))
                break
            keep = await self._answer(channel, session, request) and self._listener is not None
            session.idle, patience = True, IDLE_TIMEOUT
        channel.say_goodbye()

    # Answers

    async def _answer(self, channel: Channel, session: Session, request: Request) -> bool:
        """Answer, and return whether the connection goes on."""
        known = request.path in self._requests or len(self._requests) < PATHS_COUNTED
        self._requests[request.path if known else "others"] += 1
        faults = self._faults
        faulty = request.path.startswith(faults.path)
        if faulty and faults.latency:
            await asyncio.sleep(faults.latency)
        keep = request.keep and self._listener is not None
        if faulty and faults.mode != "none":
            return await self._answer_badly(channel, request, faults.mode) and keep
        if request.watches:
            session.watching = True
            await self._watch(channel)
            return False
        status, body = self._page(request.path)
        data = response(status, body, keep=keep)
        await channel.send(data[: -len(body)] if body and request.method == "HEAD" else data)
        return keep

    def _page(self, path: str) -> tuple[int, bytes]:
        if path not in HEALTH_PATHS:
            about = {"name": self._options.name, "path": path, "connections": self._connections}
            return 200, json.dumps(about).encode() + b"\n"
        status = self._readiness() if path == "/readyz" else 200
        if status == 200:
            return status, b"ok"
        if status == 500:
            check = "shutdown" if self._stop.is_set() else "etcd-readiness"
            return status, f"[-]{check} failed: reason withheld\nreadyz check failed\n".encode()
        return status, json.dumps({"kind": "Status", "status": "Failure", "code": status}).encode()

    def _readiness(self) -> int:
        if self._stop.is_set():
            return 500
        age = time.monotonic() - self._started
        if age < self._options.warm_up:
            return 403 if age < self._options.warm_up / 2 else 500
        return self._faults.readyz

    async def _answer_badly(self, channel: Channel, request: Request, mode: str) -> bool:
        """Answer as the fault asks; return whether the connection can go on."""
        if mode == "redirect":
            extra = {"Location": "/redirected"}
            await channel.send(response(302, b"", keep=request.keep, extra=extra))
            return True
        if mode == "trickle":
            for byte in response(200, b"o" * 1000, keep=False):
                await channel.send(bytes([byte]))
                await asyncio.sleep(1.0)
        elif mode == "huge":
            await channel.send(head(200, HUGE, keep=False))
            for _ in range(HUGE >> 16):
                await channel.send(bytes(1 << 16))
        else:
            await channel.send(b"\x00\xff garbage, and no line end " * 40)
        return False

    async def _watch(self, channel: Channel) -> None:
        """Send a line each tick until the client goes (or, as a task, is cancelled)."""
        await channel.send(head(200, None, keep=False))
        loop = asyncio.get_running_loop()
        number = 0
        while True:
            line = json.dumps({"name": self._options.name, "seq": number}).encode() + b"\n"
            await channel.send(b"%x\r\n%s\r\n" % (len(line), line))
            number += 1
            sent = loop.time()  # the next is due by this one: after a freeze, no burst
            while (left := sent + self._tick() - loop.time()) > 0:
                with contextlib.suppress(asyncio.TimeoutError):
                    if not await asyncio.wait_for(channel.receive(), min(left, GLANCE)):
                        return

    def _tick(self) -> float:
        return self._faults.tick or self._options.tick

    # Control

    async def _open_control(self) -> None:
        path = self._options.control
        if path is not None:
            path.unlink(missing_ok=True)
            self._control = await asyncio.start_unix_server(self._obey, str(path))

    async def _obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a JSON object of faults to change (may be empty), answer the report or an error."""
        with contextlib.suppress(OSError):
            try:
                changes = json.loads(await reader.readline() or b"{}")
                if not isinstance(changes, dict):
                    raise ValueError("a JSON object is wanted")
                self._faults = self._faults.changed(changes)
                answer: dict[str, object] = asdict(self.report())
            except ValueError as error:
                answer = {"error": str(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
            writer.close()

    def report(self) -> Report:
        return Report(
            name=self._options.name,
            pid=os.getpid(),
            faults=self._faults,
            requests=dict(self._requests),
            connections=self._connections,
            handshakes_failed=self._handshakes_failed,
            open=len(self._sessions),
            watches=sum(session.watching for session in self._sessions),
            stopping=self._stop.is_set(),
            cpu=time.process_time(),
        )
