"""What strangers write into backends.yaml, and the help that they get.

Each case has the file and the complaints about it, as ``check`` prints them, less the file's name.
"""

from __future__ import annotations

import pytest

from kube_nginx_agent.config.flaws import ConfigError
from kube_nginx_agent.config.load import load_config
from unit.making import FILE, complaints_of, ips

NEITHER = "is neither an IPv4 address (four numbers, 0 to 255) nor a name"
COLONS = (
    "has more than one colon; write HOST:PORT, and an IPv6 address in brackets and quotes: "
    '"[2001:db8::1]:6443"'
)
QUOTE = 'put quotes around an IPv6 address: "[2001:db8::1]:6443"'
A_LIST = 'write a list, a line "- HOST:PORT" for each apiserver'
A_BACKEND = "write HOST:PORT, such as 192.0.2.1:6443"
A_LISTEN = 'write an address such as 127.0.0.1:8443 or "[::1]:8443"'
A_DURATION = "write a duration such as 500ms, 2s or 10m"
A_FILE = 'write the key "backends:" with the list of apiservers below it'
A_PORT = "is not a port; it is a number from 1 to 65535"
TOP_KEYS = (
    "known keys: backends, balance, error_log_level, health_check, listen, "
    "listen_beyond_loopback, proxy, worker_connections, workers"
)


def lines_of(content: str) -> list[str]:
    return [line.replace(f"{FILE}:", "", 1) for line in complaints_of(content)]


ENTRIES = {
    "10.0.0.1:70000": f'"70000" {A_PORT}',
    "10.0.0.1:0": f'"0" {A_PORT}',
    "10.0.0.1:0655350": f'"0655350" {A_PORT}',
    "10.0.0.1:6443/healthz": f'"6443/healthz" {A_PORT}',
    '"10.0.0.1:"': f'"" {A_PORT}',
    '"10.0.0.1:6443 "': f'"6443 " {A_PORT}',
    "10.0.0.1:-1": f'"-1" {A_PORT}',
    "10.0.0.1:\u0663": f'"\u0663" {A_PORT}',
    "10.0.0.1:6443:": "the colon makes this a mapping; write 10.0.0.1:6443",
    "10.0.0.1:": "the colon makes this a mapping; write 10.0.0.1",
    "10.0.0.1: 6443": "the colon makes this a mapping; write 10.0.0.1:6443",
    "api.example.com: 6443": "the colon makes this a mapping; write api.example.com:6443",
    ":6443": f"the host is missing; {A_BACKEND}",
    '""': f"the host is missing; {A_BACKEND}",
    "https://10.0.0.1:6443": f"it is an address, not a URL; {A_BACKEND}",
    "::1": f'"::1" {COLONS}',
    "2001:db8::1": f'"2001:db8::1" {COLONS}',
    "1.2.3.4:22:33": f'"1.2.3.4:22:33" {COLONS}',
    "[2001:db8::1]": f"a list does not fit here; {QUOTE}",
    '"[10.0.0.1]:6443"': '"10.0.0.1" in brackets is not an IPv6 address',
    '"[2001:db8::g]:6443"': '"2001:db8::g" in brackets is not an IPv6 address',
    '"[]:6443"': '"" in brackets is not an IPv6 address',
    '"[fe80::1%eth0]"': "nginx can't use the link-local fe80::1%eth0; use a global address",
    '"[fe80::1]"': "nginx can't use the link-local fe80::1; use a global address",
    "0.0.0.0:6443": "0.0.0.0 is not the address of one host",
    '"[::]:6443"': ":: is not the address of one host",
    "224.0.0.1:6443": "224.0.0.1 is not the address of one host",
    "192.168.1.300:6443": f'"192.168.1.300" {NEITHER}',
    "1.2.3": f'"1.2.3" {NEITHER}',
    "010.0.0.1": f'"010.0.0.1" {NEITHER}',
    "0x7f000001": f'"0x7f000001" {NEITHER}',
    "0x7f.0x1": f'"0x7f.0x1" {NEITHER}',
    "2024-01-01": f'"2024-01-01" {NEITHER}',
    "10.0.0.1, 10.0.0.2": f'"10.0.0.1, 10.0.0.2" {NEITHER}',
    "10.0.0.0/24": f'"10.0.0.0/24" {NEITHER}',
    '"."': f'"." {NEITHER}',
    "a..": '"a.." is neither an IPv4 address (four numbers, 0 to 255) nor a name',
    "ex\u00e4mple.com": '"ex\u00e4mple.com" is neither an IP address nor a DNS name',
    "-x.example": '"-x.example" is neither an IP address nor a DNS name',
    "a..example": '"a..example" is neither an IP address nor a DNS name',
    "a" * 64: f'"{"a" * 57}..." is neither an IP address nor a DNS name',
    ".".join(["abc"] * 64): f'"{("abc." * 20)[:57]}..." is neither an IP address nor a DNS name',
    "6443": f"6443 does not fit here; {A_BACKEND}",
    "10.1": f"10.1 does not fit here; {A_BACKEND}",
    "true": f"true does not fit here; {A_BACKEND}",
    "no": f"false does not fit here; {A_BACKEND}",
    "": f"the value is missing; {A_BACKEND}",
    "null": f"the value is missing; {A_BACKEND}",
    "~": f"the value is missing; {A_BACKEND}",
    "[10.0.0.1]": f"a list does not fit here; {A_BACKEND}",
    "127.0.0.1:8443": "127.0.0.1:8443 is where we listen; nginx would call itself",
    '"[::1]:8443"': "[::1]:8443 is where we listen; nginx would call itself",
}


