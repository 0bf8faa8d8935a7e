"""Run another program to its end: one place for time limits and for what it printed."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import Sequence

from kube_nginx_agent.errors import AgentError
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
    name = name or command[0]
    try:
        reader, writer = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise AgentError(f"it can't be run: {error.strerror}", where=name) from error
    with open(reader, "rb", buffering=0) as stderr:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=writer,
                env={name: value for name, value in os.environ.items() if name not in _NOT_PASSED},
            )
        except OSError as error:
            raise AgentError(f"it can't be run: {error.strerror}", where=name) from error
        finally:
            os.close(writer)
        _await_end(process, timeout, name)
        os.set_blocking(stderr.fileno(), False)
        output = stderr.read(_MAX_OUTPUT) or b""
    return Outcome(process.returncode, output.decode("utf-8", "replace"))


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
