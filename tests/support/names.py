"""A name server whose answers are chosen, as a program and as an object that a test holds.

    python3 -m support.names --listen 127.0.0.53:53 --answer 10.0.0.1,10.0.0.2 --answer 10.0.0.2

Each question for an IPv4 address, whatever the name, is given the next answer in turn.
"""

from __future__ import annotations

import argparse
import itertools
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

from support.address import Address, address_argument
from support.process import Closing, first_line, forget, spawn

LISTEN = Address("127.0.0.53", 53)
NAME = "api.test"

_A = 1
_TTL = 5  # seconds
_SECONDS = 10.0

_ENTER = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


class NameServer(Closing):
    """The program as a child; as a context, started and ended."""

    def __init__(
        self, folder: Path, answers: Sequence[Sequence[str]], prefix: Sequence[str] = ()
    ) -> None:
        self._folder = folder
        self._answers = answers
        self._prefix = prefix
        self._child: Optional[subprocess.Popen[bytes]] = None
        self._resolv_conf = folder / "resolv.conf"

    def __enter__(self) -> NameServer:
        self._resolv_conf.write_text(f"nameserver {LISTEN.host}\n", encoding="utf-8")
        arguments = [f"--listen={LISTEN}"]
        arguments += [f"--answer={','.join(answer)}" for answer in self._answers]
        with (self._folder / "names.log").open("wb") as errors:
            child = spawn("support.names", arguments, errors=errors, prefix=self._prefix)
        self._child = child
        try:
            first_line(child, _SECONDS)
        except BaseException:
            self.close()
            raise
        return self

    @property
    def asked_by(self) -> list[str]:
        """What a command is begun with to ask it: a mount namespace with its /etc/resolv.conf."""
        return ["unshare", "--mount", "sh", "-c", _ENTER, str(self._resolv_conf)]

    def close(self) -> None:
        if self._child is not None:
            forget(self._child)
            self._child = None


def reply(question: bytes, addresses: Sequence[str]) -> bytes:
    """Return the answer to a question (RFC 1035): these addresses, or none for another type."""
    end = question.index(b"\0", 12) + 5
    found = addresses if _is_for_ipv4(question) else ()
    head = question[:2] + struct.pack("!HHHHH", 0x8580, 1, len(found), 0, 0)
    records = (
        b"\xc0\x0c" + struct.pack("!HHIH", _A, 1, _TTL, 4) + socket.inet_aton(ip) for ip in found
    )
    return head + question[12:end] + b"".join(records)


def _is_for_ipv4(question: bytes) -> bool:
    at = question.index(b"\0", 12) + 1
    return struct.unpack("!H", question[at : at + 2]) == (_A,)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m support.names")
    parser.add_argument("--listen", type=address_argument, required=True, metavar="HOST:PORT")
    parser.add_argument("--answer", action="append", required=True, metavar="IP,...")
    options = parser.parse_args(arguments)
    with socket.socket(options.listen.family, socket.SOCK_DGRAM) as server:
        server.bind(tuple(options.listen))
        print(f"names: at {options.listen}", flush=True)
        _serve(server, itertools.cycle(answer.split(",") for answer in options.answer))
    return 0


def _serve(server: socket.socket, answers: Iterator[list[str]]) -> None:
    while True:
        question, client = server.recvfrom(4096)
        addresses = next(answers) if _is_for_ipv4(question) else ()
        server.sendto(reply(question, addresses), client)


if __name__ == "__main__":
    sys.exit(main())
