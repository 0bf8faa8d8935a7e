"""Where the lines go: the journal with its fields, a stream that journald reads, or a terminal."""

from __future__ import annotations

import os
import sys
import syslog
import time
from contextlib import suppress
from typing import Callable, Mapping, TextIO

from kube_nginx_agent.notices.kinds import Kind

Fields = Mapping[str, str]
Sink = Callable[[Kind, str, Fields], None]
"""Takes one event: its kind, the message, and fields (``GENERATION=...``) for machines."""

_WORDS = {
    syslog.LOG_CRIT: "critical: ",
    syslog.LOG_ERR: "error: ",
    syslog.LOG_WARNING: "warning: ",
}


def choose_sink(stream: TextIO | None = None) -> Sink:
    """Return the best sink for where standard error leads."""
    stream = stream or sys.stderr
    if stream is None:  # started with standard error closed
        return lambda _kind, _message, _fields: None
    if not _is_journal(stream):
        return terminal_sink(stream)
    try:
        return journal_sink()
    except ImportError:
        return prefix_sink(stream)


def terminal_sink(stream: TextIO) -> Sink:
    """Write for a person: the time, the level in a word, the message."""

    def write(kind: Kind, message: str, _fields: Fields) -> None:
        clock = time.strftime("%H:%M:%S")
        _write(stream, f"{clock} {_WORDS.get(kind.priority, '')}{message}\n")

    return write


def prefix_sink(stream: TextIO) -> Sink:
    """Write ``<N>`` before each line, the priority as journald reads it (sd-daemon(3))."""

    def write(kind: Kind, message: str, _fields: Fields) -> None:
        lines = (f"<{kind.priority}>{line}\n" for line in message.splitlines())
        _write(stream, "".join(lines))

    return write


def journal_sink() -> Sink:
    """Send to journald itself, with fields. Raise ImportError without python3-systemd."""
    from systemd import journal

    def send(kind: Kind, message: str, fields: Fields) -> None:
        with suppress(OSError):  # journald is away or full; it must not end the agent
            journal.send(
                message,
                MESSAGE_ID=kind.message_id,
                PRIORITY=str(kind.priority),
                SYSLOG_IDENTIFIER="kube-nginx-agent",
                **fields,
            )

    return send


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        # A log that can't be written (a closed terminal, a full disk) must not end the agent.
        return


def _is_journal(stream: TextIO) -> bool:
    """Compare the stream with what systemd says it has connected it to (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
