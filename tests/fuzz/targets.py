"""The fuzzed readers: each takes any bytes, and raises AssertionError for what must never be.

An error that a reader promises for bad input is right; any other exception is a finding.
"""

from __future__ import annotations

import argparse
import io
import re
import socket
import tempfile
import time
from contextlib import (
    closing,
    contextmanager,
    nullcontext,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Callable, Iterator
from unittest import mock

import yaml

from fuzz.altered_status import altered
from fuzz.answers import answers_of_an_apiserver
from fuzz.proc_text import proc_text
from kube_nginx_agent.cli import status as status_verb
from kube_nginx_agent.config.flaws import ConfigError
from kube_nginx_agent.config.load import Loaded, load_config
from kube_nginx_agent.desired import desire
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.health.nginx_errors import trouble
from kube_nginx_agent.model import HostName, Node
from kube_nginx_agent.nginx.log import LONGEST, parse_message
from kube_nginx_agent.nginx.rendering import generation_of, render
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.report import status_file
from kube_nginx_agent.sessions import cut_helper

Target = Callable[[bytes], None]

PATIENCE = 2.0
"""Seconds of a processor for one input; each takes milliseconds. What waits is ended by atheris."""

_NODE = Node(id="4f2a91c0d3e5", has_ipv6_loopback=True)
_PATHS = Paths()
_DIRECTIVE = re.compile(
    r"(worker_\w+|pid|error_log|events|stream|upstream|zone|random|least_conn|hash|server|listen|"
    r"proxy_\w+|tcp_nodelay|return|use|daemon|user|multi_accept)\b[^;{}]*[;{]|\}|"
    r"(server|events) \{[^{}]*\}"
)


def backends_yaml() -> Target:
    """A list of servers is refused with reasons, or becomes a config of known directives alone."""

    def run(data: bytes) -> None:
        # A machine may lack libyaml: one input in four goes through the other parser.
        with _without_libyaml() if len(data) % 4 == 0 else nullcontext():
            try:
                loaded = load_config(data, "backends.yaml")
            except ConfigError as error:
                assert all(line.isprintable() for line in error.lines()), error.lines()
                return
        assert all(w.describe("backends.yaml").isprintable() for w in loaded.warnings)
        _check_rendered(loaded)

    return run


def _check_rendered(loaded: Loaded) -> None:
    names = {b.target.name for b in loaded.config.backends if isinstance(b.target, HostName)}
    try:
        resolved = {name: frozenset({ip_address("192.0.2.7")}) for name in names}
        made = render(desire(loaded.config, resolved, _NODE), _PATHS)
    except AgentError:
        return  # no backend is left that could be used
    assert generation_of(made.text) == made.generation
    assert made.text.isascii()
    for line in made.text.split("\n"):
        bare = line.partition("#")[0].strip()
        assert not bare or _DIRECTIVE.fullmatch(bare), bare


@contextmanager
def _without_libyaml() -> Iterator[None]:
    loader = yaml.__dict__.pop("CSafeLoader", None)
    try:
        yield
    finally:
        if loader:
            yaml.CSafeLoader = loader  # type: ignore[misc]


def nginx_log() -> Target:
    """A datagram on the log socket says something of a backend, or nothing."""

    def run(data: bytes) -> None:
        message = parse_message(data[:LONGEST])
        if message:
            trouble(message.text)

    return run


def status_json() -> Target:
    """The report is shown, or called none: by ``status`` for people and for programs.

    What begins with a byte of 1 alters a report as the agent writes it.
    """
    folder = tempfile.mkdtemp(prefix="kna-fuzz-")
    paths = Paths(run_dir=Path(folder))

    def run(data: bytes) -> None:
        paths.status.parent.mkdir(parents=True, exist_ok=True)
        paths.status.write_bytes(altered(data[1:]) if data[:1] == b"\1" else data)
        for is_alive in (True, False):
            with mock.patch.object(status_file, "is_alive", lambda _, alive=is_alive: alive):
                for as_json in (True, False):
                    chosen = argparse.Namespace(run_dir=paths.run_dir, json=as_json)
                    _check_shown(chosen)

    return run


def _check_shown(chosen: argparse.Namespace) -> None:
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = status_verb.execute(chosen)
    except AgentError as error:
        assert str(error).isprintable(), str(error)
        return
    assert code in range(5)
    for line in f"{out.getvalue()}{err.getvalue()}".split("\n"):
        assert line.isprintable(), line


def helper_message() -> Target:
    """The helper answers each message in a few words, and ends what is named and nginx's alone."""
    named, nginxs = {5, 6, 7, 8}, {6, 7, 9}
    ended: set[int] = set()

    def end(_: Any, sockets: list[Any]) -> int:
        ended.update(entry.inode for entry in sockets)
        return len(sockets)

    table = [mock.Mock(inode=inode) for inode in named | nginxs]
    stand_ins: dict[str, Any] = {
        "diag_socket": nullcontext,
        "list_to": lambda _diag, _backends: table,
        "destroy_all": end,
        "sockets_of": lambda _pid: nginxs,
        "_nginx_pids": lambda: [1],
    }

    def run(data: bytes) -> None:
        ended.clear()
        with mock.patch.multiple(cut_helper, **stand_ins):
            answer = _ask_helper(data)
        assert ended <= nginxs & set(_numbers(data)), ended
        assert data == b"" or re.fullmatch(rb"[0-9]{1,4}|[ -~]{1,200}", answer), answer

    return run


def _numbers(data: bytes) -> Iterator[int]:
    for word in data.decode("ascii", "replace").split():
        with suppress(ValueError):
            yield int(word)


def _ask_helper(message: bytes) -> bytes:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(ours), closing(theirs):
        ours.settimeout(PATIENCE)
        ours.send(message[: cut_helper.MAX_MESSAGE])
        ours.shutdown(socket.SHUT_WR)
        cut_helper.serve(theirs)
        theirs.close()
        return ours.recv(1000)


def in_time(target: Target) -> Target:
    """Return the target, to which an input that takes long is a finding too."""

    def run(data: bytes) -> None:
        began = time.thread_time()
        target(data)
        took = time.thread_time() - began
        assert took < PATIENCE, f"{took:.2f} s for {len(data)} bytes"

    return run


TARGETS: dict[str, Callable[[], Target]] = {
    "backends": backends_yaml,
    "readyz": answers_of_an_apiserver,
    "nginx-log": nginx_log,
    "proc": proc_text,
    "status": status_json,
    "helper": helper_message,
}
