"""nginx's own words reach the agent, and nginx never waits for the agent to listen."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from component.conftest import FreePort, StandIns
from component.rig import SECONDS, Rig, holder, who_answers
from kube_nginx_agent.nginx.log import LogMessage, LogReader, parse_message
from kube_nginx_agent.nginx.process import send_signal
from support.address import Address
from support.process import wait_until


def test_line_of_an_error_log_is_taken_apart() -> None:
    line = b"<187>Nov 24 13:36:25 nginx: 2026/11/24 13:36:25 [error] 41#41: *7 connect() failed"

    assert parse_message(line) == LogMessage("error", 41, "*7 connect() failed")


@pytest.mark.parametrize("line", [b"", b"\xff\xfe", b"<190>Nov 24 13:36:25 nginx: hello"])
def test_other_bytes_are_no_message(line: bytes) -> None:
    assert parse_message(line) is None


@pytest.fixture
def reader(folder: Path) -> LogReader:
    reader = LogReader(folder / "log.sock")
    reader.open(os.geteuid())
    return reader


def send(folder: Path, *texts: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as writer:
        for text in texts:
            writer.sendto(f"<187> nginx: [error] 1#1: {text}".encode(), str(folder / "log.sock"))


def test_messages_are_read_from_a_mark_on(folder: Path, reader: LogReader) -> None:
    send(folder, "before")
    wait_until(lambda: reader.since(0), SECONDS, "the first message")
    mark = reader.mark()

    send(folder, "after")

    wait_until(lambda: reader.since(mark), SECONDS, "the second message")
    assert [message.text for message in reader.since(mark)] == ["after"]


def test_flood_leaves_the_last_messages(folder: Path, reader: LogReader) -> None:
    send(folder, *map(str, range(1000)))

    wait_until(lambda: reader.mark() == 1000, SECONDS, "all messages")
    assert [message.text for message in reader.since(0)] == list(map(str, range(800, 1000)))


def test_message_that_is_longer_than_nginx_s_is_cut(folder: Path, reader: LogReader) -> None:
    send(folder, "x" * 8000)

    wait_until(lambda: reader.since(0), SECONDS, "the message")
    assert len(reader.since(0)[0].text) < 3000


def test_socket_of_an_earlier_agent_is_replaced(folder: Path) -> None:
    LogReader(folder / "log.sock").open(os.geteuid())
    reader = LogReader(folder / "log.sock")

    reader.open(os.geteuid())

    send(folder, "hello")
    wait_until(lambda: reader.since(0), SECONDS, "the message")


def test_socket_is_nobodys_but_nginx_own(folder: Path, reader: LogReader) -> None:
    assert (folder / "log.sock").stat().st_mode & 0o777 == 0o600


def test_worker_tells_which_backend_refuses(
    rig: Rig, stand_ins: StandIns, free_port: FreePort
) -> None:
    dead = Address("127.0.0.1", free_port())
    rig.apply(rig.goal(dead))

    who_answers(rig.listen)

    def words() -> list[str]:
        return [message.text for message in rig.log.since(0) if message.level == "error"]

    assert f'upstream: "{dead}"' in wait_until(words, SECONDS, "the worker's message")[0]


def test_master_tells_which_address_it_can_not_bind(rig: Rig, free_port: FreePort) -> None:
    rig.apply(rig.goal())
    held = Address("127.0.0.1", free_port())
    with holder(held):
        rig.paths.live.write_text(rig.goal(listen=held).rendered.text)
        send_signal(rig.master(), signal.SIGHUP)

        message = wait_until(lambda: rig.log.since(0), SECONDS, "the master's message")[0]

    assert (message.level, message.pid) == ("emerg", rig.master().pid)
    assert message.text.startswith(f"bind() to {held} failed")


def test_nginx_logs_to_the_next_agent_after_one_was_killed(rig: Rig, free_port: FreePort) -> None:
    rig.paths.log_socket.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as killed:
        killed.bind(str(rig.paths.log_socket))
        rig.paths.log_socket.chmod(0o666)
        rig.apply(rig.goal(Address("127.0.0.1", free_port())))
        who_answers(rig.listen)
        assert killed.recv(1000)
    next_one = LogReader(rig.paths.log_socket)
    next_one.open(rig.supervisor.worker_uid())

    def is_heard() -> bool:
        who_answers(rig.listen)
        return bool(next_one.since(0))

    wait_until(is_heard, SECONDS, "a message for the next agent")


def test_nginx_serves_on_while_nobody_reads(
    rig: Rig, stand_ins: StandIns, free_port: FreePort
) -> None:
    (api,) = stand_ins(1)
    dead = Address("127.0.0.1", free_port())
    rig.apply(rig.goal(dead, api.address, more="balance:\n  method: round_robin"))
    rig.paths.log_socket.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(rig.paths.log_socket))
        rig.paths.log_socket.chmod(0o666)

        answers = {who_answers(rig.listen) for _ in range(40)}

    assert answers == {api.name}


def test_reader_that_has_died_is_seen_and_opened_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(message: LogMessage) -> None:
        if message.text == "odd":
            raise ValueError(message.text)

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    reader = LogReader(folder / "log.sock", fail)
    reader.open(os.geteuid())
    assert reader.is_open()
    send(folder, "odd")
    wait_until(lambda: not reader.is_open(), SECONDS, "its end")

    reader.open(os.geteuid())

    mark = reader.mark()
    send(folder, "next")
    wait_until(lambda: reader.since(mark), SECONDS, "a message")
    assert reader.is_open()


def test_pid_of_any_length_is_no_reason_to_fail() -> None:
    assert parse_message(b"[error] " + b"9" * 5000 + b"#1: text") is None
