"""What the verbs' command lines have in common."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Iterable, Protocol

from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.node.files import is_folder, is_there
from kube_nginx_agent.node.paths import Paths

_EPILOG = """\
Files:
  /etc/kube-nginx/backends.yaml         the list of apiservers, the only file to edit
  /var/lib/kube-nginx/kube-nginx.conf   the nginx config made from it

The log is in the journal: journalctl -u kube-nginx-agent
"""


class Verb(Protocol):
    """A module of this package that adds one verb."""

    def add(self, verbs: Any) -> None:
        """Add its parser to those of the other verbs."""


def parser(verbs: Iterable[Any]) -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="kube-nginx-agent",
        description="Keeps this node's nginx on 127.0.0.1:8443 pointed at the kube-apiservers "
        "that work.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    choice = top.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in verbs:
        verb.add(choice)
    return top


def add_verb(verbs: Any, name: str, summary: str, more: str = "") -> argparse.ArgumentParser:
    """Add a verb with a help that a stranger understands, and return its parser."""
    added: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return added


def add_file(parser: argparse.ArgumentParser) -> None:
    """Add the optional FILE of ``check`` and ``render``."""
    parser.add_argument(
        "config",
        nargs="?",
        type=Path,
        default=Paths.config,
        metavar="FILE",
        help="the list of apiservers (default: %(default)s)",
    )


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where things are; the defaults are the package's."""
    add_nginx(parser)
    _add_path(parser, "--state-dir", "FOLDER", "keeps the nginx config and the last good one")
    add_run_dir(parser)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``."""
    _add_path(parser, "--config", "FILE", "the list of apiservers")


def add_nginx(parser: argparse.ArgumentParser) -> None:
    """Add ``--nginx``."""
    _add_path(parser, "--nginx", "PATH", "the nginx program")


def add_run_dir(parser: argparse.ArgumentParser) -> None:
    """Add ``--run-dir``."""
    _add_path(parser, "--run-dir", "FOLDER", "holds the pid file and the sockets")


def _add_path(parser: argparse.ArgumentParser, option: str, metavar: str, what: str) -> None:
    default = getattr(Paths, option[2:].replace("-", "_"))
    parser.add_argument(
        option, type=Path, default=default, metavar=metavar, help=f"{what} (default: %(default)s)"
    )


def paths(chosen: argparse.Namespace) -> Paths:
    """Return the paths that the options name. Raise AgentError where a folder is none."""
    given = vars(chosen)
    names = ("config", "nginx", "state_dir", "run_dir")
    found = {name: given[name].absolute() for name in names if name in given}
    for name in ("state_dir", "run_dir"):
        if name in found and is_there(found[name]) and not is_folder(found[name]):
            option = f"--{name.replace('_', '-')}"
            raise AgentError("it is not a folder", where=str(found[name]), hint=f"see {option}")
    return Paths(**found)
