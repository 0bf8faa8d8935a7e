"""The ``kube-nginx-agent`` command: one small module a verb, errors printed in one place."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from typing import Sequence

from kube_nginx_agent.cli import check, options, reload, render, run, status, version
from kube_nginx_agent.config.flaws import ConfigError
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.report.status_file import NotRunningError, Verdict

_INTERRUPTED = 130
"""128 and SIGINT's number, as shells have it."""

VERBS = (run, check, render, status, reload, version)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (each verb's ``--help`` says which)."""
    _open_what_is_closed()
    parser = options.parser(VERBS)
    try:
        chosen = _parse(parser, arguments)
        code: int = chosen.verb(chosen)
        sys.stdout.flush()
    except ConfigError as error:
        _complain("\n".join(error.lines()))
        return 1
    except NotRunningError as error:
        _complain(f"kube-nginx-agent: {error}")
        return Verdict.NOT_RUNNING
    except AgentError as error:
        _complain(f"kube-nginx-agent: {error}")
        return Verdict.UNKNOWN if chosen.verb is status.execute else 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:
        # The reader has seen enough, or the disk behind standard output is full; what is still to
        # be flushed at exit must not complain of it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            _complain(f"kube-nginx-agent: standard output can't be written: {error.strerror}")
        return 1
    return code


def _open_what_is_closed() -> None:
    """Have something behind 0, 1 and 2, which ``>&-`` closes: the next file opened would be it."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False, encoding="utf-8"))


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; end after ``--help``, whose text may still be to be written out."""
    try:
        return parser.parse_args(arguments)
    except SystemExit:
        sys.stdout.flush()
        raise


def _complain(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # closed, full, or not there at all
        print(text, file=sys.stderr, flush=True)
