"""Run another program to its end: one place for time limits and for what it printed."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import Sequence

from kube_nginx_agent.errors import AgentError

_MAX_OUTPUT = 64 * 1024
"""pipe(7): what a pipe holds; a program that writes more is held up and then times out."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended and what it wrote to standard error."""

    code: int
    stderr: str


def run(command: Sequence[str], timeout: float) -> Outcome:
    """Run ``command`` for at most ``timeout`` seconds, with nothing on standard input.

    Waits for the program itself to end, not for its standard error to be closed, as
    ``subprocess.run`` would: a daemon that it leaves behind holds that open.
    Raise AgentError when it can't be started or takes too long.
    """
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as stderr:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=writer
            )
        except OSError as error:
            raise AgentError(f"it can't be run: {error.strerror}", where=command[0]) from error
        finally:
            os.close(writer)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise AgentError(f"it did not end within {timeout:g} s", where=command[0]) from error
        os.set_blocking(stderr.fileno(), False)
        output = stderr.read(_MAX_OUTPUT) or b""
    return Outcome(code, output.decode("utf-8", "replace"))
