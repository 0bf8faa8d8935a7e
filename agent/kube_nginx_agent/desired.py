"""Config and the addresses behind its names -> what nginx should be doing. Never nobody."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Container, FrozenSet, Iterable, Mapping

from kube_nginx_agent.config.addresses import (
    DEFAULT_LISTEN,
    IPV4_LISTEN,
    is_one_host,
    leads_back,
    unmapped,
)
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.model import (
    Backend,
    Config,
    Desired,
    HostName,
    IPAddress,
    Node,
    Server,
    SocketAddress,
    Target,
)

_CONNECT_TIMEOUTS = tuple(timedelta(milliseconds=ms) for ms in (250, 500, 1000))
_RTT_FACTOR = 2.5
"""A connect takes one round trip; the rest is for a busy host."""
_CLEARLY = 0.8

Resolved = Mapping[str, Iterable[IPAddress]]
"""The addresses behind each DNS name that the agent has an answer for."""


class NoServerError(AgentError):
    """There are backends, but not one address among them that nginx could be given."""


@dataclass(frozen=True)
class HealthView:
    """What the health of the backends means to nginx."""

    out: FrozenSet[SocketAddress] = frozenset()
    """Who should get no new connections."""
    none_passes: bool = False
    """Whether no backend passes its checks: all stay in, and nginx counts nobody's failures, so
    that the first one that is back is used at once."""
    connect_timeout: timedelta = _CONNECT_TIMEOUTS[0]
    """How long nginx should wait for one server, where the administrator does not say."""


ALL_WELL = HealthView()


def desire(
    config: Config,
    resolved: Resolved,
    node: Node,
    health: HealthView = ALL_WELL,
    usable: tuple[SocketAddress, ...] = (),
) -> Desired:
    """Decide everything that nginx is to do.

    ``usable`` are the wanted listen addresses that can be bound at present; () stands for all.
    Raise NoServerError when backends are configured but no name among them has an address: an
    empty upstream would turn every client away, so the caller keeps what it has.
    """
    listen = config.listen or (DEFAULT_LISTEN if node.has_ipv6_loopback else (IPV4_LISTEN,))
    servers = list(_servers(config, resolved, listen, health.out))
    if config.backends and not servers:
        names = ", ".join(str(backend.target) for backend in config.backends)
        raise NoServerError(
            f"no usable address is known for {names}",
            hint="check the node's DNS, and that the names lead to another place than this proxy",
        )
    if config.balance.shuffle:
        servers.sort(key=lambda server: _digest(f"{node.id} {server.address}"))
    return Desired(
        listen=usable or listen,
        servers=tuple(_never_nobody(servers, count_failures=not health.none_passes)),
        method=config.balance.method,
        hash_salt=node.id if config.balance.salt is None else config.balance.salt,
        proxy=config.proxy,
        connect_timeout=config.proxy.connect_timeout or health.connect_timeout,
        workers=config.workers,
        worker_connections=config.worker_connections,
        error_log_level=config.error_log_level,
        worker_shutdown_timeout=_shutdown_timeout(node),
        none_passes=health.none_passes,
    )


def connect_timeout_for(rtt: float | None, before: timedelta) -> timedelta:
    """Return how long nginx waits for one server, given the slowest round trip in seconds.

    Short, because a client waits with it; in steps, and down only to one that is clearly enough,
    because each change is a reload (docs/decisions/0004-timeouts.md). A round trip that is not
    known yet is taken as one in a data centre.
    """
    needed = timedelta(seconds=_RTT_FACTOR * (rtt or 0.0))
    enough = next((step for step in _CONNECT_TIMEOUTS if step >= needed), _CONNECT_TIMEOUTS[-1])
    return before if enough < before and needed > _CLEARLY * enough else enough


def _servers(
    config: Config,
    resolved: Resolved,
    listen: tuple[SocketAddress, ...],
    out: Container[SocketAddress],
) -> Iterable[Server]:
    """Yield a server an address; nginx would give one that stands twice twice the share."""
    taken: dict[SocketAddress, Target] = {
        backend.target: backend.target
        for backend in config.backends
        if isinstance(backend.target, SocketAddress)
    }
    for backend in config.backends:
        for address in _addresses(backend, resolved):
            # An address that also stands in the file has the settings that stand there with it.
            owner = taken.setdefault(address, backend.target)
            if owner != backend.target or leads_back(address, listen):
                continue
            yield Server(
                address=address,
                backend=backend.target,
                weight=backend.weight,
                backup=backend.backup,
                drain=backend.drain,
                down=backend.drain or address in out,
                max_fails=backend.max_fails,
                fail_timeout=backend.fail_timeout,
            )


def _addresses(backend: Backend, resolved: Resolved) -> list[SocketAddress]:
    if isinstance(backend.target, HostName):
        port = backend.target.port
        known = resolved.get(backend.target.name, ())
        found = {SocketAddress(unmapped(ip), port) for ip in known if is_one_host(unmapped(ip))}
        return sorted(found, key=lambda address: (address.ip.version, str(address)))
    return [backend.target]


def _never_nobody(servers: list[Server], *, count_failures: bool) -> Iterable[Server]:
    """Guard against what is left when servers drain or fail, or names have no address.

    All servers ``down``: every client gets EOF, so none stays down. A last one that is counted as
    failed: nginx refuses clients for ``fail_timeout`` after it is back, so it is not counted, nor
    is anybody while none passes.
    All servers ``backup``: nginx refuses the config ("no servers in upstream"), so none stays one.
    """
    all_down = all(server.down for server in servers)
    all_backup = all(server.backup for server in servers)
    alive = [server for server in servers if all_down or not server.down]
    for server in servers:
        yield replace(
            server,
            backup=server.backup and not all_backup,
            down=server.down and not all_down,
            max_fails=server.max_fails if count_failures and alive != [server] else 0,
        )


def _shutdown_timeout(node: Node) -> timedelta:
    """Return how long an old worker may keep its sessions: 20 to 28 hours.

    It differs per node because it ends all sessions of a worker at once, healthy ones too: with
    one value the whole fleet would reconnect in the same second.
    """
    minutes = int(_digest(f"{node.id} worker_shutdown_timeout")[:8], 16) % (8 * 60)
    return timedelta(hours=20, minutes=minutes)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
