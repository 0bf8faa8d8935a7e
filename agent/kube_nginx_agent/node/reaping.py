"""As PID 1 of a container: collect the orphans that the kernel hands over."""

from __future__ import annotations

import os


def reap_orphans() -> None:
    """Collect what has ended, if we are PID 1; elsewhere that is the init's business.

    To be called from the thread that runs programs, and between them: it collects whatever there
    is, and whoever waits for one of his own would wait in vain.
    """
    if os.getpid() != 1:
        return
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return
