"""The probe that sees more than the port: GET /readyz over a kept HTTPS connection."""

from __future__ import annotations

import ssl
import time
from http import HTTPStatus
from typing import Callable

from kube_nginx_agent.errors import printable
from kube_nginx_agent.model import SocketAddress
from kube_nginx_agent.net.http import Answer, HttpError, HttpSession
from kube_nginx_agent.observation import Layer, Observation, Result

_ALIVE = {
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.TOO_MANY_REQUESTS,
}


class ReadyzProbe:
    """Keeps one connection to one backend; not to be used by two threads at once."""

    def __init__(
        self,
        address: SocketAddress,
        path: str,
        context: Callable[[], ssl.SSLContext],
        server_name: str | None = None,
    ) -> None:
        """Take whom to ask for what; nothing is connected yet."""
        self._path = path
        self._session = HttpSession(address, context, server_name=server_name)

    def look(self, timeout: float) -> Observation:
        """Ask once; all of it, connect and answer, takes at most ``timeout`` seconds."""
        began = time.monotonic()
        try:
            answer = self._session.get(self._path, timeout)
        except HttpError as error:
            is_fresh = self._session.is_fresh
            return Observation(Layer.READYZ, error.result, error.what, is_fresh=is_fresh)
        return _judge(answer, time.monotonic() - began)

    def stop(self) -> None:
        """End, from any thread, a question that runs, and all later ones."""
        self._session.stop()

    def close(self) -> None:
        """Let go of the connection."""
        self._session.close()


def _judge(answer: Answer, rtt: float) -> Observation:
    status, detail, result = answer.status, f"HTTP {answer.status}", Result.NOT_READY
    if status == HTTPStatus.OK:
        result, detail = Result.OK, ""
    elif status in _ALIVE:
        result = Result.ALIVE
    else:
        lines = answer.body.decode("utf-8", "replace").splitlines()
        failed = [line[3:].partition(" ")[0] for line in lines if line[:3] == "[-]"]
        if failed:
            detail += f": {', '.join(map(printable, failed[:3]))}"
    return Observation(Layer.READYZ, result, detail, rtt, answer.is_fresh)
