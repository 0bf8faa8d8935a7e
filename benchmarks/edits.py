"""How fast an edit goes live, what a hundred of them cost clients, and what the agent costs idle.

    python3 benchmarks/edits.py --nginx PATH [--json FILE]        (or `make bench`)

All is real: nginx, the agent as a process, stand-in apiservers, TLS clients; and all is looked at
from outside. What the agent says of itself is not used.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import platform
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Optional

from support.address import Address
from support.agent_process import AgentProcess
from support.apiserver import StandIn
from support.load import Load
from support.process import wait_until
from support.results import Result

LISTEN = Address("127.0.0.1", 18443)
RATE, WATCHES = 200.0, 12
SETTLE = 5.0  # seconds after the start before the agent counts as idle
WARM_UP = 3.0  # seconds of load before the first edit: what a request takes without any
SECONDS = 15.0  # deadline of an edit


@dataclass(frozen=True)
class Spread:
    """Some durations, in milliseconds."""

    number: int
    min: float
    median: float
    p95: float
    max: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Spread:
        """Sum up durations given in seconds."""
        times = sorted(1000 * value for value in seconds)
        p95 = times[max(0, math.ceil(len(times) * 0.95) - 1)]
        figures = (times[0], statistics.median(times), p95, times[-1])
        return cls(len(times), *(round(figure, 1) for figure in figures))


@dataclass(frozen=True)
class Edit:
    """Seconds from just before the rename()."""

    proven: float  # the new generation answers, and every earlier worker is gone or retiring
    first_client: float  # a new TLS connection reaches the new list


@dataclass(frozen=True)
class Burst:
    """What the clients of `RATE` and `WATCHES` saw while edits went live one after another."""

    edits: int
    seconds: float
    requests: int
    failed: int
    slow: int
    cut: int
    late: float
    calm_ms: dict[str, float]
    edited_ms: dict[str, float]


@dataclass(frozen=True)
class Idle:
    """The agent's process while nothing happens."""

    seconds: float
    resident_mb: float
    cpu_percent: float
    threads: int
    descriptors: int


def measure_edits(agent: AgentProcess, apis: Sequence[StandIn], number: int) -> list[Edit]:
    """Swap the one backend for another, again and again."""
    agent.write([apis[0].address])
    agent.wait_for_servers([apis[0].address])
    _wait_for_retired(agent)
    edits = []
    for count in range(1, number + 1):
        api = apis[count % len(apis)]
        edits.append(_measure_edit(agent, api))
        _wait_for_retired(agent)
    return edits


def _measure_edit(agent: AgentProcess, api: StandIn) -> Edit:
    old_workers, old_generation = agent.worker_pids(), agent.generation()
    beside = agent.config.with_name("beside")
    beside.write_text(agent.text([api.address]), encoding="utf-8")
    reached: list[float] = []
    client = threading.Thread(target=_reach, args=(api.name, reached))
    client.start()
    began = time.monotonic()
    beside.replace(agent.config)
    while agent.generation() in (None, old_generation) or _are_serving(old_workers):
        if time.monotonic() > began + SECONDS:
            raise TimeoutError("an edit did not go live:\n" + "\n".join(agent.lines()))
        time.sleep(0.001)
    proven = time.monotonic() - began
    client.join()
    return Edit(proven, reached[0] - began)


def _are_serving(workers: Iterable[int]) -> bool:
    return any(b"worker process" in _title(pid) and b"shutting" not in _title(pid)
               for pid in workers)  # fmt: skip


