"""The one place that asks HTTP questions: requests, with limits that hold for a whole answer.

requests limits each read, so that a trickle lasts for ever, and its headers may have 6 MB. Here
the connection is our own (``tcp.connect``, ``tls.begin_tls``), with one deadline and one budget of
bytes over handshake, head and body (docs/decisions/0011-requests-asks.md).
"""

from __future__ import annotations

import http.client  # the names of what requests lets through: its errors, and 1xx answers
import socket
import ssl
import sys
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Callable, Iterator, Mapping

from kube_nginx_agent.errors import AgentError, printable
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.net.tcp import connect
from kube_nginx_agent.net.tls import LimitedSocket, begin_tls
from kube_nginx_agent.observation import Result


@contextmanager
def _lean() -> Iterator[None]:
    """While requests is imported, keep it from loading what nobody here needs.

    That is chardet (2.5 MB), and since 2.32 the bundle of all public authorities (2.3 MB), for a
    context that is made ahead and never asked: each of our connections brings its own.
    """
    sys.modules.setdefault("chardet", None)  # type: ignore[arg-type]
    ssl.SSLContext.load_verify_locations = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # requests warns that there is no chardet
            yield
    finally:
        del ssl.SSLContext.load_verify_locations  # the inherited one is back


with _lean():
    try:
        import requests
    except ImportError:  # before 2.26 (EL 9 has 2.25.1) it can't be without chardet
        del sys.modules["chardet"]
        import requests
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPSConnection
    from urllib3.connectionpool import HTTPSConnectionPool

    from kube_nginx_agent.net.http_errors import NotConnectedError, explain

_LONGEST_BODY = 64 * 1024
"""Bytes; a verbose /readyz has 3 KB. What sends more is hung up on."""
_LONGEST_HEAD = 64 * 1024
"""Bytes, 1xx answers and what is read ahead included."""
_MAX_IDLE = 60.0
"""Seconds; kube-apiserver closes a kept connection after 90."""

Contexts = Callable[[], ssl.SSLContext]


class HttpError(AgentError):
    """A question got no whole answer; ``result`` is the class of why."""

    def __init__(self, result: Result, what: str, where: str) -> None:
        """Take the class, the words, and who was asked."""
        super().__init__(printable(what, 200), where=where)
        self.result = result


@dataclass(frozen=True)
class Answer:
    """What came back: all of it, cut after the longest body that was asked for."""

    status: int
    body: bytes
    is_fresh: bool
    """Whether a new connection was made for it."""


