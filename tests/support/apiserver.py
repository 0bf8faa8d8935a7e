"""A stand-in kube-apiserver, as a program and as an object that a test holds.

    python3 -m support.apiserver --name api1 --listen 127.0.0.1:16443 --certs DIR

`StandIn` runs that program as a child and ends it by its pid; the server's code is in `server`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from support.address import Address, address_argument
from support.certs import KINDS, Certs, CertsError, make_certs
from support.faults import MODES, Faults, Report
from support.process import Closing, StartError, first_line, forget, spawn

ANYWHERE = Address("127.0.0.1", 0)
_NO_MORE_FILES = 3
"""A limit that the standard streams use up, however many others are closed."""


class StandIn(Closing):
    """A stand-in apiserver in a process of its own; as a context, started and ended.

    Port 0 lets the kernel pick; the port then stays the same over restarts. Faults are gone after
    a restart, as they are with a real one.
    """

    def __init__(
        self,
        name: str,
        certs: Path,
        *,
        listen: Address = ANYWHERE,
        certificate: str = "good",
        shutdown_delay: float = 0.0,
        drain: float = 60.0,
        warm_up: float = 0.0,
        tick: float = 1.0,
        prefix: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.address = listen
        self._certs = certs
        self._options = {
            "certificate": certificate,
            "shutdown-delay": shutdown_delay,
            "drain": drain,
            "warm-up": warm_up,
            "tick": tick,
        }
        self._prefix = prefix
        self._folder: Optional[tempfile.TemporaryDirectory[str]] = None
        self._child: Optional[subprocess.Popen[bytes]] = None
        self._files = (0, 0)

    def __enter__(self) -> StandIn:
        self.start()
        return self

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self, seconds: float = 10.0) -> None:
        """Start it and wait until it accepts; raise StartError with its own words if it can't."""
        if self._child is not None:
            raise StartError(f"{self.name} has been started already")
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix=f"{self.name}-")
        arguments = [f"--name={self.name}", f"--listen={self.address}", f"--certs={self._certs}"]
        arguments += [f"--control={self._control}", "--until-stdin-closes"]
        arguments += [f"--{option}={value}" for option, value in self._options.items()]
        log = Path(self._folder.name) / "stderr"
        with log.open("wb") as errors:
            child = spawn("support.apiserver", arguments, errors=errors, prefix=self._prefix)
        try:
            line = first_line(child, seconds)
        except BaseException as error:
            forget(child)
            if isinstance(error, StartError):
                raise StartError(f"{self.name}: {error}: {log.read_text().strip()}") from None
            raise
        self._child = child
        self.address = Address.parse(line.rsplit("https://", 1)[1].split(" ")[0])

    def stop(self, seconds: float = 10.0) -> None:
        """Let it shut down gracefully (SIGTERM) and wait for its end."""
        self.terminate()
        self.wait(seconds)

    def terminate(self) -> None:
        """Begin a graceful shutdown and don't wait."""
        self._running().terminate()

    def wait(self, seconds: float) -> int:
        """Wait for its end and return its exit code; raise TimeoutError if it goes on."""
        child = self._running()
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} still runs after {seconds:g} s") from None
        self._forget()
        return code

    def kill(self) -> None:
        """End it with SIGKILL: its connections are closed by the kernel."""
        self._running().kill()
        self._forget()

    def freeze(self) -> None:
        """SIGSTOP it and wait until it stands still; its kernel goes on accepting connections."""
        self._running().send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def thaw(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def use_up_files(self) -> None:
        """Have it at its limit of open files: its kernel accepts connections, and it does not."""
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        self._files = resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (_NO_MORE_FILES, hard))

    def free_files(self) -> None:
        """Let it open files again."""
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, self._files)

    def restart(self, seconds: float = 10.0) -> None:
        """Stop it gracefully, watches cut off after its drain, and start it on the same port."""
        self.stop(seconds)
        self.start(seconds)

    def close(self) -> None:
        """End it in whatever state it is, and remove what it leaves."""
        if self._child is not None:
            self._forget()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def fault(self, **changes: object) -> Report:
        """Change some of its `Faults` at run time; raise ValueError for one that there isn't."""
        self._running()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.settimeout(5.0)
            control.connect(self._control)
            control.sendall(json.dumps(changes).encode() + b"\n")
            with control.makefile("rb") as answers:
                answer = json.loads(answers.readline())
        if "error" in answer:
            raise ValueError(answer["error"])
        return Report.of(answer)

    def heal(self) -> Report:
        """Take all faults away."""
        return self.fault(**vars(Faults()))

    def report(self) -> Report:
        return self.fault()

    @property
    def _control(self) -> str:
        assert self._folder is not None
        return f"{self._folder.name}/control"

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise RuntimeError(f"{self.name} does not run")
        return self._child

    def _forget(self) -> None:
        child, self._child = self._running(), None
        forget(child)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        host = options.listen.host
        extra = () if host in ("127.0.0.1", "::1", "localhost") else (host,)
        certs = make_certs(options.certs, extra, kind=options.certificate)
        return asyncio.run(_run(options, certs))
    except (CertsError, OSError) as error:
        print(f"{options.name}: {error}", file=sys.stderr)
        return 1


async def _run(options: argparse.Namespace, certs: Certs) -> int:
    from support.server import ApiServer, Options

    wanted = {field: getattr(options, field) for field in Options.__dataclass_fields__}
    faults = Faults().changed({"mode": options.mode, "readyz": options.readyz})
    server = ApiServer(Options(**wanted), _context(certs), faults)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, server.stop)
    loop.add_signal_handler(signal.SIGINT, server.stop_now)  # Ctrl-C ends it without a drain
    if options.until_stdin_closes:
        loop.add_reader(sys.stdin, server.stop_now)
    try:
        address = await server.open()
    except OSError as error:
        print(f"{options.name}: cannot listen on {options.listen}: {error.strerror}",
              file=sys.stderr)  # fmt: skip
        return 1
    print(f"{options.name}: https://{address} (pid {os.getpid()})", flush=True)
    await server.run()
    return 0


def _context(certs: Certs) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs.cert, certs.key)
    context.num_tickets = 0  # every handshake is a full one
    return context


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m support.apiserver",
        description="A stand-in kube-apiserver. SIGTERM shuts it down gracefully, Ctrl-C at once.",
        epilog="modes: " + "; ".join(f"{mode}: {what}" for mode, what in MODES.items()),
    )
    add = parser.add_argument
    add("--name", required=True, help="what it calls itself in its answers")
    add("--listen", required=True, type=address_argument, metavar="HOST:PORT", help="port 0: any")
    add("--certs", required=True, type=Path, metavar="DIR", help="made there if missing")
    add("--certificate", choices=KINDS, default="good", help="what it presents")
    add("--control", type=Path, metavar="SOCKET", help="unix socket for faults and counters")
    add("--shutdown-delay", type=float, default=0.0, metavar="SECONDS",
        help="red /readyz before the listener closes")  # fmt: skip
    add("--drain", type=float, default=60.0, metavar="SECONDS",
        help="open watches are served so long after the listener closed")  # fmt: skip
    add("--warm-up", type=float, default=0.0, metavar="SECONDS",
        help="/readyz says 403, then 500, at first")  # fmt: skip
    add("--tick", type=float, default=1.0, metavar="SECONDS", help="between lines of a watch")
    add("--mode", choices=MODES, default="none", help="start with this fault")
    add("--readyz", type=int, default=200, metavar="STATUS", help="start with this /readyz")
    add("--until-stdin-closes", action="store_true", help="end when the parent does")
    return parser


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
