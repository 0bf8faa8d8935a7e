"""``HOST:PORT`` as people write it: IPv4, IPv6 in brackets, DNS names."""

from __future__ import annotations

import ipaddress
import re
from typing import Container, Iterable

from kube_nginx_agent.errors import printable
from kube_nginx_agent.model import DEFAULT_PORT, HostName, IPAddress, SocketAddress, Target

IPV4_LISTEN = SocketAddress(ipaddress.IPv4Address("127.0.0.1"), 8443)
IPV6_LISTEN = SocketAddress(ipaddress.IPv6Address("::1"), 8443)
DEFAULT_LISTEN = (IPV4_LISTEN, IPV6_LISTEN)

_WITH_BRACKETS = re.compile(r"\[(?P<host>[^\]]*)\](?::(?P<port>.*))?")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_MAX_NAME = 253  # RFC 1035, section 2.3.4, less the length octets
_MAX_PORT = 65535


def parse_target(text: str) -> Target:
    """Read the address of a backend; raise ValueError that says what is wrong with it."""
    host, port = _split(text, example="192.0.2.1:6443")
    ip = _as_ip(host)
    if ip is None:
        return HostName(_checked_name(host), port or DEFAULT_PORT)
    if not is_one_host(ip):
        raise ValueError(f"{ip} is not the address of one host")
    return SocketAddress(ip, port or DEFAULT_PORT)


def parse_address(text: str) -> SocketAddress:
    """Read an IP address with a port; raise ValueError that says what is wrong with it."""
    host, port = _split(text, example="127.0.0.1:8443")
    ip = _as_ip(host)
    if ip is None:
        raise ValueError(
            f'"{printable(host)}" is not an IP address; write one such as 127.0.0.1:8443'
        )
    if port is None:
        raise ValueError(f"the port is missing; write {printable(text)}:8443")
    if ip.is_multicast:
        raise ValueError(f"{ip} is not the address of one host")
    return SocketAddress(ip, port)


def is_one_host(ip: IPAddress) -> bool:
    """Tell whether nginx can connect to the address, and then to one certain host.

    A link-local IPv6 address needs a zone to be that, and nginx knows none.
    """
    return not (ip.is_unspecified or ip.is_multicast or (ip.version == 6 and ip.is_link_local))


def unmapped(ip: IPAddress) -> IPAddress:
    """Return the IPv4 address of an IPv4-mapped one, ``::ffff:192.0.2.1``; any other as it is."""
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip


def leads_back(
    target: Target, listen: Iterable[SocketAddress], own_addresses: Container[IPAddress] = ()
) -> bool:
    """Tell whether a connection to ``target`` would arrive at one of our own listen addresses.

    ``own_addresses``: those of this node, as far as they are known, all of which a wildcard takes.
    nginx's ``[::]`` takes no IPv4 connections (ipv6only=on), so the two families stay apart.
    """
    if isinstance(target, HostName):
        return False
    is_ours = target.ip.is_loopback or target.ip in own_addresses
    return any(
        target.port == own.port
        and target.ip.version == own.ip.version
        and (target.ip == own.ip or (own.ip.is_unspecified and is_ours))
        for own in listen
    )


def _split(text: str, example: str) -> tuple[str, int | None]:
    bracketed = _WITH_BRACKETS.fullmatch(text)
    if bracketed:
        host, port = bracketed["host"], bracketed["port"]
        if ":" not in host or _as_ip(host) is None:
            raise ValueError(f'"{printable(host)}" in brackets is not an IPv6 address')
    elif "://" in text:
        raise ValueError(f"it is an address, not a URL; write HOST:PORT, such as {example}")
    elif text.count(":") > 1:
        raise ValueError(
            f'"{printable(text)}" has more than one colon; write HOST:PORT, '
            'and an IPv6 address in brackets and quotes: "[2001:db8::1]:6443"'
        )
    else:
        host, separator, rest = text.partition(":")
        port = rest if separator else None
    if not host:
        raise ValueError(f"the host is missing; write HOST:PORT, such as {example}")
    return host, None if port is None else _checked_port(port)


def _checked_port(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= _MAX_PORT:
        return int(text)
    raise ValueError(f'"{printable(text)}" is not a port; it is a number from 1 to {_MAX_PORT}')


def _as_ip(host: str) -> IPAddress | None:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    if "%" in host or (ip.version == 6 and ip.is_link_local):
        raise ValueError(f"nginx can't use the link-local {printable(host)}; use a global address")
    return unmapped(ip)


def _checked_name(host: str) -> str:
    name = host.lower()
    name = name[:-1] if name.endswith(".") else name
    labels = name.split(".")
    if " - " in host:
        raise ValueError(
            f'"{printable(host)}" is two entries in one; put each "- " right below the other'
        )
    if not re.search("[a-z]", labels[-1]) or labels[-1].startswith("0x"):
        # A name ends in letters; the C library would take 0x7f.1 for an IPv4 address.
        raise ValueError(
            f'"{printable(host)}" is neither an IPv4 address (four numbers, 0 to 255) nor a name'
        )
    if len(name) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f'"{printable(host)}" is neither an IP address nor a DNS name')
    return name
