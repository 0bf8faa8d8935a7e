"""The clients: new TLS connections at a constant rate, and watches that stay open.

Open loop: a connection is begun when its time has come, however the earlier ones fare, as the
clients of a whole node do. Each is a full handshake, without session resumption.

A GET says `Connection: close` and then reads to the end of the stream before it closes: so the
server's side closes first and holds the TIME_WAIT, on its fixed port, where a new connection from
the same client port takes it over. No client port is used up, and no reset is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from support.address import Address
from support.channel import Channel, ProtocolError, reason_of
from support.results import Cut, Line, Miss, Request
from support.wire import parse_response, whole_number

IN_FLIGHT = 8192  # connections; beyond that a request fails with the reason `overload`
HANDSHAKE_TIMEOUT = 10.0  # seconds for a watch to open, as client-go's TLSHandshakeTimeout
RETRY = 0.2  # seconds before a watch that could not be opened is tried again
GOODBYE = 1.0  # seconds for the peer to close after us


@dataclass(frozen=True)
class Plan:
    to: Address
    rate: float  # new connections a second
    seconds: float
    watches: int = 0
    timeout: float = 5.0  # seconds for a request, all in all
    silence: float = 45.0  # seconds until a watch is given up: client-go's ping at 30, 15 to wait
    ping: float = 0.0  # seconds between what the client of a watch says; 0: it only listens
    path: str = "/load"
    ca: Optional[Path] = None  # verify against it


class Generator:
    """Carries out one plan and tells each event to `record`."""

    def __init__(self, plan: Plan, record: Callable[[str, tuple[object, ...]], None]) -> None:
        self._plan = plan
        self._record = record
        self._context = _context(plan.ca)
        self._requests: set[asyncio.Task[None]] = set()
        self._open: set[Channel] = set()  # watches
        self._ending = False
        self._late = 0.0
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Begin no more; what is under way still ends in its own time."""
        self._stop.set()

    async def run(self) -> None:
        started = time.monotonic()
        self._record("start", (started, self._plan.watches))
        watches = [self._start(self._watch(number)) for number in range(self._plan.watches)]
        schedule = self._start(self._keep_rate(started))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stop.wait(), self._plan.seconds)
        schedule.cancel()
        await asyncio.gather(schedule, *self._requests, return_exceptions=True)
        ended = time.monotonic()
        await self._end_watches(watches)
        self._record("end", (ended, time.process_time(), self._late))

    def _start(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)

    async def _keep_rate(self, started: float) -> None:
        for number in range(int(self._plan.rate * self._plan.seconds)):
            due = started + number / self._plan.rate
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            self._late = max(self._late, time.monotonic() - due)
            if len(self._requests) >= IN_FLIGHT:
                self._record("request", Request(time.monotonic(), 0.0, "overload", ""))
                continue
            task = self._start(self._request())
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)

    # Requests

    async def _request(self) -> None:
        at, server, reason, channel = time.monotonic(), "", "", None
        try:
            connecting = Channel.connect(self._plan.to, self._context)
            channel = await asyncio.wait_for(connecting, self._plan.timeout)
            left = at + self._plan.timeout - time.monotonic()
            server = await asyncio.wait_for(self._get(channel), left)
        except (OSError, EOFError, asyncio.TimeoutError, ProtocolError) as error:
            reason = reason_of(error)
        self._record("request", Request(at, time.monotonic() - at, reason, server))
        if channel is not None:
            if not reason:
                await channel.drain(GOODBYE)
            channel.close()

    async def _get(self, channel: Channel) -> str:
        """Do the GET and return the name of who answered."""
        await channel.send(self._head(self._plan.path, "Connection: close\r\n"))
        status, headers = parse_response(await channel.read_until(b"\r\n\r\n"))
        if status != 200:
            raise ProtocolError(f"status {status}", f"http_{status}")
        body = await channel.read_exactly(whole_number(headers.get("content-length", "0")))
        return _name(body)

    def _head(self, path: str, extra: str = "") -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: {self._plan.to}\r\n{extra}\r\n".encode()

    # Watches

    async def _watch(self, number: int) -> None:
        """Keep one watch open: after a cut reconnect at once, after a miss a little later."""
        while not self._ending:
            server = ""
            try:
                connecting = Channel.connect(self._plan.to, self._context)
                channel = await asyncio.wait_for(connecting, HANDSHAKE_TIMEOUT)
                self._open.add(channel)
                pings = self._start(self._keep_pinging(channel))
                try:
                    await channel.send(self._head("/watch"))
                    await asyncio.wait_for(channel.read_until(b"\r\n\r\n"), HANDSHAKE_TIMEOUT)
                    while True:
                        server = await self._line(channel)
                        self._record("line", Line(number, time.monotonic(), server))
                finally:
                    pings.cancel()
                    self._open.discard(channel)
                    channel.close()
            except (OSError, EOFError, asyncio.TimeoutError, ProtocolError) as error:
                await self._lost(number, server, reason_of(error))

    async def _keep_pinging(self, channel: Channel) -> None:
        """Say something again and again, as a client with more than one stream does."""
        with contextlib.suppress(OSError):
            while self._plan.ping:
                await asyncio.sleep(self._plan.ping)
                await channel.send(b"\r\n")

    async def _line(self, channel: Channel) -> str:
        """Wait for one chunk, which is one line, and return the name in it."""
        head = await asyncio.wait_for(channel.read_until(b"\r\n"), self._plan.silence)
        size = whole_number(head.decode("latin-1"), 16)
        if not size:
            raise EOFError
        return _name(await asyncio.wait_for(channel.read_exactly(size + 2), self._plan.silence))

    async def _lost(self, number: int, server: str, reason: str) -> None:
        if self._ending:
            return
        if server:
            reason = "silent" if reason == "timeout" else reason
            self._record("cut", Cut(number, time.monotonic(), server, reason))
        else:
            self._record("miss", Miss(number, time.monotonic(), reason))
            await asyncio.sleep(RETRY)

    async def _end_watches(self, watches: list[asyncio.Task[None]]) -> None:
        """End them politely: a FIN, and their tasks read on until the peer has closed as well."""
        self._ending = True
        for channel in self._open:
            channel.half_close()
        if watches:
            await asyncio.wait(watches, timeout=GOODBYE)
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


def _context(ca: Optional[Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.options |= ssl.OP_NO_TICKET
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(ca)
    return context


def _name(body: bytes) -> str:
    try:
        return str(json.loads(body)["name"])
    except (ValueError, KeyError, TypeError):
        raise ProtocolError(f"no name in {body[:80]!r}") from None
