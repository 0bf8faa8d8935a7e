"""nginx's own words: its error log, received as datagrams.

A datagram socket, because nginx never waits for its reader: what does not fit is dropped.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from kube_nginx_agent.node.files import FileError, remove
from kube_nginx_agent.node.starting import start_thread

LONGEST = 2560
"""Bytes of a message; nginx's own limit is 2048 (NGX_MAX_ERROR_STR) and a header. A worker that was
taken over could send more: what reads it takes time by the square of its length."""
_KEPT = 200
_FORM = re.compile(r"\[(?P<level>[a-z]+)\] (?P<pid>[0-9]{1,10})#[0-9]+: (?P<text>.*)", re.DOTALL)


@dataclass(frozen=True)
class LogMessage:
    """One line of nginx's error log: its level, the process that wrote it, and the text."""

    level: str
    pid: int
    text: str


def parse_message(datagram: bytes) -> LogMessage | None:
    """Read one datagram; None when it is not a line of an error log."""
    found = _FORM.search(datagram.decode("utf-8", "replace"))
    if not found:
        return None
    return LogMessage(found["level"], int(found["pid"]), found["text"].strip())


class LogReader:
    """Receives on a socket of its own, in a thread of its own, and keeps the last messages."""

    def __init__(self, path: Path, on_message: Callable[[LogMessage], None] | None = None) -> None:
        """Take the path of the socket, which ``open`` makes, and who wants to hear at once."""
        self._path = path
        self._on_message = on_message
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._messages: deque[tuple[int, LogMessage]] = deque(maxlen=_KEPT)
        self._count = 0

    def open(self, writer_uid: int) -> None:
        """Bind the socket, for nginx's workers of user ``writer_uid`` to write to, and listen.

        Takes the place of one that was bound before and whose name is gone. Raise FileError,
        NoThreadError.
        """
        before, self._socket = self._socket, None
        if before:
            before.shutdown(socket.SHUT_RDWR)  # wakes and ends its thread
        remove(self._path)
        self._socket = _bind(self._path, writer_uid)
        self._thread = start_thread("nginx-log", self._receive, self._socket)

    def is_open(self) -> bool:
        """Tell whether somebody listens: an error of the socket ends its thread, and says so."""
        return self._thread is not None and self._thread.is_alive()

    def mark(self) -> int:
        """Return a place in the stream of messages, for ``since``."""
        return self._count

    def since(self, mark: int) -> list[LogMessage]:
        """Return the messages received after ``mark``, as far as they are kept."""
        return [message for number, message in list(self._messages) if number > mark]

    def _receive(self, bound: socket.socket) -> None:
        while True:
            datagram = bound.recv(LONGEST)
            if not datagram and bound is not self._socket:
                bound.close()
                return
            message = parse_message(datagram)
            if message:
                self._messages.append((self._count + 1, message))
                self._count += 1
                if self._on_message:
                    self._on_message(message)


def _bind(path: Path, writer_uid: int) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        # Before it has a name: under that nginx, taken over, may have put a link.
        os.fchmod(bound.fileno(), 0o600)
        bound.bind(str(path))
        if writer_uid != os.geteuid():
            os.chown(path, writer_uid, -1)
    except OSError as error:
        bound.close()
        raise FileError(path, "the socket can't be made", error) from error
    return bound