@pytest.mark.parametrize(("entry", "complaint"), ENTRIES.items())
def test_wrong_entry_is_refused_with_what_would_be_right(entry: str, complaint: str) -> None:
    column = 5 if entry else 4

    lines = lines_of(f"backends:\n  - {entry}\n" if entry else "backends:\n  -\n")

    assert lines == [f"2:{column}: backends[0]: {complaint}"]


DETAILS = {
    'weight: "3"': '13: .weight: "3" does not fit here; write a whole number without quotes',
    "weight: 3.0": "13: .weight: 3.0 does not fit here; write a whole number",
    "weight: 0": "13: .weight: 0 is out of range; it is at least 1",
    "weight: 101": "13: .weight: 101 is out of range; it is at most 100",
    f"weight: 1{'0' * 80}": f"13: .weight: 1{'0' * 56}... is out of range; it is at most 100",
    "weight: 0x10": "13: .weight: 0x10 does not fit here; write a whole number",
    "weight: 010": "13: .weight: 010 does not fit here; write a whole number",
    "weight: 1_000": "13: .weight: 1_000 does not fit here; write a whole number",
    "weight: true": "13: .weight: true does not fit here; write a whole number",
    "weight: {a: 1}": "13: .weight: a mapping does not fit here; write a whole number",
    "weight:": "12: .weight: the value is missing; write a whole number",
    'backup: "yes"': '13: .backup: "yes" does not fit here; write true or false without quotes',
    "backup: 1": "13: .backup: 1 does not fit here; write true or false",
    "drain: maybe": "12: .drain: maybe does not fit here; write true or false",
    "max_fails: -1": "16: .max_fails: -1 is out of range; it is at least 0",
    "fail_timeout: 30": f"19: .fail_timeout: 30 does not fit here; {A_DURATION}",
    "fail_timeout: 0s": "19: .fail_timeout: 0s is no time at all; write 1s or more",
    "fail_timeout: 1500ms": "19: .fail_timeout: 1500ms is not a whole number of seconds; "
    "nginx counts this in seconds: write 1s or more",
    "fail_timeout: 25d": "19: .fail_timeout: 25d is longer than nginx can wait; write at most 24d",
    "wieght: 3": '5: .wieght: unknown key; did you mean "weight"?',
    "port: 6443": "5: .port: unknown key; write it into the address: HOST:PORT",
    "colour: red": "5: .colour: unknown key; known keys: "
    "address, backup, drain, fail_timeout, max_fails, weight",
}


