"""DNS names -> addresses, asked again and again; the last answers outlive DNS and the agent.

nginx itself would resolve a name once, while it starts, and not start at all without DNS.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
from pathlib import Path
from typing import Callable, Iterable

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.inbox import NameAnswered
from kube_nginx_agent.model import IPAddress
from kube_nginx_agent.node.files import FileError, read_text, replace_file
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.problems import Problem

INTERVAL = 30.0  # seconds; getaddrinfo(3) does not tell an answer's time to live
RETRY_INTERVAL = 5.0


class Resolver:
    """Asks for each wanted name in a thread of its own: one that hangs delays no other."""

    def __init__(self, post: Callable[[NameAnswered], None]) -> None:
        """Take where the answers go."""
        self._post = post
        self._asking: dict[str, threading.Event] = {}

    def want(self, names: Iterable[str]) -> None:
        """Ask for these names from now on, and no longer for others."""
        wanted = set(names)
        for name in self._asking.keys() - wanted:
            self._asking.pop(name).set()
        for name in wanted - self._asking.keys():
            end = self._asking[name] = threading.Event()
            arguments = (name, end)
            threading.Thread(
                target=self._keep_asking, args=arguments, name=f"dns-{name}", daemon=True
            ).start()

    def _keep_asking(self, name: str, end: threading.Event) -> None:
        while not end.is_set():
            answer = resolve(name)
            self._post(answer)
            end.wait(RETRY_INTERVAL if answer.error else INTERVAL)


def resolve(name: str) -> NameAnswered:
    """Ask the system's resolver once; blocks for as long as that takes."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        return NameAnswered(name, frozenset(), reason or str(error))
    # A link-local address carries a zone (fe80::1%eth0), which nginx can't connect to.
    texts = {str(entry[4][0]) for entry in found}
    return NameAnswered(
        name, frozenset(ipaddress.ip_address(text) for text in texts if "%" not in text), ""
    )


class Names:
    """What is known of each name: the last addresses, and the error of the last try."""

    def __init__(self, file: Path) -> None:
        """Take the file that the answers are kept in, and read it."""
        self._file = file
        self.addresses: dict[str, frozenset[IPAddress]] = _read(file)
        self.errors: dict[str, str] = {}

    def note(self, answer: NameAnswered) -> None:
        """Take an answer; an error or an empty one leaves the last addresses standing."""
        if answer.error or not answer.addresses:
            self.errors[answer.name] = answer.error or "the name has no address"
            return
        self.errors.pop(answer.name, None)
        if self.addresses.get(answer.name) != answer.addresses:
            self.addresses[answer.name] = answer.addresses
            self._save()

    def unknown(self, names: Iterable[str]) -> set[str]:
        """Return those of the names that no try has ended for yet."""
        return {name for name in names if name not in self.addresses and name not in self.errors}

    def problems(self) -> Iterable[Problem]:
        """Yield the names that can't be resolved."""
        for name, reason in self.errors.items():
            known = name in self.addresses
            hint = "its last addresses go on serving" if known else "check the node's DNS"
            error = AgentError(f"it can't be resolved: {reason}", where=name, hint=hint)
            yield Problem(f"name {name}", kinds.NAME_FAILED, error, {"NAME": name})

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget every other name."""
        wanted = set(names)
        self.errors = {name: error for name, error in self.errors.items() if name in wanted}
        if not wanted.issuperset(self.addresses):
            self.addresses = {n: found for n, found in self.addresses.items() if n in wanted}
            self._save()

    def _save(self) -> None:
        content = {name: sorted(map(str, found)) for name, found in sorted(self.addresses.items())}
        try:
            replace_file(self._file, json.dumps(content, indent=1) + "\n")
        except FileError:
            # Worth a try only: the answers are kept for a start without DNS, and come again.
            return


def _read(file: Path) -> dict[str, frozenset[IPAddress]]:
    try:
        content = json.loads(read_text(file) or "{}")
        return {
            str(name): frozenset(ipaddress.ip_address(str(text)) for text in texts)
            for name, texts in content.items()
        }
    except (ValueError, AttributeError, TypeError, RecursionError):
        return {}
