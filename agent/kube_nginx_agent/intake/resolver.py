"""Asks the system's resolver for names, again and again, each in a thread of its own.

getaddrinfo(3) has no time-out to set and hangs for as long as resolv.conf(5) and nsswitch.conf(5)
allow: so a name that hangs delays no other, and never gets a second thread.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from typing import Callable, Iterable

from kube_nginx_agent.config.addresses import is_one_host, unmapped
from kube_nginx_agent.inbox import NameAnswered
from kube_nginx_agent.node.starting import NoThreadError, start_thread

INTERVAL = 30.0  # seconds; getaddrinfo(3) does not tell an answer's time to live
RETRY_INTERVAL = 5.0
MOST_THREADS = 64
"""As many names as backends.yaml may hold; one more waits until a thread has ended."""


def resolve(name: str) -> NameAnswered:
    """Ask the system's resolver once; blocks for as long as that takes, and never raises."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        # A link-local address carries a zone (fe80::1%eth0), which nginx can't connect to.
        texts = {str(entry[4][0]).partition("%")[0] for entry in found}
        addresses = {unmapped(ipaddress.ip_address(text)) for text in texts}
    except Exception as error:  # Whatever a plug-in of nsswitch does, we ask again.
        reason = error.strerror if isinstance(error, OSError) else None
        return NameAnswered(name, frozenset(), reason or str(error) or type(error).__name__)
    usable = frozenset(ip for ip in addresses if is_one_host(ip))
    if usable:
        return NameAnswered(name, usable, "")
    # Blocking resolvers and captive portals answer 0.0.0.0: that is nobody's new address.
    named = ", ".join(sorted(map(str, addresses)))
    return NameAnswered(name, usable, f"{named} is no host" if named else "the name has no address")


class Resolver:
    """Keeps asking for each wanted name."""

    def __init__(
        self,
        post: Callable[[NameAnswered], None],
        ask: Callable[[str], NameAnswered] = resolve,
    ) -> None:
        """Take where the answers go, and who is asked."""
        self._post = post
        self._ask = ask
        self._changed = threading.Condition()
        self._wanted: dict[str, object] = {}
        """Each with a token of its own: a name that has left and is back is asked for at once."""
        self._asking: set[str] = set()
        """The names that have a thread, wanted or not."""

    def want(self, names: Iterable[str]) -> None:
        """Ask for these names from now on, and no longer for others; cheap to say again."""
        with self._changed:
            self._wanted = {name: self._wanted.get(name) or object() for name in names}
            self._start_missing()
            self._changed.notify_all()

    def _start_missing(self) -> None:
        """Start a thread for each name that has none, within the bound; call it locked."""
        for name in self._wanted.keys() - self._asking:
            if len(self._asking) >= MOST_THREADS:
                return
            try:
                start_thread(f"dns-{name}", self._keep_asking, name)
            except NoThreadError:  # the next ``want`` tries again
                return
            self._asking.add(name)

    def _keep_asking(self, name: str) -> None:
        while True:
            with self._changed:
                token = self._wanted.get(name)
                if token is None:
                    self._asking.discard(name)
                    self._start_missing()
                    return
            pause = self._ask_once(name)
            self._wait(name, token, pause)

    def _wait(self, name: str, token: object, pause: float) -> None:
        """Wait for ``pause`` seconds, or until the name has left, even if it is back already."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted.get(name) is not token, pause)

    def _ask_once(self, name: str) -> float:
        """Ask, post the answer if it is still wanted, and return the seconds to the next time."""
        try:
            answer = self._ask(name)
        except Exception as error:  # A thread that ended would be missed by nobody.
            answer = NameAnswered(name, frozenset(), f"internal: {error!r}")
        with self._changed:
            is_wanted = name in self._wanted
        if is_wanted:
            self._post(answer)
        return RETRY_INTERVAL if answer.error else INTERVAL
