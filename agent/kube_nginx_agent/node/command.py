"""Run another program to its end: one place for time limits and for what it printed."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Sequence

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.node.starting import NoThreadError, start_thread
from kube_nginx_agent.node.waiting import wait_until

_MAX_OUTPUT = 64 * 1024
"""pipe(7): what a pipe holds; a program that writes more is held up and then times out."""
_NOT_PASSED = ("NGINX", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What is not for others: nginx takes NGINX for a list of sockets that it has inherited, and then
does not go to the background (src/core/nginx.c, ngx_add_inherited_sockets())."""
_KILLED_WITHIN = 1.0
"""Seconds in which a killed program is reaped; one that hangs in the kernel is left to itself."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended and what it wrote to standard error."""

    code: int
    stderr: str


def run(command: Sequence[str], timeout: float, name: str = "") -> Outcome:
    """Run ``command`` for at most ``timeout`` seconds, with nothing on standard input.

    Waits for the program itself to end, not for its standard error to be closed, as
    ``subprocess.run`` would: a daemon that it leaves behind holds that open.
    Raise AgentError, which calls the program ``name``, when it can't be started or takes too long.
    """
    outcome, reader = _run(command, timeout, name or command[0])
    os.close(reader)
    return outcome


def start_daemon(command: Sequence[str], timeout: float) -> Outcome:
    """Run a program that leaves a daemon behind, and pass on what that says to our standard error.

    It never waits for us: what a full pipe has no room for is lost, and when we end it writes in
    vain. Raise AgentError as ``run``.
    """
    outcome, reader = _run(command, timeout, command[0])
    if not outcome.code:
        _say(outcome.stderr.encode())
    try:
        start_thread("daemon-stderr", _pass_on, reader)
    except NoThreadError:
        os.close(reader)  # it says more to nobody, as after our end
    return outcome


def _run(command: Sequence[str], timeout: float, name: str) -> tuple[Outcome, int]:
    """Return how the program ended, and the pipe that its children may still write to."""
    try:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise AgentError(f"it can't be run: {error.strerror}", where=name) from error
    try:
        process = subprocess.Popen(  # noqa: S603 - nginx and its like, from arguments of ours, never a shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=writer,
            env={key: value for key, value in os.environ.items() if key not in _NOT_PASSED},
        )
        _await_end(process, timeout, name)
        return Outcome(process.returncode, _read(reader)), reader
    except OSError as error:
        os.close(reader)
        raise AgentError(f"it can't be run: {error.strerror}", where=name) from error
    except AgentError:
        os.close(reader)
        raise
    finally:
        os.close(writer)


def _read(reader: int) -> str:
    try:
        return os.read(reader, _MAX_OUTPUT).decode("utf-8", "replace")
    except BlockingIOError:
        return ""


def _pass_on(reader: int) -> None:
    with open(reader, "rb", buffering=0) as source:
        os.set_blocking(reader, True)
        while True:
            part = source.read(_MAX_OUTPUT)
            if not part:
                return
            _say(part)


def _say(text: bytes) -> None:
    with suppress(OSError, ValueError, AttributeError):  # closed, or full
        os.write(sys.stderr.fileno(), text)


def _await_end(process: subprocess.Popen[bytes], timeout: float, name: str) -> None:
    try:
        has_ended = wait_until(lambda: process.poll() is not None, timeout, poll=0.002)
    except AgentError:
        _kill(process)
        raise
    if not has_ended:
        _kill(process)
        raise AgentError(f"it did not end within {timeout:g} s", where=name)


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    try:
        process.wait(_KILLED_WITHIN)
    except subprocess.TimeoutExpired:
        return  # Python reaps it later, when it starts the next program.