@pytest.mark.parametrize(("detail", "complaint"), DETAILS.items())
def test_wrong_detail_is_refused_with_what_would_be_right(detail: str, complaint: str) -> None:
    column, _, rest = complaint.partition(": ")

    lines = lines_of(f"backends:\n  - address: 10.0.0.1\n    {detail}\n  - 10.0.0.2\n")

    assert lines == [f"3:{column}: backends[0]{rest}"]


SETTINGS = {
    "listen: 127.0.0.1": "9: listen: the port is missing; write 127.0.0.1:8443",
    'listen: "[::1]"': "9: listen: the port is missing; write [::1]:8443",
    "listen: 8443": f"9: listen: 8443 does not fit here; {A_LISTEN}",
    "listen: :8443": "9: listen: the host is missing; write HOST:PORT, such as 127.0.0.1:8443",
    'listen: "*:8443"': '9: listen: "*" is not an IP address; write one such as 127.0.0.1:8443',
    "listen: localhost:8443": '9: listen: "localhost" is not an IP address; '
    "write one such as 127.0.0.1:8443",
    'listen: "::1"': f'9: listen: "::1" {COLONS}',
    "listen: [2001:db8::1]": f'10: listen[0]: "2001:db8::1" {COLONS}',
    "listen: 224.0.0.1:8443": "9: listen: 224.0.0.1 is not the address of one host",
    'listen: "[fe80::1]:8443"': "9: listen: nginx can't use the link-local fe80::1; "
    "use a global address",
    "listen: []": "9: listen: the list is empty; name one, or leave the key out",
    "listen:": f"8: listen: the value is missing; {A_LISTEN}",
    'listen: ["127.0.0.1:1", "127.0.0.1:1"]': "25: listen[1]: 127.0.0.1:1 stands twice; remove one",
    'listen: ["0.0.0.0:1", "127.0.0.1:1"]': "23: listen[1]: 127.0.0.1:1 is part of 0.0.0.0:1 "
    "already; keep one of them",
    'listen: ["[::1]:1", "[::]:1"]': "10: listen[0]: [::1]:1 is part of [::]:1 already; "
    "keep one of them",
    "balance:": "9: balance: the value is missing; use random, least_conn, round_robin, hash",
    "balance: [hash]": "10: balance: a list does not fit here; "
    "use random, least_conn, round_robin, hash",
    "balance: least-conn": '10: balance: least-conn does not fit here; did you mean "least_conn"?',
    "balance: RANDOM": '10: balance: RANDOM does not fit here; did you mean "random"?',
    "balance: {methode: hash}": '11: balance.methode: unknown key; did you mean "method"?',
    "balance: {salt: x}": "17: balance.salt: random has no use for it; add method: hash",
    "balance: {method: hash, salt: 7}": "31: balance.salt: 7 does not fit here; write text in "
    "quotes, at most 64 letters, digits, dots, underscores or hyphens",
    'balance: {method: hash, salt: "$a"}': '31: balance.salt: "$a" does not fit here; write text '
    "in quotes, at most 64 letters, digits, dots, underscores or hyphens",
    'balance: {method: hash, salt: "a\\n"}': '31: balance.salt: "a\\n" does not fit here; write '
    "text in quotes, at most 64 letters, digits, dots, underscores or hyphens",
    "proxy:": "7: proxy: the value is missing; write a mapping",
    "proxy: 5s": "8: proxy: 5s does not fit here; write a mapping",
    "proxy: {connect_timeout: 500}": "26: proxy.connect_timeout: 500 does not fit here; "
    + A_DURATION,
    "proxy: {connect_timeout: 1.5s}": "26: proxy.connect_timeout: 1.5s does not fit here; "
    + A_DURATION,
    'proxy: {connect_timeout: "1s\\n"}': '26: proxy.connect_timeout: "1s\\n" does not fit here; '
    + A_DURATION,
    "proxy: {connect_timeout: 0ms}": "26: proxy.connect_timeout: 0ms is no time at all; "
    "write 1s or more",
    "proxy: {idle_timeout: 1 m}": f"23: proxy.idle_timeout: 1 m does not fit here; {A_DURATION}",
    "proxy: {idle_timeout: 1M}": f"23: proxy.idle_timeout: 1M does not fit here; {A_DURATION}",
    "proxy: {idle_timeout: 999999d}": "23: proxy.idle_timeout: 999999d is longer than nginx can "
    "wait; write at most 24d",
    "workers: Auto": '10: workers: Auto does not fit here; did you mean "auto"?',
    'workers: "2"': '10: workers: "2" does not fit here; '
    "use a whole number without quotes, or auto",
    "workers: 0": "10: workers: 0 is out of range; it is at least 1",
    "workers: 65": "10: workers: 65 is out of range; it is at most 64",
    'listen_beyond_loopback: "true"': '25: listen_beyond_loopback: "true" does not fit here; '
    "write true or false without quotes",
    "workers: 1.5": "10: workers: 1.5 does not fit here; write a whole number",
    "worker_connections: 1k": "21: worker_connections: 1k does not fit here; write a whole number",
    "error_log_level: warning": "18: error_log_level: warning does not fit here; "
    'did you mean "warn"?',
    "error_log_level: 7": "18: error_log_level: 7 does not fit here; "
    "use info, notice, warn, error, crit",
    "backend: []": '1: backend: unknown key; did you mean "backends"?',
    "colour: red": f"1: colour: unknown key; {TOP_KEYS}",
    '"": 1': f'1: [""]: unknown key; {TOP_KEYS}',
    "1: 1": f'1: ["1"]: unknown key; {TOP_KEYS}',
    "<<: {a: b}": f'1: ["<<"]: unknown key; {TOP_KEYS}',
}


