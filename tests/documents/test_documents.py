"""Manual pages, completions, catalog and configs of the package say what the code does."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest

from kube_nginx_agent.cli import VERBS, options
from kube_nginx_agent.config.durations import format_duration
from kube_nginx_agent.config.load import load_config
from kube_nginx_agent.desired import ALL_WELL
from kube_nginx_agent.model import Backend, Config, HealthCheck, Proxy
from kube_nginx_agent.nginx.rendering import generation_of
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.notices import kinds

HERE = Path(__file__).resolve().parents[2]
PACKAGING = HERE / "packaging"
COMPLETIONS = sorted((PACKAGING / "completions").iterdir())
SCHEMA = HERE / "agent/kube_nginx_agent/config/backends.schema.json"


def _parsers() -> dict[str, argparse.ArgumentParser]:
    for action in options.parser(VERBS)._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("the command line has no verbs")


def _long_options(parser: argparse.ArgumentParser) -> set[str]:
    found = {option for action in parser._actions for option in action.option_strings}
    return {option for option in found if option.startswith("--")}


def _manual(name: str) -> str:
    return (PACKAGING / "man" / name).read_text(encoding="utf-8").replace("\\-", "-")


def _keys(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for name, value in schema.items():
            if name == "properties":
                yield from value
            yield from _keys(value)


def _descriptions(schema: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(schema, dict):
        if isinstance(schema.get("description"), str):
            yield key, schema["description"]
        for name, value in schema.items():
            yield from _descriptions(value, name)


def test_manual_has_every_verb_and_its_options_and_no_others() -> None:
    manual = _manual("kube-nginx-agent.8")

    for verb, parser in _parsers().items():
        synopsis = manual.partition(f".B {verb}\n")[2].partition("\n.PP")[0].partition("\n.SH")[0]
        told = set(re.findall(r"--[a-z-]+", synopsis))
        assert told == _long_options(parser) - {"--help"}, verb


def test_manual_has_every_key_of_the_schema() -> None:
    manual = _manual("backends.yaml.5")
    keys = set(_keys(json.loads(SCHEMA.read_text(encoding="utf-8"))))

    assert {key for key in keys if not re.search(rf"\b{re.escape(key)}\b", manual)} == set()


@pytest.mark.parametrize(
    ("key", "default"),
    [
        ("connect_timeout", format_duration(ALL_WELL.connect_timeout)),
        ("idle_timeout", format_duration(Proxy.idle_timeout)),
        ("cut_after", format_duration(HealthCheck.cut_after)),
        ("interval", format_duration(HealthCheck.tcp.interval)),
        ("interval", format_duration(HealthCheck.readyz.interval)),
        ("timeout", format_duration(HealthCheck.tcp.timeout)),
        ("path", HealthCheck.path),
        ("workers", str(Config.workers)),
        ("worker_connections", str(Config.worker_connections)),
        ("error_log_level", Config.error_log_level),
        ("weight", str(Backend.weight)),
        ("fail_timeout", format_duration(Backend.fail_timeout)),
        ("max_fails", str(Backend.max_fails)),
    ],
)
def test_manual_and_schema_tell_the_default_of_a_key(key: str, default: str) -> None:
    # Of a key that several things have, one of the places has it.
    manual = re.findall(
        rf"^\.BR? [^\n]*\b{key}\b(.*?)^\.(?:TP|S)", _manual("backends.yaml.5"), re.M | re.S
    )
    schema = [text for name, text in _descriptions(json.loads(SCHEMA.read_text())) if name == key]

    for places in (manual, schema):
        told = [place for place in places if "efault" in place]
        assert any(re.search(rf"\W{re.escape(default)}\W", place) for place in told), places


@pytest.mark.parametrize("file", COMPLETIONS, ids=lambda file: file.name)
def test_completion_has_every_verb_and_option(file: Path) -> None:
    text = file.read_text(encoding="utf-8")

    for verb, parser in _parsers().items():
        assert verb in text
        for option in _long_options(parser):
            assert re.search(rf"(--|-l ){option[2:]}\b", text), f"{verb} {option}"


def test_catalog_explains_each_kind_of_event_and_nothing_else() -> None:
    catalog = (PACKAGING / "catalog/kube-nginx-agent.catalog").read_text(encoding="utf-8")

    explained = re.findall(r"^-- ([0-9a-f]{32})$", catalog, re.MULTILINE)

    assert sorted(explained) == sorted(kind.message_id for kind in kinds.ALL)


def test_backends_yaml_of_the_package_is_an_empty_list() -> None:
    loaded = load_config((PACKAGING / "config/backends.yaml").read_bytes(), "backends.yaml")

    assert loaded.config.backends == ()
    assert loaded.warnings == ()


def test_example_in_the_manual_is_valid() -> None:
    manual = _manual("backends.yaml.5")
    examples = [part.partition("\n.EE")[0] for part in manual.split(".EX\n")[1:]]

    assert len(examples) == 2
    for example in examples:
        load_config(example.encode(), "the manual")


def test_spec_for_old_setuptools_takes_the_dependencies_from_the_project() -> None:
    spec = (HERE / "rpm/kube-nginx-agent.spec").read_text(encoding="utf-8")
    project = (HERE / "pyproject.toml").read_text(encoding="utf-8")
    wanted = re.search(r"^dependencies = \[(.*?)\]", project, re.MULTILINE | re.DOTALL)
    command = re.search(r"^install_requires =\n\$\((.*)\)$", spec, re.MULTILINE)
    assert wanted
    assert command

    done = subprocess.run(
        ["sh", "-c", command[1]], cwd=HERE, capture_output=True, text=True, check=False
    )

    assert done.stdout.split() == re.findall(r'"([^"]+)"', wanted[1])


def test_bash_completes_verbs_and_options() -> None:
    script = """
        . /usr/share/bash-completion/bash_completion
        . "$1"
        shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*"
        COMP_POINT=${#COMP_LINE}
        _kube_nginx_agent
        echo "${COMPREPLY[@]}"
    """
    file = str(PACKAGING / "completions/kube-nginx-agent")

    def complete(*words: str) -> str:
        command = ["bash", "-c", script, "bash", file, "kube-nginx-agent", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert complete("re") == "render reload"
    assert complete("status", "--j") == "--json"
    assert complete("check", str(PACKAGING / "config/b")).endswith("config/backends.yaml")


def test_initial_config_answers_with_its_own_generation() -> None:
    text = (PACKAGING / "config/initial.conf").read_text(encoding="utf-8")

    assert generation_of(text) is not None, "its hash is not that of its text"
    assert str(Paths().generation_socket) in text
    assert str(Paths().pid_file) in text
    assert str(Paths().log_socket) in text


# docs/security.md and SECURITY.md

SECURITY = (HERE / "docs/security.md").read_text(encoding="utf-8")
PARTIES = ("apiserver", "loopback", "local user", "hostNetwork", "worker", "backends.yaml", "apt")


def _rows(heading: str, text: str = SECURITY) -> list[list[str]]:
    """Return the cells of the table below a heading, without its head."""
    part = text.partition(f"\n## {heading}")[2].partition("\n#")[0]
    lines = [line for line in part.split("\n") if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_threat_names_a_test() -> None:
    rows = _rows("Threat model")

    assert len(rows) > 20
    assert [row for row in rows if "::test_" not in row[-1]] == []
    parties = " ".join(row[0] for row in rows)
    assert [party for party in PARTIES if party not in parties] == []


@pytest.mark.parametrize(
    "document", ["docs/security.md", "SECURITY.md"], ids=lambda name: name.lower()
)
def test_tests_that_security_names_exist(document: str) -> None:
    text = (HERE / document).read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", text)

    assert named
    missing = [
        (file, test)
        for file, test in named
        if not (HERE / file).is_file()
        or (test and f"def {test}(" not in (HERE / file).read_text(encoding="utf-8"))
    ]
    assert missing == []


def test_every_advisory_says_what_of_the_build_keeps_it_out() -> None:
    build = (HERE / "tests/component/test_nginx_build.py").read_text(encoding="utf-8")
    unwanted = re.findall(
        r'^    "(\w+)": ', build.partition("DIRECTIVES_UNWANTED")[2], re.MULTILINE
    )
    series = (PACKAGING / "nginx/patches/series").read_text(encoding="utf-8")
    rows = _rows("nginx's advisories since 1.26.3")

    assert len(rows) >= 23
    for advisory, _what, _vulnerable, why in rows:
        directive = re.match(r"`(\w+)`", why)
        assert (directive and directive[1] in unwanted) or advisory in series, advisory


def test_reviewed_release_is_the_one_that_the_page_has_gone_through() -> None:
    source = (PACKAGING / "nginx/source").read_text(encoding="utf-8")
    reviewed = re.search(r"^NGINX_REVIEWED=(.+)$", source, re.MULTILINE)

    assert reviewed
    assert f"to {reviewed[1]} and" in SECURITY


def test_origins_pattern_is_what_the_repository_says() -> None:
    page = (HERE / "SECURITY.md").read_text(encoding="utf-8")
    built = (PACKAGING / "apt/build").read_text(encoding="utf-8")
    pattern = re.search(r'"origin=(.+),codename=(.+)";', page)

    assert pattern
    assert re.search(rf"\bOrigin(: |=){re.escape(pattern[1])}\b", built)
    assert re.search(rf"\bCodename(: |=){re.escape(pattern[2])}\b", built)


def test_exceptions_from_the_security_rules_are_explained_in_their_line() -> None:
    project = (HERE / "pyproject.toml").read_text(encoding="utf-8")
    lists = re.findall(r"^ignore = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    lists += re.findall(r'^"agent/.*= (\[.*?\])', project, re.MULTILINE)
    source = [file.read_text(encoding="utf-8") for file in (HERE / "agent").rglob("*.py")]
    exceptions = re.findall(r"# noqa: .*\bS\d+.*", "\n".join(source))

    assert re.search(r'^select = \[.*"S",', project, re.MULTILINE)
    assert [rules for rules in lists if re.search(r'"S\d*"', rules)] == []
    assert exceptions
    assert [line for line in exceptions if not re.search(r"S\d+ - \w+ \w+", line)] == []
