"""Validation by the JSON Schema that editors get too, told in the words of this program."""

from __future__ import annotations

import difflib
import json
import re
from functools import cache
from importlib import resources
from typing import Any, Iterable

from kube_nginx_agent.config.addresses import parse_address, parse_target
from kube_nginx_agent.config.document import QUOTE_IPV6, Document
from kube_nginx_agent.config.flaws import Path, Position, Problem
from kube_nginx_agent.config.rules import Misfit, Rules
from kube_nginx_agent.errors import printable

_TYPE_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "boolean": "true or false",
}

_FORMATS = {"backend-address": parse_target, "listen-address": parse_address}


@cache
def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 7, which every editor's validator knows)."""
    file = resources.files("kube_nginx_agent.config") / "backends.schema.json"
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return loaded


def validate(document: Document) -> list[Problem]:
    """Return everything in which the document differs from the schema."""
    problems: dict[Path, Problem] = {}
    for misfit in Rules(schema(), _FORMATS).misfits(document.value):
        for problem in _explain(misfit, document):
            if problem.path not in document.void:
                problems.setdefault(problem.path, problem)
    return list(problems.values())


def _explain(misfit: Misfit, document: Document) -> list[Problem]:
    path = misfit.path
    if misfit.rule == "additionalProperties":
        return _unknown_keys(misfit, path, document)
    if misfit.rule == "required":
        return _missing_key(misfit, path, document)
    what, hint = _value_words(misfit, quoted=path in document.quoted)
    return [Problem(position_of(document, path), path, what, hint)]


def _missing_key(misfit: Misfit, path: Path, document: Document) -> list[Problem]:
    missing = next(key for key in misfit.limit if key not in misfit.value)
    known = misfit.schema["properties"]
    strangers = [key for key in misfit.value if key not in known]
    if _split_address(misfit.value) or missing in [_meant(key, known) for key in strangers]:
        return []  # told as an unknown key
    hint = "every entry needs one" if path else 'an empty list is written "backends: []"'
    return [Problem(position_of(document, path), (*path, missing), "the key is missing", hint)]


def _unknown_keys(misfit: Misfit, path: Path, document: Document) -> list[Problem]:
    known = misfit.schema["properties"]
    address = _split_address(misfit.value) if "address" in known else ""
    if address:
        what = "the colon makes this a mapping"
        return [Problem(position_of(document, path), path, what, f"write {address}")]
    return [
        Problem(document.keys[(*path, key)], (*path, key), "unknown key", _key_hint(key, known))
        for key in misfit.value
        if key not in known
    ]


def _split_address(entry: dict[str, Any]) -> str:
    """Return what was meant by an entry ``10.0.0.1:6443:`` or ``10.0.0.1: 6443``, else nothing."""
    if len(entry) != 1:
        return ""
    [(key, value)] = entry.items()
    text = key if value is None else f"{key}:{value}"
    try:
        parse_target(text)
    except ValueError:
        return ""
    return text if re.search("[.:]", key) else ""


def _key_hint(key: str, known: dict[str, Any]) -> str:
    if key == "port" and "address" in known:
        return "write it into the address: HOST:PORT"
    meant = _meant(key, known)
    return f'did you mean "{meant}"?' if meant else f"known keys: {', '.join(sorted(known))}"


def _meant(word: str, known: Iterable[str]) -> str:
    """Return the known word that an unknown one was probably meant to be, else nothing."""
    if word in ("host", "ip", "server") and "address" in known:
        return "address"
    near = difflib.get_close_matches(word[:100].lower(), sorted(known), n=1, cutoff=0.5)
    return near[0] if near else ""


def _value_words(misfit: Misfit, *, quoted: bool) -> tuple[str, str]:
    value, rule, limit = misfit.value, misfit.rule, misfit.limit
    if rule == "format":
        return misfit.cause, ""
    if rule in ("minimum", "maximum"):
        word = "least" if rule == "minimum" else "most"
        return f"{_show(value)} is out of range", f"it is at {word} {limit}"
    if rule == "minItems":
        return "the list is empty", "name one, or leave the key out"
    if rule == "maxItems":
        return f"the list has {len(value)} entries", f"at most {limit} are allowed"
    return _misfit(value, quoted=quoted), _right_value(misfit, quoted=quoted)


def _misfit(value: Any, *, quoted: bool) -> str:
    if value is None:
        return "the value is missing"
    return f'"{_show(value)}" does not fit here' if quoted else f"{_show(value)} does not fit here"


def _right_value(misfit: Misfit, *, quoted: bool) -> str:
    value, limit = misfit.value, misfit.limit
    if isinstance(value, list) and len(value) == 1 and str(value[0]).count(":") > 1:
        return QUOTE_IPV6
    expected = misfit.schema.get("$comment", "").partition("expected: ")[2]
    if misfit.rule == "enum":
        near = _meant(value, limit) if isinstance(value, str) else ""
        return f'did you mean "{near}"?' if near else f"use {expected or ', '.join(limit)}"
    if quoted and limit in ("integer", "boolean"):
        return f"write {_TYPE_WORDS[limit]} without quotes"
    return f"write {expected or _TYPE_WORDS[limit]}"


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return printable(value if isinstance(value, str) else json.dumps(value))


def position_of(document: Document, path: Path) -> Position:
    """Return where the value at ``path``, which the document has, stands."""
    return document.values[path]
