"""The bytes of a backends.yaml -> Config, or every reason why not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Container, Tuple

from kube_nginx_agent.config.addresses import (
    DEFAULT_LISTEN,
    leads_back,
    parse_address,
    parse_target,
)
from kube_nginx_agent.config.document import Document, load_document
from kube_nginx_agent.config.durations import format_duration, parse_duration
from kube_nginx_agent.config.flaws import ConfigError, Path, Problem
from kube_nginx_agent.config.schema import position_of, validate
from kube_nginx_agent.model import (
    Backend,
    Balance,
    Config,
    HealthCheck,
    IPAddress,
    Probe,
    Proxy,
    SocketAddress,
    Target,
)

_NO_BACKUP = {"random", "hash"}
"""nginx refuses ``backup`` with these: "balancing method does not support parameter"."""

_SECOND = timedelta(seconds=1)
_LONGEST_TIMEOUT = timedelta(days=24)
"""epoll_wait(2) takes an ``int`` of milliseconds, and nginx gives it its next timer."""

_NEXT_APISERVER_LIMIT = timedelta(seconds=5)
"""The proxy_next_upstream_timeout of every rendered config."""

_SHORTEST_PROBE = timedelta(milliseconds=50)

_CLIENT_PING = timedelta(seconds=60)
"""Clients ping an HTTP/2 connection after 30 s of silence; an idle timeout of 30 s cut 8 of 10
connections that such a ping kept alive (docs/decisions/0004-timeouts.md)."""


@dataclass(frozen=True)
class Loaded:
    """A valid configuration, and what in it is allowed but unwise."""

    config: Config
    warnings: Tuple[Problem, ...]


def load_config(data: bytes, file: str, own_addresses: Container[IPAddress] = ()) -> Loaded:
    """Read a backends.yaml, called ``file`` in messages. Raise ConfigError if it is invalid.

    ``own_addresses``: those of this node, on which a wildcard in ``listen`` listens. They come and
    go: given for an edit alone, for what was valid once stays so.
    """
    document = load_document(data)
    if not document.values:
        raise ConfigError(file, tuple(document.problems))
    misfits = validate(document)
    void = {misfit.path for misfit in misfits} | document.void
    reader = _Reader(document, void, own_addresses)
    config = reader.config()
    problems = (*document.problems, *misfits, *reader.problems)
    if problems:
        raise ConfigError(file, problems)
    return Loaded(config, tuple(reader.warnings))


class _Reader:
    """Turns what fits the schema into a Config; collects what the schema can't say.

    Leaves out what does not fit, so that one look finds all that is wrong with a file.
    """

    def __init__(
        self, document: Document, misfits: set[Path], own_addresses: Container[IPAddress]
    ) -> None:
        self.document = document
        self.misfits = misfits
        self.own_addresses = own_addresses
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def config(self) -> Config:
        top = self._fitting(self.document.value, ())
        workers = top.get("workers", Config.workers)
        backends = self._backends(top.get("backends", []))
        config = Config(
            backends=tuple(backends.values()),
            listen=self._listen(
                top.get("listen", []), may_leave=top.get("listen_beyond_loopback", False)
            ),
            balance=self._balance(top.get("balance", {})),
            proxy=self._proxy(top.get("proxy", {})),
            health_check=self._health_check(top.get("health_check", {})),
            workers=None if workers == "auto" else workers,
            worker_connections=top.get("worker_connections", Config.worker_connections),
            error_log_level=top.get("error_log_level", Config.error_log_level),
        )
        self._check_targets(backends, config.listen)
        self._check_backups(backends, config.balance.method)
        self._check_drains(backends)
        return config

    def _fitting(self, value: Any, path: Path) -> dict[str, Any]:
        entries = value.items() if isinstance(value, dict) else ()
        return {key: found for key, found in entries if (*path, key) not in self.misfits}

    def _is_whole(self, key: str) -> bool:
        return not any(path[:1] in ((), (key,)) for path in self.misfits)

    def _listen(self, value: Any, *, may_leave: bool) -> tuple[SocketAddress, ...]:
        """Return the addresses; ``may_leave``: they need not be loopback, as the file says."""
        paths: dict[Path, str] = {("listen",): value}
        if isinstance(value, list):
            paths = {("listen", index): text for index, text in enumerate(value)}
        found: dict[SocketAddress, Path] = {}
        for path, text in paths.items():
            if path in self.misfits:
                continue
            address = parse_address(text)
            if address in found:
                self._refuse(path, f"{address} stands twice", "remove one")
            if not address.ip.is_loopback and not may_leave:
                self._warn(
                    path,
                    f"{address} can be reached from other machines",
                    "listen on 127.0.0.1 and [::1], or write listen_beyond_loopback: true",
                )
            found.setdefault(address, path)
        self._check_overlaps(found)
        return tuple(found)

    def _check_overlaps(self, found: dict[SocketAddress, Path]) -> None:
        """Refuse what nginx can't bind, with so_keepalive: an address beside all addresses."""
        for address, path in found.items():
            everywhere = SocketAddress(type(address.ip)(0), address.port)
            if address != everywhere and everywhere in found:
                self._refuse(path, f"{address} is part of {everywhere} already", "keep one of them")

    def _balance(self, value: Any) -> Balance:
        if isinstance(value, str):
            return Balance(method=value)
        balance = Balance(**self._fitting(value, ("balance",)))
        if balance.salt is not None and balance.method != "hash" and self._is_whole("balance"):
            self._refuse(
                ("balance", "salt"), f"{balance.method} has no use for it", "add method: hash"
            )
        return balance

    def _backends(self, entries: list[Any]) -> dict[Path, Backend]:
        found: dict[Path, Backend] = {}
        for index, entry in enumerate(entries):
            path: Path = ("backends", index)
            if path in self.misfits:
                continue
            details: dict[str, Any] = {"address": entry}
            if isinstance(entry, dict):
                details = self._fitting(entry, path)
            if "address" not in details:
                continue
            if "fail_timeout" in details:
                details["fail_timeout"] = self._fail_timeout(details, (*path, "fail_timeout"))
            found[path] = Backend(target=parse_target(details.pop("address")), **details)
        return found

    def _fail_timeout(self, details: dict[str, Any], path: Path) -> timedelta:
        duration = self._duration(details["fail_timeout"], path)
        if duration % _SECOND:
            self._refuse(
                path,
                f"{details['fail_timeout']} is not a whole number of seconds",
                "nginx counts this in seconds: write 1s or more",
            )
        return duration

    def _duration(self, text: str, path: Path) -> timedelta:
        duration = parse_duration(text)
        if not duration:
            self._refuse(path, f"{text} is no time at all", "write 1s or more")
        if duration > _LONGEST_TIMEOUT:
            longest = format_duration(_LONGEST_TIMEOUT)
            self._refuse(path, f"{text} is longer than nginx can wait", f"write at most {longest}")
        return duration

    def _proxy(self, value: Any) -> Proxy:
        settings = self._fitting(value, ("proxy",))
        for key in settings.keys() & {"connect_timeout", "idle_timeout"}:
            settings[key] = self._duration(settings[key], ("proxy", key))
        proxy = Proxy(**settings)
        if proxy.connect_timeout and proxy.connect_timeout >= _NEXT_APISERVER_LIMIT:
            self._warn(
                ("proxy", "connect_timeout"),
                f"{format_duration(proxy.connect_timeout)} leaves no time for a second apiserver: "
                f"nobody waits longer than {format_duration(_NEXT_APISERVER_LIMIT)}",
                "1s is enough",
            )
        if timedelta(0) < proxy.idle_timeout < _CLIENT_PING:
            self._warn(
                ("proxy", "idle_timeout"),
                f"{format_duration(proxy.idle_timeout)} cuts healthy idle watches: clients ping "
                "only after 30 s of silence",
                "10m is safe",
            )
        return proxy

    def _health_check(self, value: Any) -> HealthCheck:
        if isinstance(value, bool):
            return HealthCheck(
                tcp=replace(HealthCheck.tcp, enabled=value),
                readyz=replace(HealthCheck.readyz, enabled=value),
            )
        parts = self._fitting(value, ("health_check",))
        readyz = self._fitting(parts.get("readyz", {}), ("health_check", "readyz"))
        given: dict[str, Any] = {
            key: readyz.pop(key) for key in ("path", "ca_file", "server_name") if key in readyz
        }
        if "cut_after" in parts:
            given["cut_after"] = self._duration(parts["cut_after"], ("health_check", "cut_after"))
        return HealthCheck(
            tcp=self._probe(HealthCheck.tcp, parts.get("tcp", {}), "tcp"),
            readyz=self._probe(HealthCheck.readyz, readyz, "readyz"),
            **given,
        )

    def _probe(self, default: Probe, value: Any, name: str) -> Probe:
        path: Path = ("health_check", name)
        settings = self._fitting(value, path)
        for key in settings.keys() & {"interval", "timeout"}:
            settings[key] = self._duration(settings[key], (*path, key))
            if settings[key] < _SHORTEST_PROBE:
                shortest = format_duration(_SHORTEST_PROBE)
                self._refuse((*path, key), "that is too short", f"write {shortest} or more")
        return replace(default, **settings)

    def _check_targets(
        self, backends: dict[Path, Backend], listen: tuple[SocketAddress, ...]
    ) -> None:
        own = listen if ("listen",) in self.document.keys else DEFAULT_LISTEN
        seen: dict[Target, Path] = {}
        for path, backend in backends.items():
            if leads_back(backend.target, own, self.own_addresses):
                self._refuse(
                    path, f"{backend.target} is where we listen", "nginx would call itself"
                )
            first = seen.setdefault(backend.target, path)
            if first != path:
                line = position_of(self.document, first).line
                self._refuse(path, f"{backend.target} is on line {line} already", "remove one")

    def _check_backups(self, backends: dict[Path, Backend], method: str) -> None:
        backups = [path for path, backend in backends.items() if backend.backup]
        if method in _NO_BACKUP and self._is_whole("balance"):
            for path in backups:
                self._refuse(
                    (*path, "backup"),
                    f"nginx has no backup servers with balance: {method}",
                    "use balance: least_conn or round_robin",
                )
        elif backups and len(backups) == len(backends) and self._is_whole("backends"):
            self._refuse(("backends",), "every backend is a backup", "one must not be")

    def _check_drains(self, backends: dict[Path, Backend]) -> None:
        drains = [backend.drain for backend in backends.values()]
        if drains and all(drains) and self._is_whole("backends"):
            self._refuse(("backends",), "every backend drains", "one must take the new connections")

    def _refuse(self, path: Path, what: str, hint: str) -> None:
        self.problems.append(Problem(position_of(self.document, path), path, what, hint))

    def _warn(self, path: Path, what: str, hint: str) -> None:
        self.warnings.append(Problem(position_of(self.document, path), path, what, hint))
