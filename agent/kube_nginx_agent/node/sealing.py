"""Closes this process to others of its own user: nginx has the same one, and may be taken over.

A process that is not dumpable can't be traced, nor can its memory, its descriptors and its view of
the file system be reached through /proc, by anybody without CAP_SYS_PTRACE (ptrace(2)); Debian has
no Yama by default. What it starts is dumpable again: docs/decisions/0019.
"""

from __future__ import annotations

import ctypes

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def seal() -> None:
    """Make this process not dumpable, which the kernel refuses to nobody (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
