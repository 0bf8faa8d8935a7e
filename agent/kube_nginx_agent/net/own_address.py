"""Whether an IP address is this node's, by the kernel's own word."""

from __future__ import annotations

import errno
import socket

from kube_nginx_agent.model import IPAddress


def is_own_address(ip: IPAddress) -> bool:
    """Tell whether the address is the node's; what can't be told counts as if it were.

    Binding asks the kernel's table of local addresses, which no list of interfaces is: all of
    127.0.0.0/8 is in it, and so are ``local`` routes. Nobody can notice it: no port is listened on.
    With net.ipv4.ip_nonlocal_bind=1 every address counts as the node's.
    """
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(ip), 0))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True
