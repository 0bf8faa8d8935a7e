#!/usr/bin/env python3
"""What all nodes of a cluster do in the seconds after a fault that they see at the same time.

The agent's own monitor and paces, one a node, in virtual time: nothing is probed for real.

    PYTHONPATH=agent:tests python3 benchmarks/hiccup.py --nodes 500 --scale 5000
"""

from __future__ import annotations

import argparse
import math
import random
from collections import Counter

from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.observation import Layer
from support.virtual import Fault, VirtualNode, World

_BACKENDS = [parse_address(f"10.0.0.{number}:6443") for number in (1, 2, 3)]
_AT = 20.0  # seconds of quiet before the fault
_SECONDS = 30.0

Faults = dict[SocketAddress, list[Fault]]


def _all(*faults: Fault) -> Faults:
    return {backend: list(faults) for backend in _BACKENDS}


def _some(number: int, *faults: Fault) -> Faults:
    return {b: list(faults) if at < number else [] for at, b in enumerate(_BACKENDS)}


_STORIES: dict[str, Faults] = {
    "nothing happens": _all(),
    "etcd hangs for 5 s: 2 s, then 500": _all(
        Fault("slow", _AT, _AT + 5, by=2.0), Fault("red", _AT, _AT + 5)
    ),
    "etcd is slow for 20 s: 0.8 s": _all(Fault("slow", _AT, _AT + 20, by=0.8)),
    "a switch loses two of three for 8 s": _some(2, Fault("silent", _AT, _AT + 8)),
    "a switch loses all for 8 s": _all(Fault("silent", _AT, _AT + 8)),
    "a switch loses all for 8 s, one for good": {
        **_all(Fault("silent", _AT, _AT + 8)),
        _BACKENDS[0]: [Fault("silent", _AT)],
    },
    "an apiserver's host dies": _some(1, Fault("silent", _AT)),
    "an apiserver freezes": _some(1, Fault("frozen", _AT)),
}


def main() -> None:
    """Play every story and print a row of figures for each."""
    parser = argparse.ArgumentParser(description="What a fleet does after a shared fault.")
    parser.add_argument("--nodes", type=int, default=500, help="how many are played")
    parser.add_argument("--scale", type=int, default=5000, help="for how many they stand")
    chosen = parser.parse_args()
    print(f"for {chosen.scale} nodes; a second's figures are those of the busiest second")
    print("| fault | connects/s | new handshakes/s | questions/s | nodes that cut | cuts/s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for story, faults in _STORIES.items():
        print(_row(story, faults, chosen.nodes, chosen.scale / chosen.nodes), flush=True)


def _row(story: str, faults: Faults, nodes: int, factor: float) -> str:
    """Return the figures of one story; those of looks are of the busiest apiserver."""
    looks: Counter[tuple[SocketAddress, str, int]] = Counter()
    cuts: Counter[int] = Counter()
    cutters = 0
    for number in range(nodes):
        node = VirtualNode(World(faults, dice=random.Random(number)), name=f"node {number}")
        _let_clients_notice(node, faults, random.Random(number))
        node.run(_AT + _SECONDS)
        for at, backend, layer, fresh in node.looks:
            if at >= _AT:
                looks[backend, _kind(layer, fresh=fresh), math.floor(at - _AT)] += 1
        cutters += bool(node.cuts)
        cuts.update(math.floor(at - _AT) for at, _ in node.cuts)
    busiest = {
        kind: max((n for (_, known, _), n in looks.items() if known == kind), default=0)
        for kind in ("connect", "handshake", "question")
    }
    figures = [busiest["connect"], busiest["handshake"], busiest["question"], cutters]
    figures.append(max(cuts.values(), default=0))
    return f"| {story} | " + " | ".join(f"{figure * factor:,.0f}" for figure in figures) + " |"


def _kind(layer: Layer, *, fresh: bool) -> str:
    if layer is Layer.TCP:
        return "connect"
    return "handshake" if fresh else "question"


def _let_clients_notice(node: VirtualNode, faults: Faults, dice: random.Random) -> None:
    """Half of the nodes have clients that meet the fault within its first second."""
    for backend, known in faults.items():
        if not known or dice.random() < 0.5:
            continue
        began = _AT + dice.random()
        if known[0].kind == "silent":
            node.complain(began + 0.25, backend)
        else:
            node.wait_in_vain(began + 0.4, backend)


if __name__ == "__main__":
    main()
