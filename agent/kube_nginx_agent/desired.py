"""Config and the addresses behind its names -> what nginx should be doing. Never nobody."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import replace
from datetime import timedelta
from typing import Iterable, Mapping

from kube_nginx_agent.config.addresses import is_one_host, unmapped
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

IPV4_LISTEN = SocketAddress(ipaddress.IPv4Address("127.0.0.1"), 8443)
IPV6_LISTEN = SocketAddress(ipaddress.IPv6Address("::1"), 8443)
DEFAULT_LISTEN = (IPV4_LISTEN, IPV6_LISTEN)

Resolved = Mapping[str, Iterable[IPAddress]]
"""The addresses behind each DNS name that the agent has an answer for."""


class NoServerError(AgentError):
    """There are backends, but not one address among them that nginx could be given."""


def desire(config: Config, resolved: Resolved, node: Node) -> Desired:
    """Decide everything that nginx is to do.

    Raise NoServerError when backends are configured but no name among them has an address: an
    empty upstream would turn every client away, so the caller keeps what it has.
    """
    listen = config.listen or (DEFAULT_LISTEN if node.has_ipv6_loopback else (IPV4_LISTEN,))
    servers = list(_servers(config, resolved, listen))
    if config.backends and not servers:
        names = ", ".join(str(backend.target) for backend in config.backends)
        raise NoServerError(
            f"no usable address is known for {names}",
            hint="check the node's DNS, and that the names lead to another place than this proxy",
        )
    if config.balance.shuffle:
        servers.sort(key=lambda server: _digest(f"{node.id} {server.address}"))
    return Desired(
        listen=listen,
        servers=tuple(_without_last_one_failing(servers)),
        method=config.balance.method,
        hash_salt=node.id if config.balance.salt is None else config.balance.salt,
        proxy=config.proxy,
        workers=config.workers,
        worker_connections=config.worker_connections,
        error_log_level=config.error_log_level,
        worker_shutdown_timeout=_shutdown_timeout(node),
    )


def leads_back(target: Target, listen: Iterable[SocketAddress]) -> bool:
    """Tell whether a connection to ``target`` would arrive at one of our own listen addresses.

    nginx's ``[::]`` takes no IPv4 connections (ipv6only=on), so the two families stay apart.
    """
    if isinstance(target, HostName):
        return False
    return any(
        target.port == own.port
        and target.ip.version == own.ip.version
        and (target.ip == own.ip or (own.ip.is_unspecified and target.ip.is_loopback))
        for own in listen
    )


def _servers(
    config: Config, resolved: Resolved, listen: tuple[SocketAddress, ...]
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
                down=backend.drain,
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


def _without_last_one_failing(servers: list[Server]) -> Iterable[Server]:
    """Guard against what is left when servers drain, or names have no address.

    All servers ``down``: every client gets EOF, so none stays down. One server left and counted
    as failed: nginx refuses clients for ``fail_timeout`` after it is back, so it is not counted.
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
            max_fails=0 if alive == [server] else server.max_fails,
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
