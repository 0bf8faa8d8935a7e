"""DNS names -> addresses, decided from many answers; what was decided outlives DNS and the agent.

nginx itself would resolve a name once, while it starts, and not start at all without DNS.
"""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Iterable

from kube_nginx_agent.config.addresses import is_one_host, unmapped
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.inbox import NameAnswered
from kube_nginx_agent.intake.name_history import MOST_ADDRESSES, NameHistory
from kube_nginx_agent.model import IPAddress
from kube_nginx_agent.node.files import FileError, read_text, replace_file
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Sink
from kube_nginx_agent.notices.problems import Problem

_VERSION = 2
"""Of the file. The first had no number: it was ``{name: [address, ...]}``."""
_LONGEST_REASON = 200
"""Characters; a plug-in of nsswitch.conf(5) may say anything."""


class Names:
    """What is known of each name of the list: its addresses, and whether it can be resolved."""

    def __init__(self, file: Path, sink: Sink) -> None:
        """Take the file that the addresses are kept in, and read it; news go to ``sink``."""
        self._file = file
        self._sink = sink
        self._histories = _read(file)
        self._wanted: frozenset[str] = frozenset()

    @property
    def addresses(self) -> dict[str, frozenset[IPAddress]]:
        """The addresses of each name that has some."""
        return {name: known.addresses for name, known in self._present() if known.addresses}

    @property
    def retired(self) -> dict[str, frozenset[IPAddress]]:
        """The addresses that DNS, and not the administrator, has taken from a name of the list."""
        return {name: frozenset(known.retired) for name, known in self._present() if known.retired}

    def keep_only(self, names: Iterable[str]) -> None:
        """Take the names of the list; every other one is forgotten."""
        self._wanted = frozenset(names)
        if not self._wanted.issuperset(self._histories):
            self._histories = {n: h for n, h in self._histories.items() if n in self._wanted}
            self._save()

    def note(self, answer: NameAnswered, now: float) -> None:
        """Take an answer, ``now`` in seconds of the steady clock; drop it if the name has gone.

        An error or an empty answer leaves the addresses standing.
        """
        if answer.name not in self._wanted:
            return
        history = self._histories.setdefault(answer.name, NameHistory())
        if answer.error or not answer.addresses:
            reason = (answer.error or "the name has no address")[:_LONGEST_REASON]
            history.note_failure("".join(c if c.isprintable() else "?" for c in reason))
            return
        change = history.note(answer.addresses, now)
        if change:
            self._save()
            left = f"; {_listed(change.left)} left it" if change.left else ""
            message = f" is now {_listed(history.addresses)}{left}"
            self._say(kinds.NAME_CHANGED, answer.name, message)
        if change.varies:
            message = ": its answers vary; an address leaves only after minutes without it"
            self._say(kinds.NAME_VARIES, answer.name, message)

    def unknown(self, names: Iterable[str]) -> set[str]:
        """Return those of the names that nothing is known of and no try has ended for yet."""
        known = {n for n, history in self._present() if history.addresses or history.is_answered}
        return set(names) - known

    def problems(self) -> Iterable[Problem]:
        """Yield a problem for each name of the list that can't be resolved."""
        for name, history in self._present():
            if history.failure:
                is_served = bool(history.addresses)
                hint = "its last addresses go on serving" if is_served else "check the node's DNS"
                what = f"it can't be resolved: {history.failure}"
                error = AgentError(what, where=name, hint=hint)
                yield Problem(f"name {name}", kinds.NAME_FAILED, error, {"NAME": name})

    def _present(self) -> list[tuple[str, NameHistory]]:
        names = sorted(self._wanted & self._histories.keys())
        return [(name, self._histories[name]) for name in names]

    def _say(self, kind: kinds.Kind, name: str, message: str) -> None:
        self._sink(kind, f"{name}{message}", {"NAME": name})

    def _save(self) -> None:
        names = {
            name: {"addresses": _texts(known.addresses), "retired": list(map(str, known.retired))}
            for name, known in sorted(self._histories.items())
            if known.addresses
        }
        try:
            replace_file(
                self._file, json.dumps({"version": _VERSION, "names": names}, indent=1) + "\n"
            )
        except FileError:
            # Worth a try only: they are kept for a start without DNS, and come again.
            return


def _listed(addresses: Iterable[IPAddress]) -> str:
    texts = _texts(addresses)
    return ", ".join(texts[:8]) + (f" and {len(texts) - 8} more" if len(texts) > 8 else "")


def _texts(addresses: Iterable[IPAddress]) -> list[str]:
    return [str(ip) for ip in sorted(addresses, key=lambda ip: (ip.version, int(ip)))]


def _read(file: Path) -> dict[str, NameHistory]:
    """Return what the file holds, in the first format too; nothing if it is damaged."""
    try:
        content = json.loads(read_text(file) or "{}")
        if isinstance(content.get("version"), int):
            return {name: _history(**known) for name, known in content["names"].items()}
        return {name: _history(addresses) for name, addresses in content.items()}
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return {}


def _history(addresses: list[str], retired: Iterable[str] = (), **_: object) -> NameHistory:
    return NameHistory(frozenset(_ips(addresses)), tuple(_ips(retired)))


def _ips(texts: Iterable[str]) -> list[IPAddress]:
    found = (unmapped(ipaddress.ip_address(str(text))) for text in texts)
    return [ip for ip in found if is_one_host(ip)][:MOST_ADDRESSES]
