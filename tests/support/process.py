"""Starting the support programs as children that announce themselves with one line."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Callable, Optional, TypeVar

T = TypeVar("T")
C = TypeVar("C", bound="Closing")

HERE = Path(__file__).resolve().parent.parent  # the folder that holds the package `support`


class Closing:
    """A context that is closed when it is left, however it is left."""

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        raise NotImplementedError


class StartError(Exception):
    """A child ended, or stayed silent, before it said that it runs."""


def spawn(
    module: str,
    arguments: Sequence[str],
    *,
    errors: Optional[IO[bytes]],
    prefix: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Start `python3 -m MODULE`; `prefix` may enter a namespace (`ip netns exec NAME`)."""
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(HERE), inherited] if inherited else [str(HERE)])
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


def first_line(child: subprocess.Popen[bytes], seconds: float) -> str:
    """Wait for the child's first line; raise StartError if it doesn't come in time."""
    assert child.stdout is not None
    line, deadline = b"", time.monotonic() + seconds
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([child.stdout], [], [], left)[0]:
            raise StartError(f"nothing heard of pid {child.pid} within {seconds:g} s")
        if not (byte := os.read(child.stdout.fileno(), 1)):
            raise StartError(f"pid {child.pid} ended with code {child.wait()}")
        line += byte
    return line.decode().strip()


def forget(child: subprocess.Popen[bytes]) -> None:
    """Make sure that the child is gone (SIGKILL also ends a stopped one), and close its pipes."""
    if child.poll() is None:
        child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()


def wait_until(condition: Callable[[], Optional[T]], seconds: float, what: str) -> T:
    """Return the condition's first true value; raise TimeoutError, naming `what`, if none comes."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)
    return value
