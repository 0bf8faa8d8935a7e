"""``HOST:PORT`` as people write it: IPv4, IPv6 in brackets, DNS names."""

from __future__ import annotations

import ipaddress
import re

from kube_nginx_agent.model import DEFAULT_PORT, HostName, IPAddress, SocketAddress, Target

_WITH_BRACKETS = re.compile(r"\[(?P<host>[^\]]*)\](?::(?P<port>.*))?")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_MAX_NAME = 253  # RFC 1035, section 2.3.4, less the length octets
_MAX_PORT = 65535


def parse_target(text: str) -> Target:
    """Read the address of a backend; raise ValueError that says what is wrong with it."""
    host, port = _split(text, default_port=DEFAULT_PORT)
    ip = _as_ip(host)
    if ip is None:
        return HostName(_checked_name(host), port)
    if ip.is_unspecified or ip.is_multicast:
        raise ValueError(f"{ip} is not the address of one host")
    return SocketAddress(ip, port)


def parse_listen(text: str) -> SocketAddress:
    """Read an address to listen on; raise ValueError that says what is wrong with it."""
    host, port = _split(text, default_port=None)
    ip = _as_ip(host)
    if ip is None:
        raise ValueError(f'"{host}" is not an IP address; write 127.0.0.1:{port} or [::1]:{port}')
    return SocketAddress(ip, port)


def _split(text: str, default_port: int | None) -> tuple[str, int]:
    bracketed = _WITH_BRACKETS.fullmatch(text)
    if bracketed:
        host, port = bracketed["host"], bracketed["port"]
        if not isinstance(_as_ip(host), ipaddress.IPv6Address):
            raise ValueError(f'"{host}" in brackets is not an IPv6 address')
    elif text.count(":") > 1:
        raise ValueError("an IPv6 address is written in brackets: [2001:db8::1]:6443")
    else:
        host, separator, rest = text.partition(":")
        port = rest if separator else None
    if not host:
        raise ValueError("the host is missing: write HOST:PORT")
    if port is None:
        if default_port is None:
            raise ValueError(f"the port is missing: write {text}:8443")
        return host, default_port
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= _MAX_PORT):
        raise ValueError(f'"{port}" is not a port; it is a number from 1 to {_MAX_PORT}')
    return host, int(port)


def _as_ip(host: str) -> IPAddress | None:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    # nginx can't connect to a scoped address, and an IPv4-mapped one is IPv4 in disguise.
    if isinstance(ip, ipaddress.IPv6Address):
        if "%" in host:
            raise ValueError(f"{host}: nginx does not know zone ids; use a global address")
        return ip.ipv4_mapped or ip
    return ip


def _checked_name(host: str) -> str:
    name = host.lower().rstrip(".")
    labels = name.split(".")
    if labels[-1].isdigit():
        raise ValueError(f'"{host}" is neither an IPv4 address (four numbers, 0 to 255) nor a name')
    if len(name) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f'"{host}" is neither an IP address nor a DNS name')
    return name
