"""What the unit tests make their inputs with."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Iterable, Mapping

from kube_nginx_agent.config.flaws import ConfigError
from kube_nginx_agent.config.load import load_config
from kube_nginx_agent.desired import desire
from kube_nginx_agent.model import (
    Config,
    Desired,
    IPAddress,
    Node,
    Rendered,
    Server,
    SocketAddress,
)
from kube_nginx_agent.nginx.rendering import render
from kube_nginx_agent.node.paths import Paths

FILE = "backends.yaml"
NODE = Node(id="4f2a91c0d3e5", has_ipv6_loopback=True)
OTHER_NODE = Node(id="b81c07aa21f6", has_ipv6_loopback=True)
PATHS = Paths()

Answers = Mapping[str, Iterable[str]]


def config_of(text: str) -> Config:
    return load_config(text.encode(), FILE).config


def warnings_of(text: str) -> list[str]:
    return [warning.describe(FILE) for warning in load_config(text.encode(), FILE).warnings]


def complaints_of(content: str | bytes) -> list[str]:
    """Return the lines with which a file is refused; none if it is accepted."""
    try:
        load_config(content.encode() if isinstance(content, str) else content, FILE)
    except ConfigError as error:
        return error.lines()
    return []


def address(text: str) -> SocketAddress:
    ip, _, port = text.rpartition(":")
    return SocketAddress(ip_address(ip.strip("[]")), int(port))


def ips(texts: Iterable[str]) -> frozenset[IPAddress]:
    return frozenset(map(ip_address, texts))


def desired_of(text: str, answers: Answers | None = None, node: Node = NODE) -> Desired:
    resolved = {name: ips(texts) for name, texts in (answers or {}).items()}
    return desire(config_of(text), resolved, node)


def servers_of(text: str, answers: Answers | None = None, node: Node = NODE) -> dict[str, Server]:
    return {str(server.address): server for server in desired_of(text, answers, node).servers}


def rendered(text: str, answers: Answers | None = None, node: Node = NODE) -> Rendered:
    return render(desired_of(text, answers, node), PATHS)


def directives(text: str, answers: Answers | None = None, node: Node = NODE) -> list[str]:
    """Return the lines of the rendered config that nginx obeys, without comments and indents."""
    lines = (
        line.partition("#")[0].strip() for line in rendered(text, answers, node).text.split("\n")
    )
    return [line for line in lines if line]
