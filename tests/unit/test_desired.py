"""Who serves, who is down, and never nobody."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_nginx_agent.config.addresses import leads_back
from kube_nginx_agent.desired import (
    MOST_SERVERS,
    NoServerError,
    Reason,
    addresses_of,
    left_out,
)
from kube_nginx_agent.model import HostName, Node
from unit.making import (
    NODE,
    OTHER_NODE,
    Answers,
    address,
    config_of,
    desired_of,
    ips,
    servers_of,
)

THREE = "backends: [10.0.0.1, 10.0.0.2, 10.0.0.3]\n"
UNSHUFFLED = "balance: {shuffle: false}\n"
WITH_BACKUP = """
balance: least_conn
backends:
  - api.example
  - {address: 10.0.0.2, backup: true}
"""


def order_of(text: str, answers: Answers | None = None, node: Node = NODE) -> list[str]:
    return [str(server.address) for server in desired_of(text, answers, node).servers]


def test_node_with_ipv6_listens_on_both_loopbacks() -> None:
    assert list(map(str, desired_of(THREE).listen)) == ["127.0.0.1:8443", "[::1]:8443"]


def test_node_without_ipv6_listens_on_the_ipv4_loopback_alone() -> None:
    node = Node("x", has_ipv6_loopback=False)

    assert list(map(str, desired_of(THREE, node=node).listen)) == ["127.0.0.1:8443"]


def test_listen_of_the_file_wins() -> None:
    assert desired_of(f"listen: 127.0.0.1:9443\n{THREE}").listen == (address("127.0.0.1:9443"),)


def test_empty_list_gives_no_servers() -> None:
    assert desired_of("backends: []\n").servers == ()


def test_order_of_the_servers_is_stable_for_one_node() -> None:
    reversed_file = "backends: [10.0.0.3, 10.0.0.2, 10.0.0.1]\n"

    assert order_of(THREE) == order_of(reversed_file)


def test_first_server_is_spread_over_the_nodes() -> None:
    first = Counter(order_of(THREE, node=Node(f"node{n}", True))[0] for n in range(300))

    assert all(70 <= first[f"10.0.0.{n}:6443"] <= 130 for n in (1, 2, 3))


def test_order_of_the_others_stays_when_one_is_removed() -> None:
    with_all = order_of(THREE)

    without_one = order_of("backends: [10.0.0.1, 10.0.0.3]\n")

    assert without_one == [server for server in with_all if server != "10.0.0.2:6443"]


def test_order_of_the_file_is_kept_without_shuffle() -> None:
    text = f"{UNSHUFFLED}backends: [10.0.0.3, api.example, 10.0.0.1]\n"

    assert order_of(text, {"api.example": ["10.0.0.2"]}) == [
        "10.0.0.3:6443",
        "10.0.0.2:6443",
        "10.0.0.1:6443",
    ]


def test_salt_differs_from_node_to_node() -> None:
    text = f"balance: hash\n{THREE}"

    salts = {desired_of(text, node=node).hash_salt for node in (NODE, OTHER_NODE)}

    assert salts == {NODE.id, OTHER_NODE.id}


@pytest.mark.parametrize("salt", ["", "rack-7"])
def test_salt_of_the_file_wins(salt: str) -> None:
    text = f'balance: {{method: hash, salt: "{salt}"}}\n{THREE}'

    assert desired_of(text).hash_salt == salt


@given(st.text("0123456789abcdef", min_size=1, max_size=12))
def test_old_workers_end_after_20_to_28_hours(node_id: str) -> None:
    timeout = desired_of(THREE, node=Node(node_id, True)).worker_shutdown_timeout

    assert timedelta(hours=20) <= timeout < timedelta(hours=28)


def test_old_workers_of_two_nodes_end_at_different_times() -> None:
    timeouts = {
        desired_of(THREE, node=Node(f"n{n}", True)).worker_shutdown_timeout for n in range(9)
    }

    assert len(timeouts) > 7


def test_name_gives_a_server_for_each_of_its_addresses() -> None:
    text = f"{UNSHUFFLED}backends: ['api.example:6444']\n"

    servers = servers_of(text, {"api.example": ["10.0.0.10", "2001:db8::1", "10.0.0.9"]})

    assert list(servers) == ["10.0.0.10:6444", "10.0.0.9:6444", "[2001:db8::1]:6444"]
    assert servers["10.0.0.9:6444"].backend == HostName("api.example", 6444)


def test_name_hands_its_settings_to_each_of_its_addresses() -> None:
    text = "backends: [{address: api.example, weight: 3, max_fails: 5}, 10.0.0.9]\n"

    servers = servers_of(text, {"api.example": ["10.0.0.1", "10.0.0.2"]})

    assert [(s.weight, s.max_fails) for a, s in servers.items() if a != "10.0.0.9:6443"] == [
        (3, 5),
        (3, 5),
    ]


def test_address_behind_two_names_is_one_server() -> None:
    answers = {"a.example": ["10.0.0.1"], "b.example": ["10.0.0.1", "10.0.0.2"]}

    servers = desired_of("backends: [a.example, b.example]\n", answers).servers

    assert sorted(str(server.address) for server in servers) == ["10.0.0.1:6443", "10.0.0.2:6443"]


def test_settings_that_stand_with_an_address_win_over_those_of_a_name() -> None:
    text = "backends: [{address: api.example, weight: 5}, {address: 10.0.0.1, weight: 7}]\n"

    assert servers_of(text, {"api.example": ["10.0.0.1"]})["10.0.0.1:6443"].weight == 7


@pytest.mark.parametrize("answer", ["0.0.0.0", "::", "fe80::1", "224.0.0.1"])
def test_answer_that_is_no_host_is_left_out(answer: str) -> None:
    assert list(servers_of("backends: [a.b]\n", {"a.b": [answer, "10.0.0.1"]})) == ["10.0.0.1:6443"]


def test_ipv4_mapped_answer_is_the_ipv4_address() -> None:
    text = "backends: [10.0.0.1, a.b]\n"

    assert list(servers_of(text, {"a.b": ["::ffff:10.0.0.1"]})) == ["10.0.0.1:6443"]


def test_answer_that_leads_back_to_us_is_left_out() -> None:
    text = "listen: 127.0.0.1:6443\nbackends: [a.b]\n"

    assert list(servers_of(text, {"a.b": ["127.0.0.1", "10.0.0.1"]})) == ["10.0.0.1:6443"]


@pytest.mark.parametrize("answers", [{}, {"a.b": []}, {"a.b": ["127.0.0.1"]}])
def test_no_usable_address_at_all_is_an_error_that_names_the_names(answers: Answers) -> None:
    with pytest.raises(NoServerError, match="no usable address is known for a.b:6443, c.d:1; "):
        desired_of("listen: 127.0.0.1:6443\nbackends: [a.b, 'c.d:1']\n", answers)


def test_name_without_an_address_does_not_hinder_the_others() -> None:
    assert list(servers_of("backends: [a.b, 10.0.0.1]\n")) == ["10.0.0.1:6443"]


def node_with(*own: str) -> Node:
    return Node(NODE.id, has_ipv6_loopback=True, addresses=ips(["127.0.0.1", "::1", *own]))


IPV4_ONLY = node_with("10.0.0.9", "fe80::1")
IPV6_ONLY = node_with("2001:db8::9", "169.254.1.1")
BOTH = node_with("10.0.0.9", "2001:db8::9")
WILDCARD = "listen: 0.0.0.0:8443\n"


def unused_of(text: str, answers: Answers | None = None, node: Node = NODE) -> dict[str, Reason]:
    resolved = {name: ips(texts) for name, texts in (answers or {}).items()}
    config = config_of(text)
    found = left_out(config, resolved, node, config.listen)
    return {str(one.address): one.reason for one in found}


@pytest.mark.parametrize(
    ("node", "used"),
    [
        (IPV4_ONLY, ["10.0.0.1:6443"]),
        (IPV6_ONLY, ["[2001:db8::1]:6443"]),
        (BOTH, ["10.0.0.1:6443", "[2001:db8::1]:6443"]),
        (node_with("fe80::1"), ["10.0.0.1:6443", "[2001:db8::1]:6443"]),
        (NODE, ["10.0.0.1:6443", "[2001:db8::1]:6443"]),
    ],
)
def test_named_addresses_of_a_family_that_the_node_lacks_are_left_out(
    node: Node, used: list[str]
) -> None:
    text, answers = "backends: [a.b]\n", {"a.b": ["10.0.0.1", "2001:db8::1"]}

    unused = unused_of(text, answers, node)

    assert sorted(servers_of(text, answers, node)) == used
    assert set(unused.values()) <= {Reason.NO_FAMILY}
    assert sorted([*unused, *used]) == ["10.0.0.1:6443", "[2001:db8::1]:6443"]


def test_address_that_the_administrator_wrote_is_used_whatever_the_family() -> None:
    text = "backends: ['[2001:db8::1]:6443', 10.0.0.1]\n"

    assert "[2001:db8::1]:6443" in servers_of(text, node=IPV4_ONLY)


def test_named_loopback_address_needs_no_other_of_its_family() -> None:
    assert list(servers_of("backends: [a.b]\n", {"a.b": ["::1"]}, IPV4_ONLY)) == ["[::1]:6443"]


@pytest.mark.parametrize("backend", ["10.0.0.9:8443", "a.b:8443"])
def test_address_of_this_node_behind_a_wildcard_is_left_out(backend: str) -> None:
    text, answers = f"{WILDCARD}backends: ['{backend}', 10.0.0.1]\n", {"a.b": ["10.0.0.9"]}

    assert list(servers_of(text, answers, IPV4_ONLY)) == ["10.0.0.1:6443"]
    assert unused_of(text, answers, IPV4_ONLY) == {"10.0.0.9:8443": Reason.LEADS_BACK}


def test_address_that_is_not_of_this_node_or_has_another_port_is_used() -> None:
    text = f"{WILDCARD}backends: ['10.0.0.8:8443', '10.0.0.9:6443']\n"

    assert len(servers_of(text, node=IPV4_ONLY)) == 2
    assert unused_of(text, node=IPV4_ONLY) == {}


def test_list_that_leads_back_only_gives_no_servers() -> None:
    with pytest.raises(NoServerError):
        desired_of(f"{WILDCARD}backends: ['10.0.0.9:8443']\n", node=IPV4_ONLY)


MANY = {"a.b": [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(500)]}


def test_name_with_very_many_addresses_gives_as_many_servers_as_a_list_may_have() -> None:
    text = "backends: [a.b, 10.9.9.9]\n"

    servers = servers_of(text, MANY)

    assert (len(servers), "10.9.9.9:6443" in servers) == (MOST_SERVERS, True)
    assert set(unused_of(text, MANY).values()) == {Reason.TOO_MANY}
    assert len(unused_of(text, MANY)) == 501 - MOST_SERVERS


def test_the_same_of_very_many_addresses_are_used_each_time() -> None:
    backwards = {"a.b": MANY["a.b"][::-1]}

    assert servers_of("backends: [a.b]\n", MANY) == servers_of("backends: [a.b]\n", backwards)


def test_full_list_has_no_room_for_a_name() -> None:
    written = ", ".join(f"10.1.0.{n + 1}" for n in range(MOST_SERVERS - 1))

    servers = servers_of(f"backends: [a.b, {written}]\n", {"a.b": ["10.0.0.1", "10.0.0.2"]})

    assert len(servers) == MOST_SERVERS
    assert "10.0.0.1:6443" in servers


def test_all_that_the_list_stands_for_is_told_used_or_not() -> None:
    config = config_of("backends: ['a.b:7', 10.0.0.1]\n")

    found = addresses_of(
        config, {"a.b": ips(["10.0.0.2", "2001:db8::1"]), "c.d": ips(["10.0.0.3"])}
    )

    assert set(map(str, found)) == {"10.0.0.1:6443", "10.0.0.2:7", "[2001:db8::1]:7"}


@given(
    st.lists(st.sampled_from(["10.0.0.1", "10.0.0.9", "2001:db8::1", "127.0.0.1"]), unique=True),
    st.lists(st.sampled_from(["a.b:8443", "c.d", "10.0.0.1:8443", "10.0.0.9"]), min_size=1),
    st.sampled_from([NODE, IPV4_ONLY, IPV6_ONLY, BOTH]),
)
def test_each_address_is_either_used_or_left_out(
    answer: list[str], backends: list[str], node: Node
) -> None:
    entries = ", ".join(f"'{backend}'" for backend in sorted(set(backends)))
    text = f"{WILDCARD}backends: [{entries}]\n"
    answers = {"a.b": answer, "c.d": answer}
    unused = unused_of(text, answers, node)
    try:
        used = set(servers_of(text, answers, node))
    except NoServerError:
        used = set()

    all_of_them = addresses_of(config_of(text), {name: ips(a) for name, a in answers.items()})
    assert used | unused.keys() == set(map(str, all_of_them))
    assert not used & unused.keys()


def test_draining_server_is_down() -> None:
    servers = servers_of("backends: [10.0.0.1, {address: 10.0.0.2, drain: true}, 10.0.0.3]\n")

    assert {a: s.down for a, s in servers.items() if s.down} == {"10.0.0.2:6443": True}


def test_draining_server_serves_when_the_others_have_no_address() -> None:
    servers = servers_of("backends: [{address: 10.0.0.1, drain: true}, a.b]\n")

    assert not servers["10.0.0.1:6443"].down


def test_single_server_is_never_counted_as_failed() -> None:
    assert servers_of("backends: [10.0.0.1]\n")["10.0.0.1:6443"].max_fails == 0


def test_last_server_beside_draining_ones_is_never_counted_as_failed() -> None:
    servers = servers_of("backends: [10.0.0.1, {address: 10.0.0.2, drain: true}]\n")

    assert {a: s.max_fails for a, s in servers.items()} == {"10.0.0.1:6443": 0, "10.0.0.2:6443": 2}


def test_each_of_several_servers_can_be_counted_as_failed() -> None:
    assert {server.max_fails for server in servers_of(THREE).values()} == {2}


def test_server_with_a_backup_can_be_counted_as_failed() -> None:
    servers = servers_of(WITH_BACKUP, {"api.example": ["10.0.0.1"]})

    assert servers["10.0.0.1:6443"].max_fails == 2


def test_backup_stays_one_beside_another_server() -> None:
    servers = servers_of(WITH_BACKUP, {"api.example": ["10.0.0.1"]})

    assert [a for a, s in servers.items() if s.backup] == ["10.0.0.2:6443"]


def test_backup_left_alone_is_none_any_more() -> None:
    assert not servers_of(WITH_BACKUP)["10.0.0.2:6443"].backup


def test_backup_whose_servers_drain_is_never_counted_as_failed() -> None:
    text = WITH_BACKUP.replace("api.example", "{address: 10.0.0.1, drain: true}")

    assert servers_of(text)["10.0.0.2:6443"].max_fails == 0


BACKENDS = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=5
).filter(
    lambda backends: not all(drain for drain, _, _ in backends)
    and not all(backup for _, backup, _ in backends)
)


@given(BACKENDS)
def test_somebody_always_serves(backends: list[tuple[bool, bool, bool]]) -> None:
    entries = "".join(
        f"  - {{address: {f'n{n}.example' if is_name else f'10.0.0.{n}'}, "
        f"drain: {str(drain).lower()}, backup: {str(backup).lower()}}}\n"
        for n, (drain, backup, is_name) in enumerate(backends)
    )

    try:
        servers = desired_of(f"balance: least_conn\nbackends:\n{entries}").servers
    except NoServerError:
        assert all(is_name for _, _, is_name in backends)
    else:
        serving = [server for server in servers if not server.down]
        assert serving
        assert not all(server.backup for server in servers)
        assert (serving[0].max_fails == 0) == (len(serving) == 1)


@pytest.mark.parametrize(
    ("target", "listen", "is_us"),
    [
        ("127.0.0.1:8443", "127.0.0.1:8443", True),
        ("127.0.0.1:6443", "127.0.0.1:8443", False),
        ("127.0.0.2:8443", "127.0.0.1:8443", False),
        ("127.0.0.2:8443", "0.0.0.0:8443", True),
        ("10.0.0.1:8443", "0.0.0.0:8443", False),
        ("[::1]:8443", "[::1]:8443", True),
        ("[::1]:8443", "[::]:8443", True),
        ("[::1]:8443", "0.0.0.0:8443", False),
        ("127.0.0.1:8443", "[::]:8443", False),
    ],
)
def test_target_that_leads_back_to_us_is_known(target: str, listen: str, is_us: bool) -> None:
    assert leads_back(address(target), [address(listen)]) is is_us


@pytest.mark.parametrize(
    ("target", "listen", "is_us"),
    [
        ("10.0.0.9:8443", "0.0.0.0:8443", True),
        ("10.0.0.9:6443", "0.0.0.0:8443", False),
        ("10.0.0.8:8443", "0.0.0.0:8443", False),
        ("10.0.0.9:8443", "127.0.0.1:8443", False),
        ("10.0.0.9:8443", "[::]:8443", False),
        ("[2001:db8::9]:8443", "[::]:8443", True),
        ("[2001:db8::9]:8443", "0.0.0.0:8443", False),
    ],
)
def test_own_address_leads_back_behind_a_wildcard(target: str, listen: str, is_us: bool) -> None:
    assert leads_back(address(target), [address(listen)], BOTH.addresses) is is_us


def test_name_is_not_judged_before_it_is_resolved() -> None:
    assert not leads_back(HostName("localhost", 8443), [address("127.0.0.1:8443")])
