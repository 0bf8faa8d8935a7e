"""What can be said in backends.yaml, and what it means."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kube_nginx_agent.config.durations import parse_duration
from kube_nginx_agent.desired import desire
from kube_nginx_agent.model import Backend, Balance, Config, HostName, Proxy, Target
from kube_nginx_agent.nginx.rendering import render
from unit.making import NODE, PATHS, address, complaints_of, config_of, warnings_of


def test_smallest_file_has_every_default() -> None:
    config = config_of("backends:\n  - 192.0.2.1:6443\n")

    assert config == Config(backends=(Backend(address("192.0.2.1:6443")),))


def test_empty_list_is_valid() -> None:
    assert config_of("backends: []\n").backends == ()


@pytest.mark.parametrize(
    ("entry", "target"),
    [
        ("192.0.2.1:6444", address("192.0.2.1:6444")),
        ("192.0.2.1", address("192.0.2.1:6443")),
        ('"[2001:db8::1]:6444"', address("[2001:db8::1]:6444")),
        ('"[2001:db8::1]"', address("[2001:db8::1]:6443")),
        ('"[2001:DB8:0::1]"', address("[2001:db8::1]:6443")),
        ('"[::ffff:192.0.2.1]:6443"', address("192.0.2.1:6443")),
        ("api.example.com:6444", HostName("api.example.com", 6444)),
        ("API.Example.com.", HostName("api.example.com", 6443)),
        ("master-1", HostName("master-1", 6443)),
        ("{address: 192.0.2.1}", address("192.0.2.1:6443")),
        ("{address: master-1:6444}", HostName("master-1", 6444)),
    ],
)
def test_backend_is_an_ipv4_or_ipv6_address_or_a_name(entry: str, target: Target) -> None:
    config = config_of(f"backends:\n  - {entry}\n")

    assert config.backends == (Backend(target),)


def test_mapping_entry_sets_every_detail() -> None:
    text = """
balance: least_conn
backends:
  - 192.0.2.1
  - address: 192.0.2.2:6443
    weight: 3
    backup: yes
    drain: true
    max_fails: 0
    fail_timeout: 1m30s
