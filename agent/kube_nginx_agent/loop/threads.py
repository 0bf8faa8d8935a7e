"""A thread that dies is said in a line, like everything else, and not in a traceback."""

from __future__ import annotations

import threading
import traceback

from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Sink


def say_dead_threads(sink: Sink) -> None:
    """From now on have ``sink`` told of each thread that ends by an exception."""

    def say(died: threading.ExceptHookArgs) -> None:
        name = died.thread.name if died.thread else "a thread"
        frames = traceback.extract_tb(died.exc_traceback)
        place = f"{frames[-1].name}:{frames[-1].lineno}" if frames else "an unknown place"
        what = f"{died.exc_type.__name__}: {died.exc_value}"
        sink(kinds.INTERNAL, f"internal error: thread {name} has ended at {place}: {what}", {})

    threading.excepthook = say
