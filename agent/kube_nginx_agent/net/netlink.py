"""The frame of every message to and from the kernel (netlink(7), linux/netlink.h)."""

from __future__ import annotations

import struct
from typing import Iterator

_HEADER = struct.Struct("=LHHLL")  # struct nlmsghdr


def message(kind: int, flags: int, payload: bytes) -> bytes:
    """Return a message with its header."""
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags, 1, 0) + payload


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and payload of each message of a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += aligned(max(length, _HEADER.size))


def aligned(length: int) -> int:
    """Return the length with the padding that follows it: all begins at a multiple of 4."""
    return (length + 3) & ~3
