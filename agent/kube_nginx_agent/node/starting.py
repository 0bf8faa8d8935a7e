"""Where our threads are started (watchdog starts its own): at TasksMax there is none to be had."""

from __future__ import annotations

import threading
from typing import Callable

from kube_nginx_agent.errors import AgentError


class NoThreadError(AgentError):
    """The system gives no more threads now; it may later."""

    def __init__(self, purpose: str) -> None:
        """Name what it was for."""
        hint = (
            "it is tried again; TasksMax of the unit, `ulimit -u` and memory are what bounds them"
        )
        super().__init__("no thread can be started", where=purpose, hint=hint)


def start(thread: threading.Thread) -> None:
    """Start a thread. Raise NoThreadError when there is none to be had."""
    try:
        thread.start()
    except RuntimeError as error:  # "can't start new thread"; MemoryError stays what it is
        raise NoThreadError(thread.name) from error


def start_thread(name: str, target: Callable[..., object], *args: object) -> threading.Thread:
    """Start and return a thread that ends with the process. Raise NoThreadError as ``start``."""
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    start(thread)
    return thread
