"""The bytes of a backends.yaml -> Config, or every reason why not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Tuple

from kube_nginx_agent.config.addresses import parse_listen, parse_target
from kube_nginx_agent.config.document import Document, load_document
from kube_nginx_agent.config.durations import format_duration, parse_duration
from kube_nginx_agent.config.problems import ConfigError, Path, Problem
from kube_nginx_agent.config.schema import position_of, validate
from kube_nginx_agent.desired import DEFAULT_LISTEN, leads_back
from kube_nginx_agent.model import Backend, Balance, Config, Proxy, SocketAddress, Target

_NO_BACKUP = {"random", "hash"}
"""nginx refuses ``backup`` with these: "balancing method does not support parameter"."""

_SECOND = timedelta(seconds=1)
_CLIENT_PING = timedelta(seconds=60)
"""Clients ping an HTTP/2 connection after 30 s of silence; an idle timeout of 30 s cut 8 of 10
connections that such a ping kept alive (docs/decisions/0004-timeouts.md)."""


@dataclass(frozen=True)
class Loaded:
    """A valid configuration, and what in it is allowed but unwise."""

    config: Config
    warnings: Tuple[Problem, ...]


def load_config(data: bytes, file: str) -> Loaded:
    """Read a backends.yaml, called ``file`` in messages. Raise ConfigError if it is invalid."""
    document = load_document(data)
    problems = list(document.problems)
    if document.values:
        refused = {problem.path for problem in problems}
        problems += [found for found in validate(document) if not _inside(found.path, refused)]
    if problems:
        raise ConfigError(file, tuple(problems))
    reader = _Reader(document)
    config = reader.config()
    if reader.problems:
        raise ConfigError(file, tuple(reader.problems))
    return Loaded(config, tuple(reader.warnings))


def _inside(path: Path, refused: set[Path]) -> bool:
    return any(path[: len(outer)] == outer for outer in refused)


class _Reader:
    """Turns a document that fits the schema into a Config; collects what the schema can't say."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def config(self) -> Config:
        top = self.document.value
        balance = self._balance(top.get("balance", {}))
        workers = top.get("workers", Config.workers)
        config = Config(
            backends=tuple(
                self._backend(entry, ("backends", index))
                for index, entry in enumerate(top["backends"])
            ),
            listen=self._listen(top.get("listen", [])),
            balance=balance,
            proxy=self._proxy(top.get("proxy", {})),
            workers=None if workers == "auto" else workers,
            worker_connections=top.get("worker_connections", Config.worker_connections),
            error_log_level=top.get("error_log_level", Config.error_log_level),
        )
        self._check_backends(config)
        return config

    def _listen(self, value: Any) -> tuple[SocketAddress, ...]:
        entries = value if isinstance(value, list) else [value]
        addresses: list[SocketAddress] = []
        for index, text in enumerate(entries):
            path: Path = ("listen", index) if isinstance(value, list) else ("listen",)
            address = parse_listen(text)
            if address in addresses:
                self._refuse(path, f"{address} stands twice", "remove one")
            if not address.ip.is_loopback:
                self._warn(
                    path,
                    f"{address} can be reached from other machines",
                    "listen on 127.0.0.1 and [::1] unless that is wanted",
                )
            addresses.append(address)
        return tuple(addresses)

    def _balance(self, value: Any) -> Balance:
        details = value if isinstance(value, dict) else {"method": value}
        balance = Balance(**details)
        if balance.salt is not None and balance.method != "hash":
            self._refuse(
                ("balance", "salt"), f"{balance.method} has no use for it", "use it with hash"
            )
        return balance

    def _backend(self, entry: Any, path: Path) -> Backend:
        details = dict(entry) if isinstance(entry, dict) else {"address": entry}
        if "fail_timeout" in details:
            details["fail_timeout"] = self._fail_timeout(details, (*path, "fail_timeout"))
        return Backend(target=parse_target(details.pop("address")), **details)

    def _fail_timeout(self, details: dict[str, Any], path: Path) -> timedelta:
        duration = parse_duration(details["fail_timeout"])
        if duration < _SECOND or duration % _SECOND:
            self._refuse(
                path, f"{details['fail_timeout']} is not in whole seconds", "nginx counts seconds"
            )
        return duration

    def _proxy(self, value: dict[str, Any]) -> Proxy:
        settings = dict(value)
        for key in settings.keys() & {"connect_timeout", "idle_timeout"}:
            settings[key] = parse_duration(settings[key])
        proxy = Proxy(**settings)
        for key in ("connect_timeout", "idle_timeout"):
            if not getattr(proxy, key):
                self._refuse(("proxy", key), "a timeout of nothing", "write 1s or more")
        if timedelta(0) < proxy.idle_timeout < _CLIENT_PING:
            self._warn(
                ("proxy", "idle_timeout"),
                f"{format_duration(proxy.idle_timeout)} cuts healthy idle watches: clients ping "
                "only after 30 s of silence",
                "10m is safe",
            )
        return proxy

    def _check_backends(self, config: Config) -> None:
        self._check_duplicates(config)
        self._check_backups(config)
        if config.backends and all(backend.drain for backend in config.backends):
            self._refuse(("backends",), "every backend drains", "one must take the new connections")

    def _check_duplicates(self, config: Config) -> None:
        seen: dict[Target, int] = {}
        for index, backend in enumerate(config.backends):
            path: Path = ("backends", index)
            if leads_back(backend.target, config.listen or DEFAULT_LISTEN):
                self._refuse(
                    path, f"{backend.target} is where we listen", "nginx would call itself"
                )
            first = seen.setdefault(backend.target, index)
            if first != index:
                line = position_of(self.document, ("backends", first)).line
                self._refuse(path, f"{backend.target} is on line {line} already", "remove one")

    def _check_backups(self, config: Config) -> None:
        backups = [index for index, backend in enumerate(config.backends) if backend.backup]
        method = config.balance.method
        if backups and method in _NO_BACKUP:
            for index in backups:
                self._refuse(
                    ("backends", index, "backup"),
                    f"nginx has no backup servers with balance: {method}",
                    "use balance: least_conn or round_robin",
                )
        elif backups and len(backups) == len(config.backends):
            self._refuse(("backends",), "every backend is a backup", "one must not be")

    def _refuse(self, path: Path, what: str, hint: str = "") -> None:
        self.problems.append(Problem(position_of(self.document, path), path, what, hint))

    def _warn(self, path: Path, what: str, hint: str) -> None:
        self.warnings.append(Problem(position_of(self.document, path), path, what, hint))
