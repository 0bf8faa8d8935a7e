"""`make bench-faults`: what clients notice when apiservers fail, with this agent and with others.

    python3 benchmarks/faults.py --nginx PATH [--only agent,haproxy-tuned] [--faults silent,frozen]

Everything runs in network namespaces made for it, and ends with them.
"""

from __future__ import annotations

import argparse
import functools
import json
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Optional

from faultbed import network, peers, report, rows
from faultbed.figures import measure
from faultbed.network import HOST_IPS, Network
from faultbed.peers import Peer
from faultbed.report import Run
from faultbed.rows import Fault
from faultbed.stage import Stage
from support.certs import make_certs
from support.process import StartError

_PEERS = {peer.name: peer for peer in peers.ALL}
_FAULTS = {fault.name: fault for fault in rows.FAULTS}


def main(arguments: Optional[Sequence[str]] = None) -> int:
    options = _parser().parse_args(arguments)
    if reason := network.missing():
        print(f"faults: {reason}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    chosen = [_PEERS[name] for name in options.only]
    faults = [_FAULTS[name] for name in options.faults]
    skipped = [f"{peer.name} is left out: {why}" for peer in chosen if (why := peer.missing())]
    for line in skipped:
        print(line, flush=True)
    chosen = [peer for peer in chosen if not peer.missing()]
    runs: list[Run] = []
    try:
        for run in _play_all(chosen, faults, options):
            runs.append(run)  # noqa: PERF402 - what came before Ctrl-C counts
        code = 0
    except KeyboardInterrupt:
        code = 130
    if options.json:
        document = report.document(runs, faults, chosen, options.nginx, skipped)
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"\n{report.table(runs, faults, chosen)}\n")
    for failing in report.missed(runs, faults):
        print(f"missed: {failing}")
    return code


def _play_all(
    chosen: Sequence[type[Peer]], faults: Sequence[Fault], options: argparse.Namespace
) -> Iterator[Run]:
    """Yield each run in its turn, though some are played at the same time."""
    plays = [(fault, peer) for fault in faults for peer in chosen if report.can_play(peer, fault)]
    with ExitStack() as stack:
        certs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kna-certs-")))
        for ip in HOST_IPS:
            make_certs(certs, [ip])
        networks: queue.SimpleQueue[Network] = queue.SimpleQueue()
        for _ in range(options.jobs):
            networks.put(stack.enter_context(Network()))
        pool, over = ThreadPoolExecutor(options.jobs), threading.Event()
        stack.callback(pool.shutdown, cancel_futures=True)
        stack.callback(over.set)
        play = functools.partial(_play, networks, certs, over, options)
        for under_way in [pool.submit(play, peer, fault) for fault, peer in plays]:
            if run := under_way.result():
                yield run


def _play(
    networks: queue.SimpleQueue[Network],
    certs: Path,
    over: threading.Event,
    options: argparse.Namespace,
    peer: type[Peer],
    fault: Fault,
) -> Optional[Run]:
    """Play a fault to a peer in a network that is free now."""
    made = networks.get()
    try:
        return _play_in(made, certs, over, options, peer, fault)
    finally:
        networks.put(made)


def _play_in(
    made: Network,
    certs: Path,
    over: threading.Event,
    options: argparse.Namespace,
    peer: type[Peer],
    fault: Fault,
) -> Optional[Run]:
    """Play it and return what came of it; without a result, say why there is none."""
    began = time.monotonic()
    make_peer = functools.partial(peer, node=made.node, nginx=options.nginx)
    stage = Stage(made, certs, make_peer, terms=fault.terms, over=over)
    try:
        with stage:
            fault.play(stage)
            result = stage.finish()
    except (OSError, RuntimeError, StartError) as error:
        print(f"{fault.name}, {peer.name}: no result: {error}\n{stage.log}", flush=True)
        return None
    run = Run(peer.name, fault.name, measure(result, stage.course))
    if options.logs:
        options.logs.mkdir(exist_ok=True)
        stem = options.logs / f"{fault.name}.{peer.name}"
        stem.with_suffix(f".{peer.name}.log").write_text(stage.log, encoding="utf-8")
        with stem.with_suffix(f".{peer.name}.json").open("w") as trace:
            result.write(trace)
    told = ", ".join(f"{name} {getattr(run.figures, name)}" for name in fault.figures)
    print(f"{fault.name}, {peer.name}: {told} ({time.monotonic() - began:.0f} s)", flush=True)
    return run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Compare what clients notice of a fault.")
    add = parser.add_argument
    usual = [name for name, fault in _FAULTS.items() if not fault.is_extra]
    add("--nginx", type=Path, required=True, help="the stream-only nginx, for all that use one")
    add("--only", type=functools.partial(_names, _PEERS), default=list(_PEERS),
        metavar="PEERS", help=f"some of {','.join(_PEERS)}")  # fmt: skip
    add("--faults", type=functools.partial(_names, _FAULTS), default=usual, metavar="FAULTS",
        help=f"all, or some of {','.join(_FAULTS)}; else {','.join(usual)}")  # fmt: skip
    add("--jobs", type=int, choices=range(1, 9), default=2,
        help="how many are played at the same time, each in a network of its own; 2")  # fmt: skip
    add("--json", type=Path, metavar="FILE", help="write figures, versions and machine there")
    add("--logs", type=Path, metavar="DIR", help="keep each peer's log and each load's trace there")
    return parser


def _names(known: Mapping[str, object], text: str) -> list[str]:
    names = list(known) if text == "all" else text.split(",")
    if unknown := [name for name in names if name not in known]:
        there = ", ".join(known)
        raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {there}")
    return names


if __name__ == "__main__":
    sys.exit(main())
