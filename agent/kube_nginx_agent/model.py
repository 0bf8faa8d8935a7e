"""The nouns that the rest of the program talks in: plain frozen values."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import FrozenSet, Tuple, Union

IPAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

DEFAULT_PORT = 6443
"""kube-apiserver's own default for ``--secure-port``."""


@dataclass(frozen=True, order=True)
class SocketAddress:
    """An IP address and a TCP port, as nginx and the kernel want it."""

    ip: IPAddress
    port: int

    def __str__(self) -> str:
        """Return ``192.0.2.1:6443`` or ``[2001:db8::1]:6443``."""
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


@dataclass(frozen=True)
class HostName:
    """A DNS name and a TCP port; the agent resolves it, nginx never sees it."""

    name: str
    port: int

    def __str__(self) -> str:
        """Return ``apiserver.example.com:6443``."""
        return f"{self.name}:{self.port}"


Target = Union[SocketAddress, HostName]


@dataclass(frozen=True)
class Backend:
    """One entry of ``backends``: a kube-apiserver, or a name that stands for several."""

    target: Target
    weight: int = 1
    backup: bool = False
    drain: bool = False
    max_fails: int = 2
    fail_timeout: timedelta = timedelta(seconds=3)


@dataclass(frozen=True)
class Balance:
    """How nginx picks a server, and what makes this node pick differently from the next.

    ``salt`` is put before the key of ``hash`` (``None``: the node's own id); ``shuffle`` orders
    the servers differently on each node.
    """

    method: str = "random"
    salt: str | None = None
    shuffle: bool = True


@dataclass(frozen=True)
class Proxy:
    """The timeouts of the data path."""

    connect_timeout: timedelta | None = None
    """``None``: as short as the round-trip times allow."""
    idle_timeout: timedelta = timedelta(minutes=10)
    tcp_keepalive: bool = True


@dataclass(frozen=True)
class Probe:
    """How often one probe asks, and how many answers in a row change its mind."""

    interval: timedelta
    timeout: timedelta
    rise: int = 2
    fall: int = 2
    enabled: bool = True


@dataclass(frozen=True)
class HealthCheck:
    """The two probes of every backend."""

    tcp: Probe = Probe(interval=timedelta(seconds=2), timeout=timedelta(seconds=1))
    readyz: Probe = Probe(interval=timedelta(seconds=4), timeout=timedelta(seconds=1))
    path: str = "/readyz"
    ca_file: str | None = None
    """``None``: the cluster's usual places; ``"none"``: certificates are not to be checked."""
    server_name: str | None = None
    """What a TLS handshake asks for (SNI), where apiservers stand behind a router by name."""
    cut_after: timedelta = timedelta(milliseconds=2200)
    """How long a backend must have been silent before its sessions are ended."""


@dataclass(frozen=True)
class Config:
    """A whole valid ``backends.yaml``; ``listen`` is empty when the file leaves it to the node."""

    backends: Tuple[Backend, ...]
    listen: Tuple[SocketAddress, ...] = ()
    balance: Balance = field(default_factory=Balance)
    proxy: Proxy = field(default_factory=Proxy)
    health_check: HealthCheck = field(default_factory=HealthCheck)
    workers: int | None = 2
    """``None`` is nginx's ``auto``: one worker for each core."""
    worker_connections: int = 16384
    """A session takes two; docs/decisions/0017 has what more would cost."""
    error_log_level: str = "notice"


@dataclass(frozen=True)
class Node:
    """What the agent knows of the machine it runs on.

    ``id`` is stable and differs from node to node, but is not the machine id itself, which
    machine-id(5) asks to keep confidential.
    """

    id: str
    has_ipv6_loopback: bool
    addresses: FrozenSet[IPAddress] = frozenset()
    """What its interfaces have at present, less link-local IPv6; empty when it can't be told."""


@dataclass(frozen=True)
class Server:
    """One ``server`` line of nginx's upstream."""

    address: SocketAddress
    backend: Target
    weight: int
    backup: bool
    drain: bool
    """Whether the administrator wants it without new connections."""
    down: bool
    """Whether nginx is to give it none, for whatever reason."""
    max_fails: int
    fail_timeout: timedelta


@dataclass(frozen=True)
class Desired:
    """All that nginx should be doing: the input of the renderer, nothing left to decide."""

    listen: Tuple[SocketAddress, ...]
    servers: Tuple[Server, ...]
    method: str
    hash_salt: str
    proxy: Proxy
    connect_timeout: timedelta
    workers: int | None
    worker_connections: int
    error_log_level: str
    worker_shutdown_timeout: timedelta
    server_name: str | None = None
    """What an apiserver behind an SNI router is called in a TLS handshake of ours."""
    none_passes: bool = False
    """Whether no server is known to answer, so that nothing can be proven of the way to it."""


@dataclass(frozen=True)
class Rendered:
    """The text of an nginx.conf and the generation, a hash of the text, that it answers with."""

    text: str
    generation: str
