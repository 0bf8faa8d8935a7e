"""Validation by the JSON Schema that editors get too, told in the words of this program."""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib import resources
from typing import Any

import jsonschema

from kube_nginx_agent.config.addresses import parse_listen, parse_target
from kube_nginx_agent.config.document import Document
from kube_nginx_agent.config.problems import Path, Position, Problem

_TYPE_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "boolean": "true or false",
}

_formats = jsonschema.FormatChecker(formats=())


@_formats.checks("backend-address", raises=ValueError)
def _is_backend_address(value: object) -> bool:
    return not isinstance(value, str) or bool(parse_target(value))


@_formats.checks("listen-address", raises=ValueError)
def _is_listen_address(value: object) -> bool:
    return not isinstance(value, str) or bool(parse_listen(value))


@cache
def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 7, the newest that EL 9's validator knows)."""
    text = resources.read_text("kube_nginx_agent.config", "backends.schema.json", encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def validate(document: Document) -> list[Problem]:
    """Return everything in which the document differs from the schema."""
    validator = jsonschema.Draft7Validator(schema(), format_checker=_formats)
    problems: dict[Path, Problem] = {}
    for error in validator.iter_errors(document.value):
        for problem in _explain(_leaf(error), document):
            problems.setdefault(problem.path, problem)
    return list(problems.values())


def _leaf(error: Any) -> Any:
    """Go down from an ``if``/``then``/``else`` to the rule that really failed."""
    while error.context:
        error = error.context[0]
    return error


def _explain(error: Any, document: Document) -> list[Problem]:
    path: Path = tuple(error.absolute_path)
    if error.validator == "additionalProperties":
        return [_unknown_key(path, key, error, document) for key in _unknown_keys(error)]
    where = position_of(document, path)
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        hint = "every entry needs one" if path else 'an empty list is written "backends: []"'
        return [Problem(where, (*path, missing), "the key is missing", hint)]
    what, hint = _value_words(error)
    return [Problem(where, path, what, hint)]


def _unknown_keys(error: Any) -> list[str]:
    return [key for key in error.instance if key not in error.schema["properties"]]


def _unknown_key(path: Path, key: str, error: Any, document: Document) -> Problem:
    known = sorted(error.schema["properties"])
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f'did you mean "{near[0]}"?' if near else f"known keys: {', '.join(known)}"
    return Problem(document.keys[(*path, key)], (*path, key), "unknown key", hint)


def _value_words(error: Any) -> tuple[str, str]:
    value, rule, limit = _show(error.instance), error.validator, error.validator_value
    if rule == "format":
        return str(error.cause), ""
    if rule == "enum":
        near = difflib.get_close_matches(str(error.instance), limit, n=1, cutoff=0.5)
        listed = ", ".join(limit)
        return f"{value} is not known", f'did you mean "{near[0]}"?' if near else f"use {listed}"
    if rule in ("minimum", "maximum"):
        word = "least" if rule == "minimum" else "most"
        return f"{value} is out of range", f"it is at {word} {limit}"
    if rule in ("minItems", "maxItems"):
        return f"the list has {len(error.instance)} entries", f"{rule[:3]}imum is {limit}"
    comment = error.schema.get("$comment", "")
    expected = comment.partition("expected: ")[2] or _TYPE_WORDS.get(str(limit), "")
    shown = "the value is missing" if error.instance is None else f"{value} does not fit here"
    return shown, f"write {expected}"


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."  # fits a terminal line


def position_of(document: Document, path: Path) -> Position:
    """Return where the value at ``path`` stands, or the nearest value around it."""
    while path and path not in document.values:
        path = path[:-1]
    return document.values.get(path, Position(1, 1))
