"""The ``kube-nginx-agent`` command: one small module a verb, errors printed in one place."""

from __future__ import annotations

import os
import sys
from typing import Sequence

from kube_nginx_agent.cli import check, options, reload, render, run, status, version
from kube_nginx_agent.config.flaws import ConfigError
from kube_nginx_agent.errors import AgentError

VERBS = (run, check, render, status, reload, version)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (each verb's ``--help`` says which)."""
    parser = options.parser(VERBS)
    chosen = parser.parse_args(arguments)
    try:
        code: int = chosen.verb(chosen)
        sys.stdout.flush()
    except ConfigError as error:
        print("\n".join(error.lines()), file=sys.stderr)
        return 1
    except AgentError as error:
        print(f"kube-nginx-agent: {error}", file=sys.stderr)
        return 3 if chosen.verb is status.execute else 1
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        # The reader has seen enough; what is still to be flushed at exit must not complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code
