"""Desired -> the text of nginx.conf, commented for the administrator who opens it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from kube_nginx_agent.config.durations import format_duration
from kube_nginx_agent.errors import printable
from kube_nginx_agent.model import Desired, Rendered, Server
from kube_nginx_agent.node.paths import Paths

_GENERATION = "@GENERATION@"
_GENERATION_DIGITS = 7
_ZONE_SIZE = "512k"
"""Room for 879 servers, more than there ever are (``desired.MOST_SERVERS``), taken as it is used.
Less than 8 pages it may not be (ngx_stream_upstream_zone()), which some kernels have of 64k."""
_ANSWER = re.compile(r'return "([0-9a-f]+) \$pid\\n";')


def render(desired: Desired, paths: Paths) -> Rendered:
    """Return the config and its generation: the first digits of a hash of all the rest of it."""
    body = f"{_head(desired, paths)}\n{_stream(desired, paths)}"
    generation = _hash(body)
    return Rendered(body.replace(_GENERATION, generation), generation)


def generation_of(text: str | None) -> str | None:
    """Return the generation of a config that was rendered here; None if it was changed since."""
    found = _ANSWER.search(text or "")
    if text is None or found is None:
        return None
    body = text[: found.start(1)] + _GENERATION + text[found.end(1) :]
    return found[1] if _hash(body) == found[1] else None


def without_generation_socket(rendered: Rendered, paths: Paths) -> str:
    """Return the config without the server on the generation socket: a step to a new socket."""
    server = _generation_server(paths.generation_socket)
    return rendered.text.replace(server.replace(_GENERATION, rendered.generation), "")


def _hash(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:_GENERATION_DIGITS]


def _head(desired: Desired, paths: Paths) -> str:
    return f"""\
# Written by kube-nginx-agent from {printable(str(paths.config), longest=4096)}: edit that file.
# Changes made here are undone.

{_workers(desired)}
# After a reload the old workers keep their sessions until these end, at most this long.
# It differs from node to node, so that they do not all reconnect in the same second.
worker_shutdown_timeout {format_duration(desired.worker_shutdown_timeout)};
pid {paths.pid_file};
# Once for the journal, once for the agent, which must not be waited for: datagrams never block.
error_log stderr {desired.error_log_level};
error_log syslog:server=unix:{paths.log_socket},nohostname,tag=nginx error;

events {{
    # A session takes two: the client's and the apiserver's.
    worker_connections {desired.worker_connections};
}}
"""


def _workers(desired: Desired) -> str:
    if desired.workers is None:
        return "# One worker for each core.\nworker_processes auto;"
    return (
        '# A fixed number: on a node with many cores "auto" would start a worker for each.\n'
        f"worker_processes {desired.workers};"
    )


def _stream(desired: Desired, paths: Paths) -> str:
    parts = [_upstream(desired)] if desired.servers else []
    parts += [_entrance(desired), _generation_server(paths.generation_socket)]
    return "stream {\n" + "\n".join(parts) + "}\n"


def _upstream(desired: Desired) -> str:
    lines = [
        "    upstream kube_apiservers {",
        "        # Connection and failure counts are shared by all workers.",
        f"        zone kube_apiservers {_ZONE_SIZE};",
        *_method(desired),
        "        # down: takes no new connections. The line stays, so that hash keeps its places.",
        *(f"        {_server(server)}" for server in desired.servers),
        "    }",
    ]
    return "\n".join(lines) + "\n"


def _method(desired: Desired) -> list[str]:
    if desired.method == "random":
        return [
            "        # Of two picked at random the less busy one: when many nodes start afresh,",
            "        # they do not all begin with the first line.",
            "        random two least_conn;",
        ]
    if desired.method == "least_conn":
        return [
            "        # The apiserver with the fewest connections, in proportion to its weight.",
            "        least_conn;",
        ]
    if desired.method == "hash":
        effect = (
            "the salt makes each node choose for itself"
            if desired.hash_salt
            else "without a salt all nodes choose the same one"
        )
        return [
            f"        # Every client is 127.0.0.1; {effect}.",
            f'        hash "{desired.hash_salt}$remote_addr" consistent;',
        ]
    return ["        # No method: weighted round robin."]


def _server(server: Server) -> str:
    words = [
        f"server {server.address}",
        f"weight={server.weight}" if server.weight != 1 else "",
        f"max_fails={server.max_fails}",
        f"fail_timeout={format_duration(server.fail_timeout)}",
        "backup" if server.backup else "",
        "down" if server.down else "",
    ]
    line = " ".join(word for word in words if word) + ";"
    named = str(server.backend) != str(server.address)
    return f"{line}  # {server.backend}" if named else line


def _entrance(desired: Desired) -> str:
    keepalive = " so_keepalive=60s:10s:3" if desired.proxy.tcp_keepalive else ""
    listens = [f"        listen {address}{keepalive};" for address in desired.listen]
    comment = "        # Where kubelet and its siblings connect."
    lines = ["    server {", comment, *listens, *_passing_on(desired), "    }"]
    return "\n".join(lines) + "\n"


def _passing_on(desired: Desired) -> list[str]:
    if not desired.servers:
        return [
            "        # No backends are configured: every connection is closed at once.",
            '        return "";',
        ]
    return [
        "        proxy_pass kube_apiservers;",
        "        # An apiserver that does not accept within this time is left for the next one,",
        "        # and all of them are tried, but nobody waits longer than 5 s.",
        f"        proxy_connect_timeout {format_duration(desired.connect_timeout)};",
        "        proxy_next_upstream on;",
        "        proxy_next_upstream_tries 0;",
        "        proxy_next_upstream_timeout 5s;",
        "        # Silence in both directions; watches are silent for minutes.",
        f"        proxy_timeout {format_duration(desired.proxy.idle_timeout)};",
        "        # A host that is gone without a word is noticed; small messages do not wait.",
        f"        proxy_socket_keepalive {'on' if desired.proxy.tcp_keepalive else 'off'};",
        "        tcp_nodelay on;",
    ]


def _generation_server(socket: Path) -> str:
    return f"""\
    # The agent asks here which config is served, by which worker.
    server {{
        listen unix:{socket};
        return "{_GENERATION} $pid\\n";
    }}
"""
