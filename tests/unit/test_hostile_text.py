"""Text that others wrote, where the agent reads it: what fuzzing found, told or left out since."""

from __future__ import annotations

import argparse
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from kube_nginx_agent.cli import status as status_verb
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.nginx import capacity, orphans, ports, process
from kube_nginx_agent.nginx.log import parse_message
from kube_nginx_agent.node.files import number_of, status_of
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.report.status_file import BackendStatus, Status, read_status

OWN = process.identify(os.getpid())
LONG_NUMBER = "9" * 5000
"""int() refuses more than 4,300 digits."""


# The report


def report(**changes: Any) -> dict[str, Any]:
    """Return the content of a status.json whose writer lives: this process."""
    assert OWN
    backend = BackendStatus("192.0.2.1:6443", "api1", "up", 1.0, "", True, 1.5, 3, 0, 1, False)
    status = Status(OWN.pid, OWN.start_time, "1", "/x", 1.0, 1.0, backends=(backend,))
    return {**asdict(status), **changes}


@pytest.fixture
def paths() -> Iterator[Paths]:
    # Not tmp_path: where packages are built, its name is longer than a socket's may be.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        paths = Paths(run_dir=Path(folder))
        paths.status.parent.mkdir(parents=True, exist_ok=True)
        yield paths


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"pid": 1e999, "start_time": 1}',
        json.dumps(report(pid=True)),
        json.dumps(report(verdict="splendid")),
        json.dumps(report(updated_at=float("nan"))),
        json.dumps(report(started_at=int(LONG_NUMBER[:400]))),
        json.dumps(report(backends=[{}])),
        json.dumps(report(problems=[{"what": 1}])),
        json.dumps({key: value for key, value in report().items() if key != "live_since"}),
        " " * (1024 * 1024) + json.dumps(report()),
    ],
    ids=range(12),
)
def test_report_of_another_form_is_told_and_no_traceback(paths: Paths, text: str) -> None:
    paths.status.write_text(text)

    with pytest.raises(AgentError, match="it is not a status"):
        read_status(paths)


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("text", ["\x1b[2Jwell", "a\nok: b", "\ud800", "\x9b2J"])
def test_report_sends_nothing_to_the_terminal_that_it_would_obey(
    paths: Paths, capsys: pytest.CaptureFixture[str], text: str, as_json: bool
) -> None:
    backend = {**report()["backends"][0], "cause": text, "name": text}
    paths.status.write_text(json.dumps(report(summary=text, backends=[backend], version=text)))

    status_verb.execute(argparse.Namespace(run_dir=paths.run_dir, json=as_json))

    shown = capsys.readouterr().out
    assert all(line.isprintable() for line in shown.split("\n"))
    assert "\nok: b" not in shown


def test_generation_that_lives_since_no_time_is_shown(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    paths.status.write_text(json.dumps(report(generation="4f2a91c", live_since=None)))

    status_verb.execute(argparse.Namespace(run_dir=paths.run_dir, json=False))

    assert "generation  4f2a91c, live\n" in capsys.readouterr().out


def test_report_as_it_is_written_is_read_whole(paths: Paths) -> None:
    paths.status.write_text(json.dumps(report()))

    assert read_status(paths) == json.loads(json.dumps(report()))


# nginx's log, whose socket a worker can write to


def test_log_line_with_an_endless_pid_is_none() -> None:
    assert parse_message(f"[error] {LONG_NUMBER}#1: x".encode()) is None


# /proc, in which strangers choose names


def test_socket_whose_name_looks_like_a_line_of_its_own_is_no_error() -> None:
    wanted = Path("/run/kna/generation.sock")
    line = f"\0x\na b c 00010000 e f none {wanted}"
    with socket.socket(socket.AF_UNIX) as strange:
        strange.bind(line)

        assert orphans.find_orphans(wanted, Path("/usr/bin/true")) == []


def reads(module: Any, text: str) -> Any:
    return mock.patch.object(module, "read_proc", return_value=text)


@pytest.mark.parametrize("text", ["", "x", "1 (a) S 1", f"1 (a) S {'x ' * 30}"])
def test_process_that_shows_no_status_is_none(text: str) -> None:
    with reads(process, text):
        assert process.identify(1) is None
        assert process.parent_of(1) is None


def test_number_that_is_none_is_no_count() -> None:
    assert OWN
    with reads(process, "voluntary_ctxt_switches:\tmany\n"):
        assert process.turns_of(OWN) == 0
    with reads(capacity, f"Max open files            {LONG_NUMBER} x files\n"):
        assert capacity._files_limit(1) > 0


def test_listener_that_can_t_be_read_leaves_the_others() -> None:
    good = "0: 0100007F:20FB 00000000:0000 0A 0:0 0:0 0 998 0 4321 1"
    with reads(ports, f"head\n0: x y 0A\n\n{good}\n"):
        found = {(str(ip), port, uid, inode) for ip, port, uid, inode in ports._listeners_of_proc()}

    assert found == {("127.0.0.1", 8443, 998, 4321)}


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), (str(2**64 - 1), 2**64 - 1), (LONG_NUMBER, None), ("-1", None), ("1_0", None)],
)
def test_number_is_one_as_the_kernel_prints_it(text: str, number: int | None) -> None:
    assert number_of(text) == number


def test_path_with_a_null_byte_is_nowhere() -> None:
    assert status_of(Path("/tmp/a\0b")) is None
