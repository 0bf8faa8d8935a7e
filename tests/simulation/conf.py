"""A config as nginx takes it, read from its text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Tuple

from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.nginx.rendering import generation_of

_SERVER = re.compile(r"^        server (\S+) (.*);", re.MULTILINE)
_MAX_FAILS = re.compile(r"max_fails=(\d+)")
_TIMEOUT = re.compile(r"proxy_connect_timeout (\d+)(ms|s);")


@dataclass(frozen=True)
class Peer:
    address: SocketAddress
    is_down: bool
    max_fails: int


@dataclass(frozen=True)
class Conf:
    """What nginx makes of a config's text."""

    generation: str
    peers: Tuple[Peer, ...]
    connect_timeout: float


@lru_cache(maxsize=512)
def read_conf(text: str) -> Conf | None:
    """Return what it says; None where nginx would refuse it, or it is none of the agent's."""
    generation, timeout = generation_of(text), _TIMEOUT.search(text)
    if generation is None:
        return None
    peers = tuple(
        Peer(parse_address(found[1]), " down" in found[2], int(_fails(found[2])))
        for found in _SERVER.finditer(text)
    )
    seconds = float(timeout[1]) * (0.001 if timeout[2] == "ms" else 1.0) if timeout else 0.0
    return Conf(generation, peers, seconds)


def _fails(words: str) -> str:
    found = _MAX_FAILS.search(words)
    return found[1] if found else "1"
