"""HOST:PORT as people write it."""

from __future__ import annotations

import argparse
import socket
from typing import NamedTuple


class Address(NamedTuple):
    """A numeric IPv4 or IPv6 address, or `localhost`, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `127.0.0.1:6443` or `[::1]:6443`; raise ValueError for anything else."""
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or not host or not port.isdecimal() or (":" in host) != bracketed:
            raise ValueError(f"{text!r} is not HOST:PORT (IPv6 in brackets)")
        if int(port) > 65535:
            raise ValueError(f"{text!r}: the port is above 65535")
        return cls(host[1:-1] if bracketed else host, int(port))


def address_argument(text: str) -> Address:
    """Read an address on a command line: argparse then shows why it is none."""
    try:
        return Address.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
