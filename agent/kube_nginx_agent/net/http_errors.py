"""What an error of requests means: it wraps one of urllib3, and that one of the system."""

from __future__ import annotations

import http.client  # whose errors these are
import socket
import ssl
from typing import Any, Iterator

from requests import RequestException

from kube_nginx_agent.net.tcp import result_of, words_of
from kube_nginx_agent.net.tls import EndlessError
from kube_nginx_agent.observation import Result


class NotConnectedError(Exception):
    """The connection could not be made: the TCP part."""


def explain(error: Exception) -> tuple[Result, str]:
    """Return the class and the words, by types and numbers: texts change between versions."""
    for rule in _RULES:
        for cause in _causes(error):
            found = rule(cause)
            if found:
                return found
    return Result.GARBAGE, "no HTTP"


def _connecting(cause: BaseException) -> tuple[Result, str] | None:
    if isinstance(cause, NotConnectedError) and isinstance(cause.__cause__, OSError):
        return result_of(cause.__cause__), words_of(cause.__cause__)
    return None


def _trusting(cause: BaseException) -> tuple[Result, str] | None:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Result.CERTIFICATE, cause.verify_message
    return None


def _ending(cause: BaseException) -> tuple[Result, str] | None:
    if isinstance(cause, EndlessError):
        return Result.GARBAGE, "no HTTP: its answer has no end"
    if isinstance(cause, (socket.timeout, TimeoutError, ssl.SSLWantReadError)):
        return Result.SILENT, "it accepts connections but does not answer"
    closed = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError, http.client.IncompleteRead)
    if isinstance(cause, closed) and not isinstance(cause, RequestException):
        return Result.CLOSED, "it ends the connection without an answer"
    return None


def _speaking(cause: BaseException) -> tuple[Result, str] | None:
    if isinstance(cause, ssl.SSLError):
        return Result.GARBAGE, f"no TLS: {cause.reason or cause}"
    if isinstance(cause, http.client.HTTPException):
        return Result.GARBAGE, "no HTTP"
    if isinstance(cause, OSError) and not isinstance(cause, RequestException):
        return Result.CLOSED, words_of(cause)
    return None


_RULES = (_connecting, _trusting, _ending, _speaking)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and all that it wraps: requests and urllib3 put one into the other."""
    waiting: list[Any] = [error]
    seen: set[int] = set()
    while waiting:
        cause = waiting.pop(0)
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__cause__, cause.__context__, getattr(cause, "reason", None)]
        waiting += cause.args
