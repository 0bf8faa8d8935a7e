"""An error says what, where and what to do."""

from __future__ import annotations

import pytest

from kube_nginx_agent.errors import AgentError


@pytest.mark.parametrize(
    ("where", "hint", "line"),
    [
        ("", "", "it is wrong"),
        ("/a", "", "/a: it is wrong"),
        ("", "do this", "it is wrong; do this"),
        ("/a", "do this", "/a: it is wrong; do this"),
    ],
)
def test_error_is_one_line_of_the_parts_that_it_has(where: str, hint: str, line: str) -> None:
    assert str(AgentError("it is wrong", where=where, hint=hint)) == line


def test_error_has_its_parts_under_the_names_of_the_status_file() -> None:
    error = AgentError("it is wrong", where="/a", hint="do this")

    assert error.as_dict() == {"what": "it is wrong", "where": "/a", "hint": "do this"}