@pytest.mark.parametrize(("setting", "complaint"), SETTINGS.items())
def test_wrong_setting_is_refused_with_what_would_be_right(setting: str, complaint: str) -> None:
    assert lines_of(f"{setting}\nbackends: []\n") == [f"1:{complaint}"]


WHOLE_FILES = {
    "backends:\n": f"1:10: backends: the value is missing; {A_LIST}",
    "backends: 10.0.0.1:6443\n": f"1:11: backends: 10.0.0.1:6443 does not fit here; {A_LIST}",
    "backends:\n  -10.0.0.1\n": f"2:3: backends: -10.0.0.1 does not fit here; {A_LIST}",
    "backends:\n  a: 10.0.0.1\n": f"2:3: backends: a mapping does not fit here; {A_LIST}",
    "workers: 2\n": '1:1: backends: the key is missing; an empty list is written "backends: []"',
    "Backends: []\n": '1:1: Backends: unknown key; did you mean "backends"?',
    "backends:\n  - weight: 3\n": "2:5: backends[0].address: the key is missing; "
    "every entry needs one",
    "backends:\n  - adress: 10.0.0.1\n": "2:5: backends[0].adress: unknown key; "
    'did you mean "address"?',
    "backends:\n  - host: api\n": '2:5: backends[0].host: unknown key; did you mean "address"?',
    "backends:\n  - 10.0.0.1\n  - 10.0.0.2\n  - 10.0.0.1:6443\n": "4:5: backends[2]: "
    "10.0.0.1:6443 is on line 2 already; remove one",
    "backends:\n  - API.example\n  - address: api.example.:6443\n": "3:5: backends[1]: "
    "api.example:6443 is on line 2 already; remove one",
    'backends:\n  - 10.0.0.1\n  - "[::ffff:10.0.0.1]:6443"\n': "3:5: backends[1]: "
    "10.0.0.1:6443 is on line 2 already; remove one",
    "backends:\n  - {address: 10.0.0.1, drain: true}\n": "2:3: backends: every backend drains; "
    "one must take the new connections",
    "balance: least_conn\nbackends:\n  - {address: 10.0.0.1, backup: true}\n": "3:3: backends: "
    "every backend is a backup; one must not be",
    "listen: 0.0.0.0:9443\nbackends: [127.0.0.2:9443]\n": "2:12: backends[0]: "
    "127.0.0.2:9443 is where we listen; nginx would call itself",
    "backends: [" + "a.b," * 65 + "]": "1:11: backends: the list has 65 entries; "
    "at most 64 are allowed",
    "- 10.0.0.1\n- 10.0.0.2\n": f"1:1: a list does not fit here; {A_FILE}",
    "10.0.0.1:6443\n": f"1:1: 10.0.0.1:6443 does not fit here; {A_FILE}",
    "123\n": f"1:1: 123 does not fit here; {A_FILE}",
    "---\n": f"2:1: the value is missing; {A_FILE}",
    "# nothing\n": '1:1: the file has no content; write "backends: []"',
    "backends: []\n---\nbackends: []\n": "2:1: a second YAML document starts here; "
    'remove the "---"',
    "backends:\n- 10.0.0.1\n - 10.0.0.2\n": '2:3: backends[0]: "10.0.0.1 - 10.0.0.2" is two '
    'entries in one; put each "- " right below the other',
}


