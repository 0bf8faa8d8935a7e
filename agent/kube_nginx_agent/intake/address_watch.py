"""Tells when this node gets or loses an address: the kernel says so (rtnetlink(7))."""

from __future__ import annotations

import errno
import socket
import struct
import time
from contextlib import suppress
from typing import Callable

from kube_nginx_agent.inbox import AddressesChanged
from kube_nginx_agent.net.netlink import messages
from kube_nginx_agent.node.starting import NoThreadError, start_thread

_GROUPS = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR of linux/rtnetlink.h
_NEW, _GONE = 20, 21  # RTM_NEWADDR, RTM_DELADDR
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_GLOBAL = 0  # RT_SCOPE_UNIVERSE
_BUFFER = 64 * 1024
_REST = 0.2
"""Seconds between two events: kube-proxy with IPVS gives the node an address for each service."""


class AddressWatch:
    """A thread that waits for the kernel's word; without it the next poll finds the same."""

    def __init__(self, post: Callable[[AddressesChanged], None]) -> None:
        """Take where the event goes."""
        self._post = post

    def start(self) -> None:
        """Begin to listen, where the kernel and the system let us."""
        heard = None
        try:
            heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            heard.bind((0, _GROUPS))
            start_thread("addresses", self._run, heard)
        except (OSError, NoThreadError):
            if heard:
                heard.close()

    def _run(self, heard: socket.socket) -> None:
        while True:
            if _is_news(heard, flags=0):
                self._post(AddressesChanged())
                time.sleep(_REST)
                if _is_any_news(heard):
                    self._post(AddressesChanged())


def _is_any_news(heard: socket.socket) -> bool:
    """Take all that was said meanwhile."""
    found = False
    with suppress(BlockingIOError):
        while True:
            found |= _is_news(heard, socket.MSG_DONTWAIT)
    return found


def _is_news(heard: socket.socket, flags: int) -> bool:
    try:
        return tells_of_an_address(heard.recv(_BUFFER, flags))
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
        return True  # there was more than the socket has room for


def tells_of_an_address(data: bytes) -> bool:
    """Tell whether one of the messages is of an address that others can reach.

    Those of a link come and go with each pod of a node, and no session has them.
    """
    return any(
        kind in (_NEW, _GONE)
        and len(payload) >= _ADDRESS.size
        and _ADDRESS.unpack_from(payload)[3] == _GLOBAL
        for kind, payload in messages(data)
    )
