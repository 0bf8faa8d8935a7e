"""The text of nginx.conf."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_nginx_agent.nginx.rendering import generation_of, render
from unit.making import NODE, OTHER_NODE, PATHS, desired_of, directives, rendered

THREE = "backends: [10.0.0.1, 10.0.0.2, 10.0.0.3]\n"
EXAMPLES = sorted(Path(__file__).parents[2].glob("packaging/config/*.yaml"))


def test_defaults_are_rendered() -> None:
    lines = directives("balance: {shuffle: false}\nbackends: [10.0.0.1, '[2001:db8::1]:6444']\n")

    generation = rendered(
        "balance: {shuffle: false}\nbackends: [10.0.0.1, '[2001:db8::1]:6444']\n"
    ).generation
    assert [line for line in lines if not line.startswith("worker_shutdown_timeout ")] == [
        "worker_processes 2;",
        "pid /run/kube-nginx/nginx.pid;",
        "error_log stderr notice;",
        "error_log syslog:server=unix:/run/kube-nginx/log.sock,nohostname,tag=nginx error;",
        "events {",
        "worker_connections 16384;",
        "}",
        "stream {",
        "upstream kube_apiservers {",
        "zone kube_apiservers 512k;",
        "random two least_conn;",
        "server 10.0.0.1:6443 max_fails=2 fail_timeout=3s;",
        "server [2001:db8::1]:6444 max_fails=2 fail_timeout=3s;",
        "}",
        "server {",
        "listen 127.0.0.1:8443 so_keepalive=60s:10s:3;",
        "listen [::1]:8443 so_keepalive=60s:10s:3;",
        "proxy_pass kube_apiservers;",
        "proxy_connect_timeout 250ms;",
        "proxy_next_upstream on;",
        "proxy_next_upstream_tries 0;",
        "proxy_next_upstream_timeout 5s;",
        "proxy_timeout 10m;",
        "proxy_socket_keepalive on;",
        "tcp_nodelay on;",
        "}",
        "server {",
        "listen unix:/run/kube-nginx/generation.sock;",
        f'return "{generation} $pid\\n";',
        "}",
        "}",
    ]


CLASSIC = """
balance:
  method: hash
  salt: ""
  shuffle: false
backends:
  - {address: 192.168.150.141:6443, max_fails: 3, fail_timeout: 30s}
  - {address: 192.168.150.142:6443, max_fails: 3, fail_timeout: 30s}
  - {address: 192.168.150.143:6443, max_fails: 3, fail_timeout: 30s}
proxy:
  connect_timeout: 1s
  idle_timeout: 30s