@pytest.mark.parametrize(("content", "complaint"), WHOLE_FILES.items())
def test_wrong_file_is_refused_with_what_would_be_right(content: str, complaint: str) -> None:
    assert lines_of(content) == [complaint]


BROKEN_YAML = {
    "backends:\n  - [::1]:6443\n": ("2:6", QUOTE),
    "backends:\n  - [::1]\n": ("2:6", QUOTE),
    "backends:\n  - [2001:db8::1]:6443\n": ("2:18", QUOTE),
    "listen: [::1]:8443\nbackends: []\n": ("1:10", QUOTE),
    "backends: [[::1]:6443]\n": ("1:13", QUOTE),
    "backends:\n\t- 10.0.0.1\n": ("2:1", "YAML wants spaces here, not a tab"),
    "backends:\n  - 10.0.0.1\n\t- 10.0.0.2\n": ("3:1", "YAML wants spaces here, not a tab"),
    "listen: *:8443\n": ("1:10", "put quotes around a value that begins with * & ! % @ or `"),
    "backends:\n  - @api\n": ("2:5", "put quotes around a value that begins with * & ! % @ or `"),
    "backends: [10.0.0.1\n": ("1:11", "check indentation, colons and quotes on this line"),
    'backends: ["10.0.0.1]\n': ("1:12", "check indentation, colons and quotes on this line"),
    "backends:\n  - 10.0.0.1\n  -10.0.0.2\n": ("3:3", "check indentation, colons and quotes"),
    "a: b: c\n": ("1:5", "check indentation, colons and quotes on this line"),
}


@pytest.mark.parametrize(("content", "where", "hint"), [(k, *v) for k, v in BROKEN_YAML.items()])
def test_broken_yaml_is_refused_where_it_breaks_with_a_hint(
    content: str, where: str, hint: str
) -> None:
    line = lines_of(content)[-1]

    assert line.startswith(f"{where}: not valid YAML: ")
    assert hint in line


def test_every_complaint_has_file_line_column_key_what_and_hint() -> None:
    [line] = complaints_of("backends:\n  - address: 10.0.0.1\n    wieght: 3\n")

    assert line == 'backends.yaml:3:5: backends[0].wieght: unknown key; did you mean "weight"?'


