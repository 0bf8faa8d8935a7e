"""Lines of nginx's error log, as they come over the socket."""

from __future__ import annotations

import pytest

from kube_nginx_agent.nginx.log import LogMessage, parse_message

REFUSED = (
    "*7 connect() failed (111: Connection refused) while connecting to upstream, "
    'client: 127.0.0.1, server: 127.0.0.1:8443, upstream: "10.0.0.1:6443"'
)


def test_line_with_a_syslog_header_is_read() -> None:
    datagram = f"<187>Nov 24 21:33:00 nginx: 2026/11/24 21:33:00 [error] 812#0: {REFUSED}".encode()

    assert parse_message(datagram) == LogMessage("error", 812, REFUSED)


def test_text_ends_before_the_line_does() -> None:
    message = parse_message(b"<186>nginx: [emerg] 1#0: bind() failed\n")

    assert message == LogMessage("emerg", 1, "bind() failed")


def test_text_of_two_lines_is_kept_whole() -> None:
    message = parse_message(b"[warn] 1#0: one\ntwo")

    assert message == LogMessage("warn", 1, "one\ntwo")


def test_bytes_that_are_no_text_are_replaced() -> None:
    message = parse_message(b"[warn] 1#0: \xff")

    assert message == LogMessage("warn", 1, "\ufffd")


@pytest.mark.parametrize("datagram", [b"", b"hello", b"[error] no pid", b"\xff\xfe\x00"])
def test_anything_else_is_no_message(datagram: bytes) -> None:
    assert parse_message(datagram) is None
