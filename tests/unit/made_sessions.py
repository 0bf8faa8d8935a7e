"""Sessions as the kernel's table would have them, made without a socket."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kube_nginx_agent.sessions.table import Session
from unit.making import address

ONE, TWO, THREE = (address(f"192.0.2.{last}:6443") for last in (11, 12, 13))

_IDLE = Session(
    backend=ONE,
    local=address("192.0.2.1:40000"),
    inode=1,
    family=2,
    identity=b"",
    is_connecting=False,
    unacknowledged=0,
    retransmits=0,
    packets=10,
    sent_ago=3600.0,
    data_ago=3600.0,
    heard_ago=3600.0,
    has_asked=True,
    has_answered=True,
)


def session(number: int = 1, **changes: Any) -> Session:
    """Return a session that has been idle for an hour, but for what is named."""
    return replace(_IDLE, inode=number, identity=b"%d" % number, **changes)


def stuck(number: int = 1, **changes: Any) -> Session:
    """Return one whose data nobody acknowledges, last tried 2 s ago."""
    waits = {"unacknowledged": 100, "retransmits": 5, "sent_ago": 2.0, **changes}
    return session(number, **waits)