def test_all_errors_of_a_file_are_told_at_once_in_its_order() -> None:
    content = """\
listen: localhost:8443
balance: least-conn
workers: 0
workers: 2
backends:
  - 10.0.0.1
  - 10.0.0.2:70000
  - address: 10.0.0.1:6443
    wieght: 3
    fail_timeout: 1ms
  - &a 127.0.0.1:8443
  - *a
  - address: !!str 10.0.0.3
    max_fails: x
proxy:
  idle_timeout: 0s
  colour: red
"""

    lines = lines_of(content)

    assert [line.split(": ")[:2] for line in lines] == [
        ["1:9", "listen"],
        ["2:10", "balance"],
        ["3:10", "workers"],
        ["4:1", "workers"],
        ["7:5", "backends[1]"],
        ["8:5", "backends[2]"],
        ["9:5", "backends[2].wieght"],
        ["10:19", "backends[2].fail_timeout"],
        ["11:5", "backends[3]"],
        ["12:5", "backends[4]"],
        ["13:14", "backends[5].address"],
        ["14:16", "backends[5].max_fails"],
        ["16:17", "proxy.idle_timeout"],
        ["17:3", "proxy.colour"],
    ]


def test_error_of_a_file_says_the_first_complaint_and_how_to_see_the_rest() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(b"workers: 0\nbackends: [x:y]\n", "/etc/b.yaml")

    assert str(caught.value) == (
        "/etc/b.yaml:1:10: workers: 0 is out of range; it is at least 1 (and 1 more); "
        "`kube-nginx-agent check /etc/b.yaml` lists all"
    )


def test_error_of_a_file_with_one_complaint_is_that_complaint() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(b"workers: 0\nbackends: []\n", "b.yaml")

    assert str(caught.value) == "b.yaml:1:10: workers: 0 is out of range; it is at least 1"


@pytest.mark.parametrize("method", ["random", "hash"])
def test_backup_is_refused_with_a_method_that_nginx_has_none_for(method: str) -> None:
    content = (
        f"balance: {method}\nbackends:\n  - 10.0.0.1\n  - {{address: 10.0.0.2, backup: true}}\n"
    )

    assert lines_of(content) == [
        f"4:33: backends[1].backup: nginx has no backup servers with balance: {method}; "
        "use balance: least_conn or round_robin"
    ]


@pytest.mark.parametrize("method", ["least_conn", "round_robin"])
def test_backup_is_accepted_with_the_other_methods(method: str) -> None:
    content = (
        f"balance: {method}\nbackends:\n  - 10.0.0.1\n  - {{address: 10.0.0.2, backup: true}}\n"
    )

    assert lines_of(content) == []


@pytest.mark.parametrize(
    "content",
    [
        "balance: rando\nbackends:\n  - a.b\n  - {address: 10.0.0.2, backup: true}\n",
        "balance: {method: hsh, salt: x}\nbackends: []\n",
        "listen: 127.0.0.1:x\nbackends: [127.0.0.1:8443]\n",
        "backends:\n  - {address: 10.0.0.1, drain: true}\n  - x:y\n",
        "balance: least_conn\nbackends:\n  - {address: 10.0.0.1, backup: true}\n  - x:y\n",
    ],
)
def test_one_mistake_is_not_told_as_two(content: str) -> None:
    assert len(lines_of(content)) == 1


def test_ipv6_backend_at_the_port_of_an_ipv4_wildcard_is_not_taken_for_ourselves() -> None:
    assert lines_of('listen: 0.0.0.0:9443\nbackends: ["[::1]:9443"]\n') == []


def test_edit_that_leads_back_to_an_address_of_this_node_is_refused_where_it_stands() -> None:
    text = b"listen: 0.0.0.0:8443\nbackends:\n  - 10.0.0.1\n  - 10.0.0.9:8443\n"

    with pytest.raises(ConfigError) as refused:
        load_config(text, "b.yaml", ips(["10.0.0.9"]))

    assert refused.value.lines() == [
        "b.yaml:4:5: backends[1]: 10.0.0.9:8443 is where we listen; nginx would call itself"
    ]
    assert load_config(text, "b.yaml").config.backends
