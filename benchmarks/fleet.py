"""`make bench-fleet`: what the probes of a whole cluster's nodes cost one apiserver.

    python3 benchmarks/fleet.py [--nodes 250,500,1000] [--seconds 30] [--json FILE]

The agent's own probes, at its default pace, against HAProxy on one thread as the TLS server: it
stands for the part that any server has to do (accept, TLS, HTTP), not for a kube-apiserver's own
work on /readyz. Both are in one network namespace, on its loopback.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import psutil

from faultbed import network
from faultbed.network import Namespace
from faultbed.report import machine
from support.address import Address
from support.certs import make_certs
from support.process import wait_until

SERVER = Address("127.0.0.1", 6443)
FLEET = 5000  # nodes, for which the cost is worked out
ALONE = 500  # nodes, for the cost of each probe alone

_HAPROXY = """\
global
  maxconn 4000
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 100s
  timeout server 100s
  timeout http-keep-alive 90s
frontend api
  bind {server} ssl crt {pem}
  http-request return status 200 content-type text/plain string ok if {{ path /readyz }}
  http-request return status 404
"""


@dataclass(frozen=True)
class Cost:
    """What so many nodes' probes cost the server."""

    nodes: int
    layers: str
    probes_per_second: float
    cpu_percent: float
    """Of one core, without what the server uses when nobody asks."""
    us_per_probe: float
    first_ms_per_node: float
    """CPU time of a node's first probes: the handshake."""
    late: float
    """How late the probes were at worst, in seconds."""


def main() -> int:
    options = _parser().parse_args()
    if reason := network.missing():
        print(f"fleet: {reason}", file=sys.stderr)
        return 1
    plans = [(ALONE, "tcp"), (ALONE, "readyz"), *((n, "tcp,readyz") for n in options.nodes)]
    namespace = Namespace()
    try:
        with tempfile.TemporaryDirectory(prefix="kna-fleet-") as folder:
            costs = [_measure(namespace, Path(folder), *plan, options.seconds) for plan in plans]
    finally:
        namespace.close()
    print(_table(costs))
    print(f"\n{_conclusion(costs[-1])}")
    if options.json:
        document = {
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": machine(),
            "costs": [asdict(cost) for cost in costs],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def _measure(namespace: Namespace, folder: Path, nodes: int, layers: str, seconds: float) -> Cost:
    with _server(namespace, folder) as server:
        idle = _cpu(server)
        command = [sys.executable, "-m", "faultbed.fleet", f"--to={SERVER}", f"--nodes={nodes}"]
        command += [f"--layers={layers}", f"--seconds={seconds}"]
        with subprocess.Popen(
            [*namespace.prefix, *command], stdout=subprocess.PIPE, text=True
        ) as fleet:
            assert fleet.stdout is not None
            if fleet.stdout.readline() != "steady\n":
                raise RuntimeError("the fleet did not get so far")
            began, first = time.monotonic(), _cpu(server)
            seen = json.loads(fleet.stdout.readline())
            lasted, used = time.monotonic() - began, _cpu(server) - first
    if fleet.returncode:
        raise RuntimeError(f"probes failed: {seen}")
    probes = sum(seen["counts"].values())
    return Cost(
        nodes=nodes,
        layers=layers,
        probes_per_second=round(probes / lasted, 1),
        cpu_percent=round(100 * used / lasted, 2),
        us_per_probe=round(1e6 * used / probes, 1),
        first_ms_per_node=round(1000 * (first - idle) / nodes, 2),
        late=seen["late"],
    )


@contextmanager
def _server(namespace: Namespace, folder: Path) -> Iterator[psutil.Process]:
    certs = make_certs(folder)
    pem, config = folder / "server.pem", folder / "haproxy.cfg"
    pem.write_bytes(certs.cert.read_bytes() + certs.key.read_bytes())
    config.write_text(_HAPROXY.format(server=SERVER, pem=pem), encoding="utf-8")
    child = subprocess.Popen([*namespace.prefix, "haproxy", "-db", "-f", str(config)])
    try:
        wait_until(lambda: namespace.is_listening(SERVER), 10.0, "haproxy listens")
        yield psutil.Process(child.pid)
    finally:
        child.kill()
        child.wait()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _table(costs: Sequence[Cost]) -> str:
    rows = [["nodes", "probes", "probes a second", "CPU of one core", "CPU a probe", "first probe"]]
    rows.append(["---"] * len(rows[0]))
    rows += [
        [
            f"{cost.nodes}",
            cost.layers.replace(",", " and "),
            f"{cost.probes_per_second:g}",
            f"{cost.cpu_percent:.1f} %",
            f"{cost.us_per_probe:.0f} µs",
            f"{cost.first_ms_per_node:.2f} ms",
        ]
        for cost in costs
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _conclusion(cost: Cost) -> str:
    scale = FLEET / cost.nodes
    return (
        f"{FLEET} nodes, scaled by {scale:g} from {cost.nodes}: "
        f"{cost.probes_per_second * scale:.0f} probes a second, "
        f"{cost.cpu_percent * scale:.0f} % of one core; all at once again after a restart: "
        f"{cost.first_ms_per_node * FLEET / 1000:.1f} s of CPU time"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="What a fleet's probes cost one apiserver.")
    add = parser.add_argument
    add("--nodes", type=_numbers, default=[250, 500, 1000], help="simulated at once")
    add("--seconds", type=float, default=30.0, help="of each measurement")
    add("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
