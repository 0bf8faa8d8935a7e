"""A load of kube-apiserver clients, as a program and as an object that a test holds.

    python3 -m support.load --to 127.0.0.1:8443 --rate 200 --seconds 10 --watches 12 --json

It is bounded in count and time and stops by itself; `Load` runs it as a child. The clients' code
is in `generator`, the arithmetic on what they saw in `results`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Callable, Optional

from support.address import Address, address_argument
from support.process import Closing, StartError, first_line, forget, spawn, wait_until
from support.results import Result

MOST_REQUESTS = 1_000_000
MOST_WATCHES = 1_000
MOST_SECONDS = 3_600.0


class Load(Closing):
    """A load in a process of its own; as a context, started and ended."""

    def __init__(
        self,
        to: Address,
        *,
        rate: float = 200.0,
        seconds: float = 60.0,
        watches: int = 0,
        timeout: float = 5.0,
        silence: float = 45.0,
        ping: float = 0.0,
        path: str = "/load",
        ca: Optional[Path] = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self._seconds = seconds
        self._timeout = timeout
        self._arguments = [f"--to={to}", f"--rate={rate}", f"--seconds={seconds}"]
        self._arguments += [f"--watches={watches}", f"--timeout={timeout}", f"--silence={silence}"]
        self._arguments += [f"--ping={ping}"]
        self._arguments += [f"--path={path}", *([] if ca is None else [f"--ca={ca}"])]
        self._prefix = prefix
        self._folder = tempfile.TemporaryDirectory(prefix="load-")
        self._child: Optional[subprocess.Popen[bytes]] = None

    def __enter__(self) -> Load:
        self.start()
        return self

    def start(self, seconds: float = 10.0) -> None:
        """Start it and wait until it has begun."""
        if self._child is not None:
            raise StartError("this load has been started already")
        log = self._file("stderr")
        with log.open("wb") as errors:
            arguments = [*self._arguments, f"--record={self._file('records')}"]
            self._child = spawn("support.load", arguments, errors=errors, prefix=self._prefix)
        try:
            first_line(self._child, seconds)
        except StartError as error:
            self.close()
            raise StartError(f"load: {error}") from None

    def so_far(self) -> Result:
        """Return what it has seen until now."""
        with self._file("records").open() as records:
            return Result.read(records)

    def until(self, condition: Callable[[Result], bool], seconds: float, what: str) -> Result:
        """Wait until what it has seen satisfies the condition; raise TimeoutError if it won't."""

        def seen() -> Optional[Result]:
            result = self.so_far()
            return result if condition(result) else None

        return wait_until(seen, seconds, what)

    def stop(self) -> Result:
        """Begin no more requests, wait for those under way, and return all that was seen."""
        self._running().terminate()
        return self._join(self._timeout)

    def wait(self) -> Result:
        """Wait for its own end and return all that was seen."""
        return self._join(self._seconds + self._timeout)

    def close(self) -> None:
        """End it in whatever state it is, and remove its records."""
        if self._child is not None:
            forget(self._child)
            self._child = None
        self._folder.cleanup()

    def _join(self, seconds: float) -> Result:
        child = self._running()
        try:
            code = child.wait(seconds + 10.0)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the load still runs, pid {child.pid}") from None
        if code:
            raise RuntimeError(f"the load ended with code {code}: {self._errors()}")
        return self.so_far()

    def _errors(self) -> str:
        return self._file("stderr").read_text().strip()

    def _file(self, name: str) -> Path:
        return Path(self._folder.name) / name

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise RuntimeError("the load has not been started")
        return self._child


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if complaint := _out_of_bounds(options):
        parser.error(complaint)
    _allow_many_files()
    with ExitStack() as stack:
        where = options.record or Path(
            stack.enter_context(tempfile.TemporaryDirectory()), "records"
        )
        records = stack.enter_context(where.open("w+", buffering=1))
        asyncio.run(_run(options, records))
        if options.record is None:
            records.seek(0)
            _show(Result.read(records), as_json=options.json)
    return 0


async def _run(options: argparse.Namespace, records: IO[str]) -> None:
    from support.generator import Generator, Plan

    def record(kind: str, values: tuple[object, ...]) -> None:
        records.write(json.dumps([kind, *values]) + "\n")
        if kind == "start" and options.record is not None:
            print(f"load: to {options.to} (pid {os.getpid()})", flush=True)

    wanted = {field: getattr(options, field) for field in Plan.__dataclass_fields__}
    generator = Generator(Plan(**wanted), record)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, generator.stop)
    await generator.run()


def _allow_many_files() -> None:
    """A second of a hanging proxy is hundreds of open connections; the usual limit is 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _show(result: Result, *, as_json: bool) -> None:
    if as_json:
        result.write(sys.stdout)
        return
    for name, value in result.summary().items():
        print(f"{name:14} {value if isinstance(value, (int, float)) else json.dumps(value)}")


def _out_of_bounds(options: argparse.Namespace) -> str:
    if not 0 < options.seconds <= MOST_SECONDS:
        return f"--seconds: above 0, at most {MOST_SECONDS:g}"
    if not 0 <= options.rate * options.seconds <= MOST_REQUESTS:
        return f"--rate times --seconds: at most {MOST_REQUESTS}"
    if not 0 <= options.watches <= MOST_WATCHES:
        return f"--watches: at most {MOST_WATCHES}"
    if min(options.timeout, options.silence) <= 0:
        return "--timeout and --silence: above 0"
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m support.load",
        description="New TLS connections at a constant rate, and open watches; stops by itself.",
    )
    add = parser.add_argument
    add("--to", required=True, type=address_argument, metavar="HOST:PORT")
    add("--rate", type=float, default=200.0, help="new connections a second; 0: watches alone")
    add("--seconds", type=float, default=10.0)
    add("--watches", type=int, default=0, help="how many stay open beside the requests")
    add("--timeout", type=float, default=5.0, metavar="SECONDS", help="for a request")
    add("--silence", type=float, default=45.0, metavar="SECONDS",
        help="until the client gives a watch up")  # fmt: skip
    add("--ping", type=float, default=0.0, metavar="SECONDS",
        help="between bytes that the client of a watch sends; 0: it sends none")  # fmt: skip
    add("--path", default="/load", help="of the requests")
    add("--ca", type=Path, metavar="FILE", help="verify the servers against it")
    add("--json", action="store_true", help="figures and every record as one JSON document")
    add("--record", type=Path, metavar="FILE", help="write records there as they come, show none")
    return parser


if __name__ == "__main__":
    sys.exit(main())
