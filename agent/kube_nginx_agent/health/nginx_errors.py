"""nginx's own errors -> the backend that it met them at."""

from __future__ import annotations

import re

from kube_nginx_agent.config.addresses import parse_address
from kube_nginx_agent.inbox import NginxComplained

_WHILE_CONNECTING = re.compile(
    r"(?:connect\(\) failed|upstream timed out|connect\(\) to \S+ failed)"
    r".* while connecting to upstream.*, upstream: \"(?P<upstream>[^\"]+)\"",
    re.DOTALL,
)


def trouble(message: str) -> NginxComplained | None:
    """Return what is said of a backend that nginx could not connect to, if the message does.

    The texts: nginx's src/stream/ngx_stream_proxy_module.c and src/event/ngx_event_connect.c.
    """
    found = _WHILE_CONNECTING.search(message)
    try:
        backend = parse_address(found["upstream"]) if found else None
    except ValueError:
        return None
    return NginxComplained(backend, "upstream timed out" in message) if backend else None