"""

    backend = config_of(text).backends[1]

    assert backend == Backend(
        address("192.0.2.2:6443"),
        weight=3,
        backup=True,
        drain=True,
        max_fails=0,
        fail_timeout=timedelta(seconds=90),
    )


@pytest.mark.parametrize(
    ("value", "listen"),
    [
        ("127.0.0.1:9443", ["127.0.0.1:9443"]),
        ('"[::1]:9443"', ["[::1]:9443"]),
        ('["127.0.0.1:8443", "[::1]:9443"]', ["127.0.0.1:8443", "[::1]:9443"]),
        ('["0.0.0.0:8443", "[::]:8443"]', ["0.0.0.0:8443", "[::]:8443"]),
        ('["0.0.0.0:8443", "127.0.0.1:9443"]', ["0.0.0.0:8443", "127.0.0.1:9443"]),
    ],
)
def test_listen_is_one_address_or_a_list(value: str, listen: list[str]) -> None:
    config = config_of(f"listen: {value}\nbackends: []\n")

    assert [str(own) for own in config.listen] == listen


@pytest.mark.parametrize(
    ("value", "balance"),
    [
        ("hash", Balance("hash")),
        ("{method: least_conn}", Balance("least_conn")),
        ("{shuffle: false}", Balance("random", shuffle=False)),
        ('{method: hash, salt: "", shuffle: no}', Balance("hash", salt="", shuffle=False)),
    ],
)
def test_balance_is_a_method_or_a_mapping(value: str, balance: Balance) -> None:
    assert config_of(f"balance: {value}\nbackends: []\n").balance == balance


def test_proxy_sets_timeouts_and_keepalive() -> None:
    text = "proxy: {connect_timeout: 500ms, idle_timeout: 1h, tcp_keepalive: off}\nbackends: []\n"

    proxy = config_of(text).proxy

    assert proxy == Proxy(timedelta(milliseconds=500), timedelta(hours=1), tcp_keepalive=False)


@pytest.mark.parametrize(("value", "workers"), [("1", 1), ("64", 64), ("auto", None)])
def test_workers_are_counted_or_left_to_nginx(value: str, workers: int | None) -> None:
    assert config_of(f"workers: {value}\nbackends: []\n").workers == workers


@pytest.mark.parametrize(
    "text",
    [
        "backends: []",
        "\ufeffbackends: []\n",
        "# caf\u00e9 \U0001f600\n---\nbackends: []\n...\n",
        "backends:\r\n  - 192.0.2.1\r\n",
        "{backends: [192.0.2.1]}",
        "%YAML 1.1\n---\nbackends: []\n",
    ],
)
def test_any_ordinary_way_of_writing_yaml_is_accepted(text: str) -> None:
    assert complaints_of(text) == []


def test_the_most_backends_with_every_key_given_are_accepted() -> None:
    entry = (
        "  - {{address: 'api-{}.example.com:6443', weight: 1, backup: false, drain: false, "
        "max_fails: 2, fail_timeout: 3s}}\n"
    )
    text = "backends:\n" + "".join(entry.format(number) for number in range(64))

    assert len(config_of(text).backends) == 64


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "proxy: {idle_timeout: 30s}\nbackends: []\n",
            "backends.yaml:1:23: proxy.idle_timeout: 30s cuts healthy idle watches: clients ping "
            "only after 30 s of silence; 10m is safe",
        ),
        (
            "listen: 0.0.0.0:8443\nbackends: []\n",
            "backends.yaml:1:9: listen: 0.0.0.0:8443 can be reached from other machines; "
            "listen on 127.0.0.1 and [::1], or write listen_beyond_loopback: true",
        ),
        (
            'listen: ["127.0.0.1:8443", "[2001:db8::1]:8443"]\nbackends: []\n',
            "backends.yaml:1:28: listen[1]: [2001:db8::1]:8443 can be reached from other machines; "
            "listen on 127.0.0.1 and [::1], or write listen_beyond_loopback: true",
        ),
        (
            "listen_beyond_loopback: false\nlisten: 0.0.0.0:8443\nbackends: []\n",
            "backends.yaml:2:9: listen: 0.0.0.0:8443 can be reached from other machines; "
            "listen on 127.0.0.1 and [::1], or write listen_beyond_loopback: true",
        ),
        (
            "proxy: {connect_timeout: 5s}\nbackends: []\n",
            "backends.yaml:1:26: proxy.connect_timeout: 5s leaves no time for a second apiserver: "
            "nobody waits longer than 5s; 1s is enough",
        ),
    ],
)
def test_unwise_value_is_accepted_with_a_warning(text: str, warning: str) -> None:
    assert warnings_of(text) == [warning]


@pytest.mark.parametrize(
    "text",
    [
        "proxy: {idle_timeout: 60s}\nbackends: []\n",
        "proxy: {connect_timeout: 4999ms}\nbackends: []\n",
        'listen: ["127.0.0.1:8443", "127.0.0.2:8443", "[::1]:8443"]\nbackends: []\n',
        "listen: 0.0.0.0:8443\nlisten_beyond_loopback: true\nbackends: []\n",
    ],
)
def test_wise_value_has_no_warning(text: str) -> None:
    assert warnings_of(text) == []


def test_connect_timeout_that_warns_is_the_one_that_ends_the_tries() -> None:
    text = "backends: [192.0.2.1]\n"
    config = render(desire(config_of(text), {}, NODE), PATHS).text
    limit = config.partition("proxy_next_upstream_timeout ")[2].partition(";")[0]
    just_below = parse_duration(limit) - timedelta(milliseconds=1)

    warned = [
        bool(warnings_of(f"proxy: {{connect_timeout: {value}}}\nbackends: []\n"))
        for value in (limit, f"{just_below // timedelta(milliseconds=1)}ms")
    ]

    assert warned == [True, False]
