"""Config and the addresses behind its names -> what nginx should be doing. Never nobody."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import FrozenSet, Iterable, Mapping

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

MOST_SERVERS = 64
"""As many as backends.yaml may hold: the descriptors, threads and shared memory of both units are
made for them, and a name may bring any number."""

_CONNECT_TIMEOUTS = tuple(timedelta(milliseconds=ms) for ms in (250, 500, 1000, 2000, 3000))
"""The longest leaves time for a second server within the 5 s of proxy_next_upstream_timeout."""
LONGEST_CONNECT_TIMEOUT = _CONNECT_TIMEOUTS[-1]
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
    Raise NoServerError when backends are configured but none of them has an address that can be
    used: an empty upstream would turn every client away, so the caller keeps what it has.
    """
    listen = config.listen or (DEFAULT_LISTEN if node.has_ipv6_loopback else (IPV4_LISTEN,))
    found = _sort_out(config, resolved, node, listen)
    servers = [_server(backend, address, health) for address, backend in found.used]
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
        servers=tuple(_never_nobody(servers, count_failures=_counts_failures(health))),
        method=config.balance.method,
        hash_salt=node.id if config.balance.salt is None else config.balance.salt,
        proxy=config.proxy,
        connect_timeout=config.proxy.connect_timeout or health.connect_timeout,
        workers=config.workers,
        worker_connections=config.worker_connections,
        error_log_level=config.error_log_level,
        worker_shutdown_timeout=_shutdown_timeout(node),
        server_name=config.health_check.server_name,
        none_passes=health.none_passes,
    )


def connect_timeout_for(rtt: float | None, before: timedelta) -> timedelta:
    """Return how long nginx waits for one server, given the slowest connect of late in seconds.

    Short, because a client waits with it; in steps, and down only to one that is clearly enough,
    because each change is a reload (docs/decisions/0004-timeouts.md). A round trip that is not
    known yet is taken as one in a data centre.
    """
    needed = timedelta(seconds=_RTT_FACTOR * (rtt or 0.0))
    enough = next((step for step in _CONNECT_TIMEOUTS if step >= needed), _CONNECT_TIMEOUTS[-1])
    return before if enough < before and needed > _CLEARLY * enough else enough


class Reason(Enum):
    """Why an address that the list stands for is not used; the value is what people read."""

    LEADS_BACK = "it leads back to this proxy"
    NO_FAMILY = "this node has no address of its family"
    TOO_MANY = f"more than {MOST_SERVERS} addresses"


@dataclass(frozen=True)
class LeftOut:
    """An address that is not used, the entry that it comes from, and why."""

    address: SocketAddress
    backend: Target
    reason: Reason


def left_out(
    config: Config, resolved: Resolved, node: Node, listen: Iterable[SocketAddress]
) -> tuple[LeftOut, ...]:
    """Return who is not among the servers although the list stands for it.

    ``listen``: where nginx listens, or is to listen.
    """
    return tuple(_sort_out(config, resolved, node, listen).left_out)


def addresses_of(config: Config, resolved: Resolved) -> frozenset[SocketAddress]:
    """Return all addresses that the list stands for, whether they are used or not."""
    return frozenset(address for address, _ in _owners(config, resolved))


@dataclass(frozen=True)
class _Sorted:
    """Each address once, with the backend whose settings it has."""

    used: list[tuple[SocketAddress, Backend]]
    left_out: list[LeftOut]


def _sort_out(
    config: Config, resolved: Resolved, node: Node, listen: Iterable[SocketAddress]
) -> _Sorted:
    """Tell who is used from who is left out; what stands in the file is never too much."""
    listen = tuple(listen)
    families = _families_of(node)
    owners = _owners(config, resolved)
    room = MOST_SERVERS - sum(address == backend.target for address, backend in owners)
    found = _Sorted([], [])
    for address, backend in owners:
        is_named = address != backend.target
        reason = None
        if leads_back(address, listen, node.addresses):
            reason = Reason.LEADS_BACK
        elif is_named and not _may_reach(address.ip, families):
            reason = Reason.NO_FAMILY
        elif is_named and room <= 0:
            reason = Reason.TOO_MANY
        if reason:
            found.left_out.append(LeftOut(address, backend.target, reason))
            continue
        room -= is_named
        found.used.append((address, backend))
    return found


def _families_of(node: Node) -> set[int]:
    """Return the IP versions that the node can reach others by; none when that can't be told.

    Without an address of a family a connect has no source (EADDRNOTAVAIL, ENETUNREACH). Every
    node has link-local and loopback addresses: these lead nowhere. Routes are not asked: those of
    another table, of a VRF or of a CNI would be told wrongly.
    """
    return {ip.version for ip in node.addresses if not (ip.is_loopback or ip.is_link_local)}


def _may_reach(ip: IPAddress, families: set[int]) -> bool:
    return not families or ip.version in families or ip.is_loopback


def _owners(config: Config, resolved: Resolved) -> list[tuple[SocketAddress, Backend]]:
    """Return every address once; nginx would give one that stands twice twice the share."""
    written = {backend.target for backend in config.backends}
    owners: dict[SocketAddress, Backend] = {}
    for backend in config.backends:
        for address in _addresses(backend, resolved):
            # An address that also stands in the file has the settings that stand there with it.
            if address == backend.target or address not in written:
                owners.setdefault(address, backend)
    return list(owners.items())


def _server(backend: Backend, address: SocketAddress, health: HealthView) -> Server:
    return Server(
        address=address,
        backend=backend.target,
        weight=backend.weight,
        backup=backend.backup,
        drain=backend.drain,
        down=backend.drain or address in health.out,
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


def _counts_failures(health: HealthView) -> bool:
    """Tell whether nginx is to leave out by itself whom it could not reach twice.

    That is a help for the second until we know. On a far link it does harm: all stand still for a
    while now and then, and nginx would refuse every client for ``fail_timeout`` after each.
    """
    return not health.none_passes and health.connect_timeout <= ALL_WELL.connect_timeout


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
