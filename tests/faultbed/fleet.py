"""The probes of many nodes against one apiserver: the agent's own probes, at its own pace.

    python3 -m faultbed.fleet --to 127.0.0.1:6443 --nodes 500 --layers tcp,readyz --seconds 30

Says "steady" once every node has probed once, and how many probes it then made; ends by itself.
"""

from __future__ import annotations

import argparse
import heapq
import ipaddress
import json
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Callable

from kube_nginx_agent.health.prober import EVERY_NTH_IS_FRESH, ReadyzAsker
from kube_nginx_agent.health.readyz import ReadyzProbe
from kube_nginx_agent.model import HealthCheck, Probe, SocketAddress
from kube_nginx_agent.net.tcp import probe_tcp
from kube_nginx_agent.net.tls import trust_anybody
from kube_nginx_agent.observation import Observation, Result
from support.address import Address, address_argument

JITTER = 0.2  # an interval is up to this part shorter, as in the agent's prober
MOST_NODES = 2000
MOST_SECONDS = 120.0
_THREADS = 16


@dataclass
class Repeated:
    """One probe of one node."""

    look: Callable[[float], Observation]
    probe: Probe

    def pause(self, dice: random.Random) -> float:
        return self.probe.interval.total_seconds() * (1 - JITTER * dice.random())


class Fleet:
    """Makes each probe when it is due, in a few threads."""

    def __init__(self, probes: list[Repeated]) -> None:
        self._probes = probes
        self._dice = random.Random(1)
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.late = 0.0

    def look_once(self) -> None:
        """Have every probe made once: connections are opened, which are then kept."""
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self._look, self._probes))

    def run(self, seconds: float) -> dict[str, int]:
        """Probe for so long and return how often with which result."""
        self._counts.clear()
        now = time.monotonic()
        end = now + seconds
        due = [
            (now + probe.probe.interval.total_seconds() * self._dice.random(), number)
            for number, probe in enumerate(self._probes)
        ]
        heapq.heapify(due)
        with ThreadPoolExecutor(_THREADS) as pool:
            while due[0][0] < end:
                at, number = heapq.heappop(due)
                if (early := at - time.monotonic()) > 0:
                    time.sleep(early)
                self.late = max(self.late, -early)
                pool.submit(self._look, self._probes[number])
                heapq.heappush(due, (at + self._probes[number].pause(self._dice), number))
        return dict(self._counts)

    def _look(self, probe: Repeated) -> None:
        seen = probe.look(probe.probe.timeout.total_seconds())
        with self._lock:
            self._counts[f"{seen.layer.value} {seen.result.value}"] += 1


def make_probes(to: Address, nodes: int, layers: list[str]) -> list[Repeated]:
    """Return each node's probes, with the agent's defaults."""
    address = SocketAddress(ipaddress.ip_address(to.host), to.port)
    check, context = HealthCheck(), trust_anybody()
    made = []
    make = lambda to: ReadyzProbe(to, check.path, lambda: context)  # noqa: E731
    for turn in range(nodes):
        if "tcp" in layers:
            made.append(Repeated(lambda timeout: probe_tcp(address, timeout), check.tcp))
        if "readyz" in layers:
            # As in the agent: now and then a whole new handshake, at another time on each node.
            asker = ReadyzAsker(address, make, turn % EVERY_NTH_IS_FRESH)
            made.append(Repeated(partial(_ask, asker), check.readyz))
    return made


def _ask(asker: ReadyzAsker, timeout: float) -> Observation:
    return asker.next_look(fresh=False)(timeout)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m faultbed.fleet")
    parser.add_argument("--to", type=address_argument, required=True)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--layers", type=lambda text: text.split(","), default=["tcp", "readyz"])
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    if not 0 < options.nodes <= MOST_NODES or not 0 < options.seconds <= MOST_SECONDS:
        parser.error(f"at most {MOST_NODES} nodes and {MOST_SECONDS:g} seconds")
    fleet = Fleet(make_probes(options.to, options.nodes, options.layers))
    fleet.look_once()
    print("steady", flush=True)
    counts = fleet.run(options.seconds)
    print(json.dumps({"counts": counts, "late": round(fleet.late, 3)}), flush=True)
    good = {f"{layer} {Result.OK.value}" for layer in options.layers}
    return 0 if set(counts) <= good else 1


if __name__ == "__main__":
    sys.exit(main())
