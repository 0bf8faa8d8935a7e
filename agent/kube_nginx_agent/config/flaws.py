"""What is wrong with a backends.yaml, and where: all of it at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Tuple, Union

from kube_nginx_agent.errors import AgentError, printable

Path = Tuple[Union[str, int], ...]
"""The way from the top of a document to one value: ``("backends", 1, "weight")``."""

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")


@dataclass(frozen=True, order=True)
class Position:
    """A place in a file, counted from 1 as editors do."""

    line: int
    column: int


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where in the file, at which key, what, and what would be right."""

    position: Position
    path: Path
    what: str
    hint: str = ""

    def describe(self, file: str) -> str:
        """Return ``FILE:LINE:COLUMN: KEY: what; hint``."""
        key = f"{format_path(self.path)}: " if self.path else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{file}:{self.position.line}:{self.position.column}: {key}{self.what}{hint}"


class ConfigError(AgentError):
    """A backends.yaml that can't be used, with every problem found in it."""

    def __init__(self, file: str, problems: tuple[Problem, ...]) -> None:
        """Take the problems in the order of the file; the first one speaks for all."""
        self.file = file
        self.problems = tuple(sorted(problems, key=lambda problem: problem.position))
        first, more = self.problems[0], len(self.problems) - 1
        what = first.describe(file) + (f" (and {more} more)" if more else "")
        super().__init__(what, hint=f"`kube-nginx-agent check {file}` lists all" if more else "")

    def lines(self) -> list[str]:
        """Return a line a problem."""
        return [problem.describe(self.file) for problem in self.problems]


def format_path(path: Path) -> str:
    """Return ``backends[1].weight`` for ``("backends", 1, "weight")``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            text += f".{step}" if text else step
        else:
            text += f'["{printable(step)}"]'
    return text
