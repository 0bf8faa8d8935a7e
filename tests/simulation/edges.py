"""The agent's edges, replaced: what would touch a process, a file, a socket or the clock.

Everybody who has imported a function by its name has it replaced, so the product needs to know
nothing of being simulated. One simulation at a time.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time
from contextlib import contextmanager
from typing import Any, Iterator, Mapping

import kube_nginx_agent
from kube_nginx_agent.intake import resolver
from kube_nginx_agent.nginx import canary, generation, master_watch, orphans, ports, process
from kube_nginx_agent.node import files, reaping, waiting

_FILES = (
    "status_of",
    "is_there",
    "link_target",
    "read_file",
    "read_bytes",
    "read_text",
    "write_beside",
    "move_over",
    "replace_file",
    "remove",
)
_PROCESSES = (
    "identify",
    "is_alive",
    "is_stopped",
    "workers",
    "serving",
    "is_retiring",
    "turns_of",
    "send_signal",
    "signal_if_there",
    "wait_until_gone",
    "find_master",
    "find_lost_master",
    "parent_of",
)
_OTHERS = {
    "wait_until": waiting,
    "ask": generation,
    "find_fault": canary,
    "try_to_bind": ports,
    "check_listen": ports,
    "find_orphans": orphans,
    "MasterWatch": master_watch,
    "Resolver": resolver,
    "reap_orphans": reaping,
}


@contextmanager
def replaced(edges: Any, clock: object) -> Iterator[None]:
    """Have the agent's modules use the methods of ``edges``, and ``clock`` as their ``time``."""
    table: dict[int, object] = {id(time): clock}
    homes = {**dict.fromkeys(_FILES, files), **dict.fromkeys(_PROCESSES, process), **_OTHERS}
    table.update({id(getattr(home, name)): getattr(edges, name) for name, home in homes.items()})
    undo = list(_replace(table))
    try:
        yield
    finally:
        for names, name, value in undo:
            names[name] = value


def _replace(table: Mapping[int, object]) -> Iterator[tuple[dict[str, object], str, object]]:
    for module in _modules():
        names = vars(module)
        for name, value in list(names.items()):
            if id(value) in table:
                names[name] = table[id(value)]
                yield names, name, value


def _modules() -> list[Any]:
    """Return all of the agent's modules, imported."""
    for found in pkgutil.walk_packages(kube_nginx_agent.__path__, "kube_nginx_agent."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    known = sys.modules.items()
    return [module for name, module in known if name.split(".")[0] == "kube_nginx_agent"]
