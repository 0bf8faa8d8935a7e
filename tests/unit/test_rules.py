"""Our few rules of JSON Schema find what a whole validator finds, in the same order."""

from __future__ import annotations

import copy
import re
from typing import Any, Iterator

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kube_nginx_agent.config.addresses import parse_address, parse_target
from kube_nginx_agent.config.rules import Rules
from kube_nginx_agent.config.schema import schema

FORMATS = {"backend-address": parse_target, "listen-address": parse_address}
RULES = {"type", "enum", "required", "additionalProperties", "minItems", "maxItems", "minimum"}
RULES |= {"maximum", "pattern", "format", "properties", "items", "if", "then", "else", "$ref"}
WORDS = {"$schema", "$comment", "title", "description", "definitions"}

WHOLE: dict[str, Any] = {
    "listen": ["127.0.0.1:8443", "[::1]:8443"],
    "listen_beyond_loopback": False,
    "balance": {"method": "hash", "salt": "rack-1", "shuffle": False},
    "backends": [
        "192.0.2.1:6443",
        {
            "address": "api.example:6443",
            "weight": 2,
            "backup": True,
            "drain": False,
            "max_fails": 3,
            "fail_timeout": "3s",
        },
    ],
    "proxy": {"connect_timeout": "250ms", "idle_timeout": "10m", "tcp_keepalive": True},
    "health_check": {
        "cut_after": "2200ms",
        "tcp": {"enabled": True, "interval": "2s", "timeout": "1s", "rise": 2, "fall": 2},
        "readyz": {
            "enabled": True,
            "path": "/readyz",
            "server_name": "kubernetes",
            "ca_file": "/etc/ca.pem",
            "interval": "4s",
            "timeout": "1s",
            "rise": 2,
            "fall": 2,
        },
    },
    "workers": "auto",
    "worker_connections": 4096,
    "error_log_level": "notice",
}
"""A document with every key."""

_VALUES = (
    st.none()
    | st.booleans()
    | st.sampled_from([-1, 0, 1, 2, 63, 64, 65, 100, 101, 1000, 1001, 65536, 65537])
    | st.sampled_from([0.5, 1.0, 3.0, 1e9])
    | st.sampled_from(["", "auto", "hash", "random", "notice", "1s", "1s\n", "1y", "/readyz", "/"])
    | st.sampled_from(["127.0.0.1:1", "[::1]:8443", "::1", "api.example", "a b", "192.0.2.1:99999"])
    | st.text(max_size=5)
    | st.sampled_from([[], {}, [None], [[]], [{}], ["127.0.0.1:1"] * 17, ["192.0.2.1"] * 65])
    | st.sampled_from([{"address": "192.0.2.1"}, {"10.0.0.1": 6443}, {"method": 1, "x": 2}])
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    parts: Any = value.items() if isinstance(value, dict) else ()
    for key, part in enumerate(value) if isinstance(value, list) else parts:
        yield from _paths(part, (*path, key))


@st.composite
def documents(draw: st.DrawFn) -> Any:
    """Make a document with a few things replaced, removed or added, anywhere in it."""
    document = copy.deepcopy(WHOLE)
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(list(_paths(document))))
        if not path:
            continue
        place = document
        for key in path[:-1]:
            place = place[key]
        deed, value = draw(st.sampled_from(["replace", "remove", "add"])), draw(_VALUES)
        if deed == "remove":
            del place[path[-1]]
        elif deed == "add" and isinstance(place, dict):
            place[draw(st.sampled_from(["adress", "x", "weight", "method"]))] = copy.deepcopy(value)
        else:
            place[path[-1]] = copy.deepcopy(value)
    return document


def _whole_validator() -> Any:
    """Make the validator of a library, with this project's two departures from JSON Schema."""
    formats = jsonschema.FormatChecker(formats=())
    for name, parse in FORMATS.items():

        def fits(value: object, parse: Any = parse) -> bool:
            return not isinstance(value, str) or bool(parse(value))

        formats.checks(name, raises=ValueError)(fits)

    def matches_whole(validator: Any, pattern: str, value: Any, _: Any) -> Iterator[Any]:
        if validator.is_type(value, "string") and not re.fullmatch(pattern, value):
            yield jsonschema.ValidationError("the pattern does not match")

    draft = jsonschema.Draft7Validator
    types = draft.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    extended = jsonschema.validators.extend(draft, {"pattern": matches_whole}, type_checker=types)
    return extended(schema(), format_checker=formats)


VALIDATOR = _whole_validator()


def _check_like_the_whole_validator(document: Any) -> None:
    ours = [
        (misfit.path, misfit.value, misfit.rule, misfit.limit, misfit.schema, misfit.cause)
        for misfit in Rules(schema(), FORMATS).misfits(document)
    ]
    theirs = [
        (
            tuple(error.absolute_path),
            error.instance,
            error.validator,
            error.validator_value,
            error.schema,
            str(error.cause or ""),
        )
        for error in VALIDATOR.iter_errors(document)
    ]
    assert ours == theirs


@settings(max_examples=500, deadline=None, derandomize=True)
@given(documents())
def test_same_as_a_whole_validator(document: Any) -> None:
    _check_like_the_whole_validator(document)


@pytest.mark.parametrize("path", [path for path in _paths(WHOLE) if path], ids=str)
@pytest.mark.parametrize(
    "value", [None, True, 0, 10**6, 2.5, "", "x", "x\n", [], ["x"], {}, {"x": 1}], ids=repr
)
def test_each_place_takes_what_a_whole_validator_takes(path: tuple[Any, ...], value: Any) -> None:
    document = copy.deepcopy(WHOLE)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value

    _check_like_the_whole_validator(document)


@pytest.mark.parametrize("document", [None, True, 1, "x", [], {}], ids=repr)
def test_what_is_no_mapping(document: Any) -> None:
    _check_like_the_whole_validator(document)


@pytest.mark.parametrize("more", [0, 1])
def test_limits(more: int) -> None:
    _check_like_the_whole_validator({"backends": ["192.0.2.1"] * (64 + more)})
    _check_like_the_whole_validator({"backends": [], "listen": ["127.0.0.1:1"] * (16 + more)})
    _check_like_the_whole_validator({"backends": [], "workers": 64 + more})
    _check_like_the_whole_validator({"backends": [], "worker_connections": 64 - more})


def test_whole_document_fits() -> None:
    assert not list(Rules(schema(), FORMATS).misfits(WHOLE))


def test_schema_has_no_rule_that_goes_unchecked() -> None:
    assert set(_keywords(schema())) <= RULES | WORDS


def test_every_path_of_the_schema_is_in_the_document() -> None:
    described = {key for part in _schemas(schema()) for key in part.get("properties", ())}

    assert described <= {path[-1] for path in _paths(WHOLE) if path}


def _schemas(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield part
    inner = [part[key] for key in ("items", "if", "then", "else") if key in part]
    for group in ("properties", "definitions"):
        inner += part.get(group, {}).values()
    for schema_of_part in inner:
        yield from _schemas(schema_of_part)


def _keywords(part: dict[str, Any]) -> Iterator[str]:
    for each in _schemas(part):
        yield from each