class HttpSession:
    """Asks one server over one kept connection; by one thread, except for ``stop``."""

    def __init__(
        self, address: SocketAddress, context: Contexts, *, server_name: str | None = None
    ) -> None:
        """Take whom to ask, and what gives the TLS context; nothing is connected yet."""
        self._address = address
        self._context = context
        self._line = _Line(address, server_name)
        self._requests = _session(address, self._line)
        self._used_at = 0.0

    def get(
        self,
        path: str,
        timeout: float,
        *,
        longest: int = _LONGEST_BODY,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask once, connect and answer within ``timeout`` seconds. Raise HttpError.

        A kept connection that was closed meanwhile says nothing of the server: it is then asked
        again over a new one.
        """
        deadline = time.monotonic() + timeout
        self._prepare(deadline, longest, fresh=False)
        try:
            return self._get(path, headers, longest)
        except HttpError as error:
            if self._line.is_fresh or self._line.is_stopped or error.result is not Result.CLOSED:
                raise
        self._prepare(deadline, longest, fresh=True)
        return self._get(path, headers, longest)

    def stream(
        self, path: str, timeout: float, *, headers: Mapping[str, str] | None = None
    ) -> Iterator[bytes]:
        """Yield an answer as it comes, over a new connection. Raise HttpError.

        ``timeout`` is the longest silence, in seconds; each piece renews the budget too. A status
        other than 200 is an error.
        """
        self._prepare(time.monotonic() + timeout, _LONGEST_BODY, fresh=True)
        try:
            with self._open(path, headers) as response:
                if response.status_code != http.client.OK:
                    what = f"HTTP {response.status_code}"
                    raise HttpError(Result.NOT_READY, what, str(self._address))
                for piece in response.raw.stream(_LONGEST_BODY, decode_content=False):
                    yield piece
                    self._line.limit(time.monotonic() + timeout, _LONGEST_HEAD + _LONGEST_BODY)
        except HttpError:
            raise
        except Exception as error:
            raise self._explained(error) from error
        finally:
            self.close()

    @property
    def is_fresh(self) -> bool:
        """Tell whether the last question had a new connection made, or tried to."""
        return self._line.is_fresh

    def stop(self) -> None:
        """End, from any thread, a question that runs, and all later ones."""
        self._line.stop()

    def close(self) -> None:
        """Let go of the connection."""
        self._requests.close()
        self._line.close()

    def _prepare(self, deadline: float, longest: int, *, fresh: bool) -> None:
        context = self._context()
        is_old = time.monotonic() - self._used_at > _MAX_IDLE
        if fresh or is_old or context is not self._line.context:
            self.close()
        self._line.context = context
        self._line.is_fresh = False
        self._line.limit(deadline, _LONGEST_HEAD + longest)

    def _get(self, path: str, headers: Mapping[str, str] | None, longest: int) -> Answer:
        try:
            with self._open(path, headers) as response:
                raw = response.raw
                body = raw.read(longest, decode_content=False) or b""
                is_whole = len(body) < longest
            self._used_at = time.monotonic()
        except Exception as error:
            self.close()
            raise self._explained(error) from error
        if not is_whole:
            self.close()
        return Answer(response.status_code, body, self._line.is_fresh)

    def _open(self, path: str, headers: Mapping[str, str] | None) -> requests.Response:
        # requests' own time-out is the most that one wait may take: the line's deadline is nearer.
        # verify=False: the line's context checks; True would have requests load its own bundle.
        return self._requests.get(
            f"https://{self._address}{path}",
            headers=dict(headers or {}),
            stream=True,
            allow_redirects=False,
            timeout=max(self._line.left, 0.001),
            verify=False,
        )

    def _explained(self, error: Exception) -> HttpError:
        if self._line.is_stopped:
            return HttpError(Result.CLOSED, "the question was stopped", str(self._address))
        return HttpError(*explain(error), where=str(self._address))


class _Line:
    """The connection under a session: made here, limited here, ended from here."""

    def __init__(self, address: SocketAddress, server_name: str | None) -> None:
        self.context: ssl.SSLContext | None = None
        self.is_fresh = False
        self.is_stopped = False
        self._address = address
        self._server_name = server_name
        self._deadline = 0.0
        self._budget = 0
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    @property
    def left(self) -> float:
        """Return the seconds to the deadline."""
        return self._deadline - time.monotonic()

    def limit(self, deadline: float, budget: int) -> None:
        """Have all that follows end by then, with so many bytes."""
        self._deadline, self._budget = deadline, budget
        if isinstance(self._socket, LimitedSocket):
            self._socket.deadline, self._socket.budget = deadline, budget

    def dial(self) -> LimitedSocket:
        """Connect and shake hands. Raise NotConnectedError, OSError."""
        if self.context is None:
            raise ValueError("no TLS context was given")
        self.is_fresh = True
        try:
            plain = connect(self._address, max(self.left, 0.001), self._hold)
        except OSError as error:
            raise NotConnectedError from error
        made = begin_tls(plain, self.context, self._server_name)
        try:
            made.deadline, made.budget = self._deadline, self._budget
            made.settimeout(max(self.left, 0.001))
            self._hold(made)
            made.do_handshake()
        except BaseException:
            made.close()
            raise
        return made

    def stop(self) -> None:
        with self._lock:
            self.is_stopped = True
            self._shut_down()

    def close(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    def _hold(self, made: socket.socket) -> None:
        with self._lock:
            self._socket = made
            if self.is_stopped:
                self._shut_down()
                raise ConnectionAbortedError

    def _shut_down(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                # Not SSLSocket's own, which takes TLS away under the feet of who reads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _FinalResponse(http.client.HTTPResponse):
    """An answer whose 1xx forerunners are skipped: http.client skips 100 only (RFC 9110, 15.2)."""

    def _read_status(self) -> Any:
        while True:
            found = super()._read_status()  # type: ignore[misc]
            if not http.client.SWITCHING_PROTOCOLS < found[1] < http.client.OK:
                return found
            http.client.parse_headers(self.fp)  # within the budget, as all that is read


class _Connection(HTTPSConnection):
    """urllib3's connection over a line of ours."""

    response_class = _FinalResponse

    def __init__(self, *arguments: Any, line: _Line, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._line = line

    def connect(self) -> None:
        """Connect; called by urllib3 where nothing is kept."""
        self.sock = self._line.dial()
        self.is_verified = True  # as far as it is wanted: by the context


class _Pool(HTTPSConnectionPool):
    """A pool of one such connection."""

    ConnectionCls = _Connection


class _Transport(HTTPAdapter):
    """requests' way to one server, whatever the URL."""

    def __init__(self, pool: HTTPSConnectionPool) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)
        self._pool = pool

    def get_connection(self, url: Any, proxies: Any = None) -> Any:  # noqa: ARG002
        """Return the pool: for requests before 2.32."""
        return self._pool

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> Any:
        """Return the pool: for requests from 2.32 on."""
        return self._pool

    def close(self) -> None:
        """Let go of what is kept; the pool is used again."""
        pool: Any = self._pool
        with suppress(Exception):
            kept = pool.pool.get(block=False)
            if kept is not None:
                kept.close()
            pool.pool.put(None, block=False)


class _Session(requests.Session):
    """A session that follows nobody."""

    def get_redirect_target(self, resp: Any) -> Any:  # noqa: ARG002
        """Return none: requests would read and unpack the whole body to tell where it leads."""
        return None


def _session(address: SocketAddress, line: _Line) -> requests.Session:
    session = _Session()
    session.trust_env = False  # no proxies, no .netrc
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.clear()
    session.headers.update({"User-Agent": "kube-nginx-agent", "Accept-Encoding": "identity"})
    pool = _Pool(str(address.ip), address.port, maxsize=1, block=False, line=line)
    for scheme in list(session.adapters):
        del session.adapters[scheme]
    session.mount("https://", _Transport(pool))
    return session