error_log_level: info
worker_connections: 10240
workers: auto
"""


@pytest.mark.parametrize(
    "line",
    [
        "worker_processes auto;",
        "error_log stderr info;",
        "worker_connections 10240;",
        'hash "$remote_addr" consistent;',
        "server 192.168.150.141:6443 max_fails=3 fail_timeout=30s;",
        "server 192.168.150.142:6443 max_fails=3 fail_timeout=30s;",
        "server 192.168.150.143:6443 max_fails=3 fail_timeout=30s;",
        "listen 127.0.0.1:8443 so_keepalive=60s:10s:3;",
        "proxy_connect_timeout 1s;",
        "proxy_timeout 30s;",
        "proxy_pass kube_apiservers;",
    ],
)
def test_classic_hand_written_config_can_be_said(line: str) -> None:
    assert line in directives(CLASSIC)


def test_classic_config_is_the_same_on_every_node_but_for_the_end_of_old_workers() -> None:
    texts = [
        [
            line
            for line in directives(CLASSIC, node=node)
            if not line.startswith(("worker_s", "ret"))
        ]
        for node in (NODE, OTHER_NODE)
    ]

    assert texts[0] == texts[1]


def test_empty_list_listens_and_closes_every_connection() -> None:
    lines = directives("backends: []\n")

    start = lines.index("server {")
    assert lines[start : start + 5] == [
        "server {",
        "listen 127.0.0.1:8443 so_keepalive=60s:10s:3;",
        "listen [::1]:8443 so_keepalive=60s:10s:3;",
        'return "";',
        "}",
    ]


def test_empty_list_has_no_upstream() -> None:
    assert not [line for line in directives("backends: []\n") if line.startswith("upstream")]


@pytest.mark.parametrize(
    ("balance", "line"),
    [
        ("random", "random two least_conn;"),
        ("least_conn", "least_conn;"),
        ("hash", f'hash "{NODE.id}$remote_addr" consistent;'),
        ("{method: hash, salt: rack-7}", 'hash "rack-7$remote_addr" consistent;'),
    ],
)
def test_balance_method_is_rendered(balance: str, line: str) -> None:
    assert line in directives(f"balance: {balance}\n{THREE}")


def test_round_robin_is_what_nginx_does_without_a_method() -> None:
    lines = directives(f"balance: round_robin\n{THREE}")

    upstream = lines[lines.index("upstream kube_apiservers {") :][1:3]
    assert [line.split()[0] for line in upstream] == ["zone", "server"]


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ("weight: 3", "weight=3 max_fails=2 fail_timeout=3s"),
        ("drain: true", "max_fails=2 fail_timeout=3s down"),
        ("backup: true", "max_fails=2 fail_timeout=3s backup"),
        ("backup: true, drain: true", "max_fails=2 fail_timeout=3s backup down"),
        ("max_fails: 0, fail_timeout: 1m", "max_fails=0 fail_timeout=1m"),
    ],
)
def test_details_of_a_backend_are_rendered(details: str, words: str) -> None:
    text = (
        f"balance: least_conn\nbackends: [10.0.0.1, 10.0.0.2, {{address: 10.0.0.3, {details}}}]\n"
    )

    assert f"server 10.0.0.3:6443 {words};" in directives(text)


def test_address_of_a_name_says_the_name_in_a_comment() -> None:
    text = rendered("backends: [api.example, 10.0.0.9]\n", {"api.example": ["10.0.0.1"]}).text

    assert "server 10.0.0.1:6443 max_fails=2 fail_timeout=3s;  # api.example:6443\n" in text


def test_keepalive_can_be_turned_off() -> None:
    lines = directives(f"proxy: {{tcp_keepalive: false}}\n{THREE}")

    assert "listen 127.0.0.1:8443;" in lines
    assert "proxy_socket_keepalive off;" in lines


def test_shared_memory_is_the_same_for_any_number_of_servers() -> None:
    answers = {"a.b": [f"10.0.{number // 250}.{number % 250 + 1}" for number in range(1000)]}

    for text in (THREE, "backends: [a.b]\n"):
        assert "zone kube_apiservers 512k;" in directives(text, answers)


def test_two_nodes_have_different_configs() -> None:
    assert rendered(THREE, node=NODE).generation != rendered(THREE, node=OTHER_NODE).generation


CONFIGS = st.builds(
    lambda method, hosts, workers: (
        f"balance: {method}\nworkers: {workers}\nbackends: {[f'10.0.0.{host}' for host in hosts]}\n"
    ),
    st.sampled_from(["random", "least_conn", "round_robin", "hash"]),
    st.sets(st.integers(1, 254), max_size=6),
    st.sampled_from(["1", "2", "auto"]),
)


@given(CONFIGS)
def test_rendering_is_deterministic(text: str) -> None:
    assert rendered(text) == rendered(text)


@given(CONFIGS)
def test_rendered_config_has_the_generation_that_it_answers_with(text: str) -> None:
    config = rendered(text)

    assert re.fullmatch("[0-9a-f]{7}", config.generation)
    assert generation_of(config.text) == config.generation


@given(st.data())
def test_changed_config_has_no_generation(data: st.DataObject) -> None:
    text = rendered(THREE).text
    place = data.draw(st.integers(0, len(text) - 1))
    change = data.draw(
        st.sampled_from(["", "x", "0", "\n", " "]).filter(lambda c: c != text[place])
    )

    assert generation_of(text[:place] + change + text[place + 1 :]) is None


@pytest.mark.parametrize("text", [None, "", "events {}\n", 'return "0123abc $pid\\n";'])
def test_foreign_config_has_no_generation(text: str | None) -> None:
    assert generation_of(text) is None


def test_path_of_the_file_cannot_end_the_comment_that_names_it() -> None:
    paths = replace(PATHS, config=Path("/etc/a\nuser root;\udcff"))

    text = render(desired_of(THREE), paths).text

    assert text.startswith("# Written by kube-nginx-agent from /etc/a\\nuser root;\\udcff: edit")


COMMENTED_CONFIGS = [
    THREE,
    CLASSIC,
    "backends: []\n",
    f"balance: least_conn\n{THREE}",
    f"balance: round_robin\n{THREE}",
    *(example.read_text(encoding="utf-8") for example in EXAMPLES),
]


def is_explained(lines: list[str], place: int) -> bool:
    """Tell whether a comment stands above the line, and no blank line or closed block between."""
    for line in reversed(lines[:place]):
        if line.startswith("#"):
            return True
        if line in ("", "}"):
            return False
    return False


@pytest.mark.parametrize("text", COMMENTED_CONFIGS)
def test_every_directive_is_explained_by_a_comment(text: str) -> None:
    lines = [line.strip() for line in rendered(text).text.splitlines()]

    directives = [place for place, line in enumerate(lines) if ";" in line and line[0] != "#"]

    assert [lines[place] for place in directives if not is_explained(lines, place)] == []


def test_comments_tell_what_the_salt_does() -> None:
    with_salt = rendered(f"balance: hash\n{THREE}").text
    without = rendered(f'balance: {{method: hash, salt: ""}}\n{THREE}').text

    assert "each node choose for itself" in with_salt
    assert "all nodes choose the same one" in without
