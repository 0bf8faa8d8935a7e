"""The rules of JSON Schema (draft 7) that backends.schema.json uses, and no more.

A validator for all of JSON Schema costs the daemon 3 to 4 MB; see docs/decisions/0012-memory.md.
The tests compare this one with such a validator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping

from kube_nginx_agent.config.flaws import Path

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Misfit:
    """A value that breaks a rule of the schema."""

    path: Path
    value: Any
    rule: str
    limit: Any  # what the schema says for this rule
    schema: Schema  # in which the rule stands
    cause: str = ""  # a format's own words


class Rules:
    """A schema, and what its formats mean: each raises ValueError for text that is not so."""

    def __init__(self, schema: Schema, formats: Mapping[str, Callable[[str], object]]) -> None:
        """Take the schema, trusted to be one, and its formats by name."""
        self._root = schema
        self._formats = formats

    def misfits(self, value: Any) -> Iterator[Misfit]:
        """Find everything that breaks a rule, in the order of the schema."""
        return self._check(self._root, value, ())

    def _check(self, schema: Schema, value: Any, path: Path) -> Iterator[Misfit]:
        if "$ref" in schema:  # In draft 7 nothing beside it counts.
            schema = self._root["definitions"][schema["$ref"].rpartition("/")[2]]
        for rule, limit in schema.items():
            cause = self._misformed(limit, value) if rule == "format" else ""
            if cause or (rule in _BREAKS and _BREAKS[rule](limit, value, schema)):
                yield Misfit(path, value, rule, limit, schema, cause)
            for part in self._parts(schema, rule, value, path):
                yield from self._check(*part)

    def _parts(
        self, schema: Schema, rule: str, value: Any, path: Path
    ) -> Iterator[tuple[Schema, Any, Path]]:
        """Find what a rule says of the parts of a value, or of it in one case or the other."""
        limit = schema[rule]
        if rule == "properties" and isinstance(value, dict):
            for key in filter(value.__contains__, limit):
                yield limit[key], value[key], (*path, key)
        elif rule == "items" and isinstance(value, list):
            for index, item in enumerate(value):
                yield limit, item, (*path, index)
        elif rule == "if":
            fits = next(self._check(limit, value, path), None) is None
            yield schema.get("then" if fits else "else", {}), value, path

    def _misformed(self, name: str, value: Any) -> str:
        try:
            if isinstance(value, str):
                self._formats[name](value)
        except ValueError as error:
            return str(error)
        return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    # JSON Schema takes 3.0 for an integer, nginx does not.
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
}

_BREAKS: Mapping[str, Callable[[Any, Any, Schema], bool]] = {
    "type": lambda limit, value, _: not _TYPES[limit](value),
    "enum": lambda limit, value, _: value not in limit,
    "required": lambda limit, value, _: isinstance(value, dict) and not set(limit) <= value.keys(),
    "additionalProperties": lambda _, value, schema: (
        isinstance(value, dict) and not value.keys() <= schema["properties"].keys()
    ),
    "minItems": lambda limit, value, _: isinstance(value, list) and len(value) < limit,
    "maxItems": lambda limit, value, _: isinstance(value, list) and len(value) > limit,
    "minimum": lambda limit, value, _: _is_number(value) and value < limit,
    "maximum": lambda limit, value, _: _is_number(value) and value > limit,
    # JSON Schema searches, and lets a newline at the end pass.
    "pattern": lambda limit, value, _: isinstance(value, str) and not re.fullmatch(limit, value),
}
