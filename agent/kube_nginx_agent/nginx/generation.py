"""Ask nginx which generation of the config it serves."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

_MAX_ANSWER = 64  # bytes; "4f2a91c 12345\n" and room to spare


@dataclass(frozen=True)
class Answer:
    """What one worker says: the generation it serves, and its own pid."""

    generation: str
    worker_pid: int


def ask(generation_socket: Path, timeout: float) -> Answer | None:
    """Return the answer of whichever worker accepts, None when none does in ``timeout`` seconds."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(generation_socket))
            text = b""
            while b"\n" not in text and len(text) < _MAX_ANSWER:
                part = connection.recv(_MAX_ANSWER)
                if not part:
                    break
                text += part
        generation, pid = text.decode("ascii").split()
        return Answer(generation, int(pid))
    except (OSError, ValueError):
        return None
