"""What the administrator wants at present: the last valid backends.yaml, its names as addresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterable

from kube_nginx_agent.config.flaws import ConfigError
from kube_nginx_agent.config.load import Loaded, load_config
from kube_nginx_agent.desired import Resolved
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.inbox import NameAnswered
from kube_nginx_agent.intake.backends_file import AcceptedCopy, BackendsFile, Content
from kube_nginx_agent.intake.ca_file import refusal
from kube_nginx_agent.intake.names import Names
from kube_nginx_agent.intake.resolver import Resolver
from kube_nginx_agent.model import Config, HostName, IPAddress
from kube_nginx_agent.node.files import is_there
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Sink
from kube_nginx_agent.notices.problems import Problem

_FIRST_ANSWERS = 5.0
"""Seconds that a new list waits for the names in it that were never resolved before."""


@dataclass(frozen=True)
class Wish:
    """A valid list: its text, and what that says."""

    data: bytes
    config: Config

    def hosts(self) -> set[str]:
        """Return the DNS names in it."""
        targets = (backend.target for backend in self.config.backends)
        return {target.name for target in targets if isinstance(target, HostName)}


class Intake:
    """Holds the newest valid list and the one that is live; knows what is wrong with a newer one.

    The two differ while an edit that is valid can't go live. Then both lists' names are resolved.
    """

    def __init__(self, paths: Paths, sink: Sink, post: Callable[[NameAnswered], None]) -> None:
        """Take where the file is and where the lines go; nothing is read yet."""
        self.wanted: Wish | None = None
        self.live: Wish | None = None
        self.has_looked = False
        """Whether the file has been read once, well or not."""
        self._own_addresses: frozenset[IPAddress] = frozenset()
        self._edited_at: float | None = None
        self._file = BackendsFile(paths.config)
        self._proven = AcceptedCopy(paths.accepted, paths.config)
        self._live_config = paths.live
        self._names = Names(paths.names, sink)
        self._resolver = Resolver(post)
        self._names_deadline = 0.0
        self._refusal: AgentError | None = None
        self._said = b""
        self._sink = sink

    def due(self, now: float) -> float | None:
        """Return when there is something to do that no event will announce."""
        deadline = self._names_deadline if self.is_waiting_for_names(now) else None
        dues = [due for due in (self._file.due, deadline) if due is not None and due > now]
        return min(dues, default=None)

    @property
    def resolved(self) -> Resolved:
        """The addresses behind each name."""
        return self._names.addresses

    @property
    def retired(self) -> Resolved:
        """The addresses that DNS, and not the administrator, has taken from each name."""
        return self._names.retired

    @property
    def is_refused(self) -> bool:
        """Whether the file holds something that is not accepted."""
        return self._refusal is not None

    def note_own_addresses(self, addresses: frozenset[IPAddress]) -> None:
        """Take the node's own addresses; a list that was refused is judged again by new ones."""
        if addresses != self._own_addresses:
            self._own_addresses = addresses
            if self._refusal:
                self._file.forget()

    def touch(self, now: float, *, being_written: bool = False) -> None:
        """Note that the file may have changed."""
        self._file.touch(now, being_written=being_written)

    def poll(self, now: float) -> None:
        """Have the file looked at although nothing is known to have happened to it."""
        self._file.poll(now)
        self._resolver.want(self._hosts())  # a thread that could not be started is tried again

    def look(self, now: float, *, at_once: bool = False) -> None:
        """Read the file, and take what it says if that is new, complete and valid."""
        content = self._file.news(now, at_once=at_once)
        if content:
            self._take(content, now)

    def is_waiting_for_names(self, now: float) -> bool:
        """Tell whether the first answers for new names are still worth waiting for."""
        hosts = self.wanted.hosts() if self.wanted else set()
        return now < self._names_deadline and bool(self._names.unknown(hosts))

    def note_answer(self, answer: NameAnswered, now: float) -> None:
        """Take an answer of DNS; the last addresses outlive an error."""
        self._names.note(answer, now)

    def note_live(self, wish: Wish) -> None:
        """Remember that nginx serves this list: it is what goes on when a newer one fails."""
        if wish != self.live:
            self.live = wish
            self._proven.save(wish.data)
            self._follow_names()

    def take_edit_time(self) -> float | None:
        """Return, once, when the accepted content was put there, in seconds since the epoch."""
        edited_at, self._edited_at = self._edited_at, None
        return edited_at

    def problems(self) -> Iterable[Problem]:
        """Yield what is wrong with the file, and with the names in it."""
        if self._refusal:
            lines = self._refusal.lines() if isinstance(self._refusal, ConfigError) else []
            more = tuple(lines[1:])
            yield Problem("config", kinds.CONFIG_REFUSED, self._refusal, more=more)
        yield from self._names.problems()

    def _take(self, content: Content, now: float) -> None:
        self.has_looked = True
        try:
            if content.error:
                raise content.error
            loaded = load_config(content.data, str(self._file.path), self._own_addresses)
            flaw = refusal(loaded.config.health_check.ca_file)
            if flaw:
                raise flaw
        except AgentError as error:
            self._refusal = error
            if self.wanted is None:
                self._fall_back(now)
            return
        self._refusal = None
        self._adopt(Wish(content.data, loaded.config), now)
        if content.data != self._said:
            self._said = content.data
            self._edited_at = content.changed_at
            self._say_accepted(loaded)

    def _fall_back(self, now: float) -> None:
        """At a start with a broken file: the last proven one, or none at all if nothing is live."""
        proven = self._load_proven()
        if proven:
            self._adopt(proven, now)
        elif not is_there(self._live_config):
            self._adopt(Wish(b"", Config(backends=())), now)

    def _load_proven(self) -> Wish | None:
        """Return the list that an earlier agent has seen live, None if that is not known."""
        data, loaded = self._proven.load()
        return Wish(data, loaded.config) if loaded else None

    def _adopt(self, wish: Wish, now: float) -> None:
        if self.live is None:
            self.live = self._load_proven()
        self.wanted = wish
        self._names_deadline = now + _FIRST_ANSWERS
        self._follow_names()

    def _follow_names(self) -> None:
        hosts = self._hosts()
        self._names.keep_only(hosts)
        self._resolver.want(hosts)

    def _hosts(self) -> set[str]:
        wishes = (wish for wish in (self.wanted, self.live) if wish)
        return {host for wish in wishes for host in wish.hosts()}

    def _say_accepted(self, loaded: Loaded) -> None:
        count = len(loaded.config.backends)
        what = f"{count} backend{'' if count == 1 else 's'}" if count else "no backends configured"
        self._sink(kinds.CONFIG_ACCEPTED, f"{self._file.path}: {what}", {"BACKENDS": str(count)})
        for warning in loaded.warnings:
            self._sink(kinds.CONFIG_UNWISE, warning.describe(str(self._file.path)), {})
