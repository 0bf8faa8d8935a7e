"""HTTP/1.1 heads, as much of them as the stand-ins and their clients need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Optional
from urllib.parse import parse_qs, urlsplit

from support.channel import ProtocolError

BODY_LIMIT = 1 << 20  # bytes of a request's body that a server reads and forgets


@dataclass(frozen=True)
class Request:
    """The part of a request that matters here."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    body: int  # bytes
    keep: bool  # keep the connection after the answer

    @property
    def watches(self) -> bool:
        return self.path == "/watch" or self.query.get("watch", ["0"])[0] in ("1", "true")

    @classmethod
    def parse(cls, start: bytes) -> Request:
        try:
            first, headers = _split(start)
            method, target, version = first.split(" ")
            url = urlsplit(target)
        except ValueError:
            raise ProtocolError(f"not a request: {start[:80]!r}") from None
        body = whole_number(headers.get("content-length", "0"))
        if "transfer-encoding" in headers or body > BODY_LIMIT:
            raise ProtocolError("only small bodies of known length")
        keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        return cls(method, url.path, parse_qs(url.query), body, keep)


def parse_response(start: bytes) -> tuple[int, dict[str, str]]:
    """Return the status and the headers, names in lower case; raise ProtocolError."""
    try:
        first, headers = _split(start)
        return int(first.split(" ")[1]), headers
    except (ValueError, IndexError):
        raise ProtocolError(f"not a response: {start[:80]!r}") from None


def whole_number(text: str, base: int = 10) -> int:
    """Read a length as a peer sent it; raise ProtocolError if it is none."""
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if number < 0:
        raise ProtocolError(f"not a length: {text[:80]!r}")
    return number


def _split(start: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = start.decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in lines if line)
    return first, {name.lower(): value.strip() for name, value in pairs}


def head(
    status: int, length: Optional[int], *, keep: bool, extra: Optional[Mapping[str, str]] = None
) -> bytes:
    """Return a response's head; without a length the body is chunked."""
    reason = HTTPStatus(status).phrase if status in HTTPStatus.__members__.values() else "Odd"
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"HTTP/1.1 {status} {reason}", size, "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in (extra or {}).items()]
    if status == 429:
        lines.append("Retry-After: 1")
    if not keep:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode()


def response(
    status: int, body: bytes, *, keep: bool, extra: Optional[Mapping[str, str]] = None
) -> bytes:
    """Return a whole response."""
    return head(status, len(body), keep=keep, extra=extra) + body
