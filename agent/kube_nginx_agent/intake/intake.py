"""What the administrator wants at present: the last valid backends.yaml, its names as addresses."""

from __future__ import annotations

from typing import Callable

from kube_nginx_agent.config.flaws import ConfigError
from kube_nginx_agent.config.load import Loaded, load_config
from kube_nginx_agent.desired import Resolved
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.inbox import NameAnswered
from kube_nginx_agent.intake.backends_file import AcceptedCopy, BackendsFile, Content
from kube_nginx_agent.intake.ca_file import refusal
from kube_nginx_agent.intake.names import Names, Resolver
from kube_nginx_agent.model import Config, HostName
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Sink
from kube_nginx_agent.notices.problems import Problems

_FIRST_ANSWERS = 5.0
"""Seconds that a new list waits for the names in it that were never resolved before."""


class Intake:
    """Holds the accepted configuration; says once what is wrong with a newer one."""

    def __init__(
        self,
        paths: Paths,
        sink: Sink,
        problems: Problems,
        post: Callable[[NameAnswered], None],
    ) -> None:
        """Take where the file is and where the lines go; nothing is read yet."""
        self.config: Config | None = None
        self.edited_at: float | None = None
        """When the accepted content was put there, in seconds since the epoch, if it is news."""
        self.has_looked = False
        """Whether the file has been read once, well or not."""
        self._file = BackendsFile(paths.config)
        self._accepted = AcceptedCopy(paths.accepted, paths.config)
        self._live = paths.live
        self._names = Names(paths.names)
        self._resolver = Resolver(post)
        self._names_deadline = 0.0
        self._said = b""
        self._refused: list[str] = []
        self._sink = sink
        self._problems = problems

    @property
    def due(self) -> float | None:
        """When there is something to do that no event will announce."""
        if self._names.unknown(self._hosts()):
            return min(self._names_deadline, self._file.due or self._names_deadline)
        return self._file.due

    @property
    def resolved(self) -> Resolved:
        """The addresses behind each name."""
        return self._names.addresses

    def touch(self, now: float, *, being_written: bool = False) -> None:
        """Note that the file may have changed."""
        self._file.touch(now, being_written=being_written)

    def poll(self, now: float) -> None:
        """Have the file looked at although nothing is known to have happened to it."""
        self._file.poll(now)

    def look(self, now: float, *, at_once: bool = False) -> None:
        """Read the file, and take what it says if that is new, complete and valid."""
        content = self._file.news(now, at_once=at_once)
        if content:
            self._take(content, now)

    def is_waiting_for_names(self, now: float) -> bool:
        """Tell whether the first answers for new names are still worth waiting for."""
        return bool(self._names.unknown(self._hosts())) and now < self._names_deadline

    def note_answer(self, answer: NameAnswered) -> None:
        """Take an answer of DNS; the last addresses outlive an error."""
        before = self._names.addresses.get(answer.name)
        self._names.note(answer)
        about = f"name {answer.name}"
        reason = self._names.errors.get(answer.name)
        if reason:
            hint = "its last addresses go on serving" if before else "check the node's DNS"
            error = AgentError(f"it can't be resolved: {reason}", where=answer.name, hint=hint)
            self._problems.begins(about, kinds.NAME_FAILED, error, {"NAME": answer.name})
            return
        self._problems.ends(about, f"{answer.name}: it is resolved again")
        if before != self._names.addresses[answer.name]:
            addresses = ", ".join(sorted(map(str, answer.addresses)))
            self._sink(
                kinds.NAME_CHANGED, f"{answer.name} is now {addresses}", {"NAME": answer.name}
            )

    def _take(self, content: Content, now: float) -> None:
        self.has_looked = True
        try:
            if content.error:
                raise content.error
            loaded = load_config(content.data, str(self._file.path))
            flaw = refusal(loaded.config.health_check.ca_file)
            if flaw:
                raise flaw
        except AgentError as error:
            self._refuse(error)
            if self.config is None:
                self._fall_back(now)
            return
        self._accepted.save(content.data)
        self._refused = []
        is_news = content.data != self._said
        self._problems.ends("config", "" if is_news else f"{self._file.path}: it is valid again")
        self._adopt(loaded.config, now)
        if is_news:
            self._said = content.data
            self.edited_at = content.changed_at
            self._say_accepted(loaded)

    def _fall_back(self, now: float) -> None:
        """At a start with a broken file: the last valid one, or none at all if nothing is live."""
        loaded = self._accepted.load()
        if loaded:
            self._adopt(loaded.config, now)
        elif not self._live.exists():
            self._adopt(Config(backends=()), now)

    def _adopt(self, config: Config, now: float) -> None:
        self.config = config
        self._names_deadline = now + _FIRST_ANSWERS
        hosts = self._hosts()
        self._names.keep_only(hosts)
        for about in self._problems.about("name "):
            if about.partition(" ")[2] not in hosts:
                self._problems.ends(about)
        self._resolver.want(hosts)

    def _hosts(self) -> set[str]:
        backends = self.config.backends if self.config else ()
        return {b.target.name for b in backends if isinstance(b.target, HostName)}

    def _refuse(self, error: AgentError) -> None:
        lines = error.lines() if isinstance(error, ConfigError) else []
        self._problems.begins("config", kinds.CONFIG_REFUSED, error, {})
        if lines != self._refused:
            self._refused = lines
            for line in lines[1:]:
                self._sink(kinds.CONFIG_REFUSED, line, {})

    def _say_accepted(self, loaded: Loaded) -> None:
        count = len(loaded.config.backends)
        what = f"{count} backend{'' if count == 1 else 's'}" if count else "no backends configured"
        self._sink(kinds.CONFIG_ACCEPTED, f"{self._file.path}: {what}", {"BACKENDS": str(count)})
        for warning in loaded.warnings:
            self._sink(kinds.CONFIG_UNWISE, warning.describe(str(self._file.path)), {})