def _wait_for_retired(agent: AgentProcess) -> None:
    wait_until(lambda: len(agent.worker_pids()) == 2, SECONDS, "the old workers are gone")


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _reach(name: str, reached: list[float]) -> None:
    """Connect anew until the apiserver of this name answers; note when that was begun."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        now = time.monotonic()
        if _who_answers() == name:
            reached.append(now)
            return
        time.sleep(0.002)


def _who_answers() -> str:
    connection = http.client.HTTPSConnection(*LISTEN, timeout=5, context=_context())
    try:
        connection.request("GET", "/")
        return str(json.loads(connection.getresponse().read())["name"])
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def measure_burst(agent: AgentProcess, apis: Sequence[StandIn], number: int) -> Burst:
    """Edit as fast as one edit after another goes live, under load."""
    addresses = [api.address for api in apis]
    agent.write(addresses)
    agent.wait_for_servers(addresses)
    with Load(LISTEN, rate=RATE, watches=WATCHES, seconds=600) as load:
        time.sleep(WARM_UP)
        began = time.monotonic()
        for count in range(number):
            timeout, deadline = f"{601 + 60 * count}s", time.monotonic() + SECONDS
            agent.write_text(agent.text(addresses) + f"proxy: {{idle_timeout: {timeout}}}\n")
            while f"proxy_timeout {timeout};" not in (agent.live_text() or ""):
                if time.monotonic() > deadline:
                    raise TimeoutError("an edit did not go live:\n" + "\n".join(agent.lines()))
                time.sleep(0.005)
        ended = time.monotonic()
        time.sleep(1.0)
        seen = load.stop()
    return Burst(
        edits=number,
        seconds=round(ended - began, 1),
        requests=len(seen.requests),
        failed=seen.count("failed"),
        slow=seen.count("slow"),
        cut=len(seen.cuts) + len(seen.misses),
        late=round(1000 * seen.late, 1),
        calm_ms=_percentiles(seen, -math.inf, began),
        edited_ms=_percentiles(seen, began, ended),
    )


def _percentiles(seen: Result, since: float, until: float) -> dict[str, float]:
    part = Result(requests=[request for request in seen.requests if since <= request.at < until])
    return {f"p{p:g}": round(1000 * part.latency(p), 1) for p in (50, 90, 99, 99.9, 100)}


def measure_idle(agent: AgentProcess, seconds: float) -> Idle:
    """Look at the agent's process, with three backends and nobody who does anything."""
    before = _cpu(agent.pid)
    time.sleep(seconds)
    used = _cpu(agent.pid) - before
    lines = Path(f"/proc/{agent.pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return Idle(
        seconds=seconds,
        resident_mb=round(int(status["VmRSS"].split()[0]) / 1024, 1),
        cpu_percent=round(100 * used / seconds, 2),
        threads=int(status["Threads"]),
        descriptors=len(os.listdir(f"/proc/{agent.pid}/fd")),
    )


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine(nginx: Path) -> dict[str, object]:
    version = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr
    return {
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nginx": version.partition("nginx version: ")[2].strip(),
    }


def run(options: argparse.Namespace) -> dict[str, object]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kna-bench-")))
        folder.chmod(0o755)  # nginx's workers are another user when this is root
        apis = [stack.enter_context(StandIn(f"api{i}", folder / "certs")) for i in (1, 2, 3)]
        agent = stack.enter_context(AgentProcess(folder, options.nginx.absolute(), LISTEN))
        agent.start([api.address for api in apis])
        time.sleep(SETTLE)
        fresh = measure_idle(agent, options.idle)
        edits = measure_edits(agent, apis, options.edits)
        burst = measure_burst(agent, apis, options.burst)
        idle = measure_idle(agent, options.idle)
        agent.stop()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(options.nginx),
        "edit_to_proof_ms": asdict(Spread.of(edit.proven for edit in edits)),
        "edit_to_first_client_ms": asdict(Spread.of(edit.first_client for edit in edits)),
        "burst": asdict(burst),
        "fresh": asdict(fresh),
        "idle": asdict(idle),
    }


def table(result: dict[str, object]) -> str:
    proof, client = result["edit_to_proof_ms"], result["edit_to_first_client_ms"]
    burst, fresh, idle = result["burst"], result["fresh"], result["idle"]
    host = result["machine"]
    assert isinstance(proof, dict)
    assert isinstance(client, dict)
    assert isinstance(burst, dict)
    assert isinstance(fresh, dict)
    assert isinstance(idle, dict)
    assert isinstance(host, dict)
    rows = [("", *Spread.__dataclass_fields__)]
    rows.append(("rename to proof, ms", *map(str, proof.values())))
    rows.append(("rename to first client, ms", *map(str, client.values())))
    calm, edited = burst["calm_ms"], burst["edited_ms"]
    more = [("", *calm), ("request without edits, ms", *map(str, calm.values()))]
    more.append(("request during edits, ms", *map(str, edited.values())))
    return "\n".join(
        [
            f"{result['date']}: {host['cores']} cores, Linux {host['kernel']}, "
            f"Python {host['python']}, {host['nginx']}",
            "",
            *_aligned(rows),
            "",
            f"{burst['edits']} edits in {burst['seconds']} s, under {RATE:g} new TLS connections "
            f"a second and {WATCHES} watches:",
            f"{burst['requests']} requests, {burst['failed']} failed, {burst['slow']} slower than "
            f"0.5 s; {burst['cut']} watches cut",
            "",
            *_aligned(more),
            "",
            f"idle for {idle['seconds']:g} s:",
            *_aligned(
                [
                    ("", "MB resident", "% of a core", "threads", "descriptors"),
                    ("just started", *map(str, list(fresh.values())[1:])),
                    ("after all this", *map(str, list(idle.values())[1:])),
                ]
            ),
        ]
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    first, *others = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join([row[0].ljust(first), *(c.rjust(w) for c, w in zip(row[1:], others))])
        for row in rows
    ]


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="What an edit of backends.yaml costs.")
    add = parser.add_argument
    add("--nginx", type=Path, required=True, metavar="PATH")
    add("--edits", type=int, default=30, help="measured one by one (default: %(default)s)")
    add("--burst", type=int, default=100, help="in a row, under load (default: %(default)s)")
    add("--idle", type=float, default=20.0, metavar="SECONDS", help="(default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args(arguments)
    result = run(options)
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
