"""Base and overlay: the lists that nginx could serve, each with what health says laid over it.

What the administrator wants may fail to go live: a port is held, the disk is full. Health is always
applied, to the list that *is* live: so such an edit never switches failover off. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Tuple

from kube_nginx_agent.config.addresses import DEFAULT_LISTEN, IPV4_LISTEN
from kube_nginx_agent.desired import ALL_WELL, HealthView, Resolved, desire
from kube_nginx_agent.intake.intake import Wish
from kube_nginx_agent.model import Desired, IPAddress, Node, SocketAddress
from kube_nginx_agent.nginx.decision import Goal
from kube_nginx_agent.nginx.rendering import render
from kube_nginx_agent.node.paths import Paths


@dataclass(frozen=True)
class Base:
    """A list with everything that it means on this node, whoever is well."""

    wish: Wish
    addresses: Tuple[Tuple[str, Tuple[IPAddress, ...]], ...]
    node: Node
    listen: Tuple[SocketAddress, ...]
    if_all_well: Desired

    @property
    def backends(self) -> frozenset[SocketAddress]:
        """Return the addresses of all its servers."""
        return frozenset(server.address for server in self.if_all_well.servers)


def make_base(
    wish: Wish, resolved: Resolved, node: Node, listen: Tuple[SocketAddress, ...]
) -> Base:
    """Return the base of a list. Raise NoServerError where nobody is left to pass clients on to."""
    known: Mapping[str, Tuple[IPAddress, ...]] = {
        host: tuple(sorted(resolved.get(host, ()), key=str)) for host in wish.hosts()
    }
    desired = desire(wish.config, known, node, ALL_WELL, listen)
    return Base(wish, tuple(sorted(known.items())), node, listen, desired)


def wanted_listen(wish: Wish, node: Node) -> Tuple[SocketAddress, ...]:
    """Return where nginx is to listen, if it can."""
    default = DEFAULT_LISTEN if node.has_ipv6_loopback else (IPV4_LISTEN,)
    return wish.config.listen or default


def make_goal(base: Base, health: HealthView, paths: Paths, *, live: Base | None) -> Goal:
    """Return what nginx should serve of a list, as its backends are now.

    A list that has not gone live is tried again as a whole, whatever its backends do meanwhile; of
    the one that is live each change of health is a goal of its own. What the administrator has
    changed never waits for old sessions to end; what DNS, the node or health has changed may.
    """
    config = base.wish.config
    desired = desire(config, dict(base.addresses), base.node, health, base.listen)
    rendered = render(desired, paths)
    key = rendered.generation if is_same(base, live) else base.if_all_well
    may_wait = live is not None and live.wish.config == config
    return Goal(rendered, desired, key, may_wait)


def is_same(base: Base, other: Base | None) -> bool:
    """Tell whether the two mean the same to nginx: a comment makes no other list."""
    return other is not None and base.if_all_well == other.if_all_well
