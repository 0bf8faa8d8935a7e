"""A far link: what passes between two TAP devices takes its time. No netem is needed.

    python3 -m faultbed.relay --near NAME --far NAME --round-trip 0.3 --jitter 0.2

Makes the devices, says "up", and ends with its parent. The order of packets is kept each way.
"""

from __future__ import annotations

import argparse
import collections
import fcntl
import os
import random
import selectors
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI = 2, 0x1000
_MOST_BYTES = 65536
_SLOT = 0.1  # seconds for which the jitter stays the same: a queue's length on the way
_SEED = 1


@dataclass(frozen=True)
class Way:
    """How long packets take; times in seconds."""

    round_trip: float
    jitter: float
    """A round trip takes up to so much more."""
    spike: float
    """At times all stands still for so long, and then comes at once."""
    every: float
    """Between the beginnings of two spikes; the first comes half of it after the start."""

    def due(self, age: float, direction: int) -> float:
        """Return when a packet arrives that is sent at `age`, seconds after the link's start."""
        dice = random.Random(_SEED + 2 * int(age / _SLOT) + direction)
        due = age + (self.round_trip + self.jitter * dice.random()) / 2
        into = (age + self.every / 2) % self.every
        return due + self.spike - into if into < self.spike else due


class Relay:
    """Passes packets on, each when it is due."""

    def __init__(self, near: int, far: int, way: Way) -> None:
        self._ends = (near, far)
        self._way = way
        self._started = time.monotonic()
        self._queues: tuple[collections.deque[tuple[float, bytes]], ...] = (
            collections.deque(),
            collections.deque(),
        )

    def run(self) -> None:
        """Pass packets on until the standard input ends."""
        selector = selectors.DefaultSelector()
        for source in (*self._ends, sys.stdin.fileno()):
            selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select(self._pause()):
                if key.fd == sys.stdin.fileno():
                    return
                self._take(self._ends.index(key.fd))
            self._deliver()

    def _age(self) -> float:
        return time.monotonic() - self._started

    def _pause(self) -> Optional[float]:
        firsts = [queue[0][0] for queue in self._queues if queue]
        return max(min(firsts) - self._age(), 0.0) if firsts else None

    def _take(self, direction: int) -> None:
        packet = os.read(self._ends[direction], _MOST_BYTES)
        queue = self._queues[direction]
        due = self._way.due(self._age(), direction)
        queue.append((max(due, queue[-1][0]) if queue else due, packet))

    def _deliver(self) -> None:
        for direction, queue in enumerate(self._queues):
            while queue and queue[0][0] <= self._age():
                os.write(self._ends[1 - direction], queue.popleft()[1])


def main(arguments: Optional[Sequence[str]] = None) -> int:
    options = _parser().parse_args(arguments)
    way = Way(options.round_trip, options.jitter, options.spike, options.every)
    relay = Relay(_tap(options.near), _tap(options.far), way)
    print("up", flush=True)
    relay.run()
    return 0


def _tap(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    return device


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m faultbed.relay")
    add = parser.add_argument
    add("--near", required=True, metavar="NAME")
    add("--far", required=True, metavar="NAME")
    add("--round-trip", type=float, default=0.3, metavar="SECONDS")
    add("--jitter", type=float, default=0.0, metavar="SECONDS")
    add("--spike", type=float, default=0.0, metavar="SECONDS")
    add("--every", type=float, default=30.0, metavar="SECONDS")
    return parser


if __name__ == "__main__":
    sys.exit(main())
