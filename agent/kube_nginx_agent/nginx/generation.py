"""Ask nginx which generation of the config it serves."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

_MAX_ANSWER = 64  # bytes; "4f2a91c 12345\n" and room to spare


@dataclass(frozen=True)
class Answer:
    """What one worker says: the generation it serves, and its own pid."""

    generation: str
    worker_pid: int


class NoAnswer(Enum):
    """Why there is no answer."""

    ABSENT = "nobody listens on the generation socket"
    CLOSED = "nginx accepts a connection to its generation socket and ends it without a word"
    """It is full (ngx_event_accept() closes what it has no connection for), so it lives."""
    MUTE = "nginx does not accept connections to its generation socket, or says nothing"


def ask(generation_socket: Path, timeout: float) -> Answer | NoAnswer:
    """Return the answer of whichever worker accepts within ``timeout`` seconds, or why none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(generation_socket))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError, PermissionError):
            return NoAnswer.ABSENT
        except OSError:
            return NoAnswer.MUTE  # its queue is full: nobody has accepted for long
        try:
            return _read_answer(connection)
        except ConnectionError:
            return NoAnswer.CLOSED
        except OSError:
            return NoAnswer.MUTE


def _read_answer(connection: socket.socket) -> Answer | NoAnswer:
    text = b""
    while b"\n" not in text and len(text) < _MAX_ANSWER:
        part = connection.recv(_MAX_ANSWER)
        if not part:
            break
        text += part
    words = text.split()
    if len(words) != 2 or not words[1].isdigit():
        return NoAnswer.CLOSED
    return Answer(words[0].decode("ascii", "replace"), int(words[1]))
