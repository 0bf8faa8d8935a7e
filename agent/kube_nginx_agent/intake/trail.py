"""What is looked at on the way to a file, and the folders in which a change of it shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, Iterator, Optional

from kube_nginx_agent.node.files import is_folder, link_target

Trail = Dict[Path, Optional[str]]
"""Each path that is looked at to open a file, with where it leads if it is a link."""

_MAX_LINKS = 40  # path_resolution(7): the kernel's own limit
_LEVELS = 2
"""Folders watched above a file, and above each link on its way: the one that it is replaced in,
and the one that this one is replaced in. What is replaced further up is found by a look."""


def trail(path: Path) -> Trail:
    """Return every path that is looked at to open ``path``: links, their targets, all folders.

    Each is looked at once, for a link may be swapped between two looks.
    """
    found: Trail = {}
    links = 0
    todo = [Path(os.path.abspath(path))]
    while todo:
        path = todo.pop()
        for step in (*reversed(path.parents), path):
            if step in found:
                continue
            found[step] = target = link_target(step)
            if target is not None and links < _MAX_LINKS:
                links += 1
                todo.append(Path(os.path.abspath(step.parent / target)) / path.relative_to(step))
    return found


def folders_of(steps: Trail) -> Iterator[Path]:
    """Yield the folders to watch for a trail, which may be missing, or closed to us.

    Where one is missing the nearest that are there tell when it comes.
    """
    above = {folder for step in steps for folder in step.parents}
    for step, target in steps.items():
        if target is not None or step not in above:
            yield from step.parents[:_LEVELS]
            yield from [folder for folder in step.parents if is_folder(folder)][:_LEVELS]
