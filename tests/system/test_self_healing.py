"""What breaks on a node mends itself, with no more privileges than the installed units have.

One node for all of it: each fault is gone again before the next. None depends on the release.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import Iterator

import pytest

from kube_nginx_agent.notices import kinds
from support.address import Address
from system.healing import (
    LIVE,
    POLL,
    RUN,
    entries_since,
    master,
    pass_now,
    reported,
    wait_for_servers,
    wait_until_well,
    workers,
)
from system.machine import wait_until
from system.network import Fleet
from system.node import UNITS, Node

pytestmark = pytest.mark.xdist_group("self-healing")

NGINX = "/usr/libexec/kube-nginx/nginx"

_MOVE_STATE = """
systemctl stop kube-nginx-agent kube-nginx
cp -a /var/lib/kube-nginx /var/lib/kept
mount -t tmpfs -o size=256k,mode=755,uid=kube-nginx,gid=kube-nginx tmpfs /var/lib/kube-nginx
cp -a /var/lib/kept/. /var/lib/kube-nginx
systemctl start kube-nginx kube-nginx-agent
"""
_MOVE_STATE_BACK = """
systemctl stop kube-nginx-agent kube-nginx
umount /var/lib/kube-nginx
rm -r /var/lib/kept
systemctl start kube-nginx kube-nginx-agent
"""
_BREAK = f"""
echo 'no program' >{NGINX}.bad
chmod 755 {NGINX}.bad
mv {NGINX}.bad {NGINX}
"""
_READ_AS_NEEDRESTART = """
use strict;
our %nrconf = (override_rc => { qr(^dbus) => 0 });
my ($file, @units) = @ARGV;
eval do { local(@ARGV, $/) = $file; <> };
die $@ if $@;
for my $unit (@units) {
    for my $re (keys %{$nrconf{override_rc}}) {
        print "$unit $nrconf{override_rc}{$re}\n" if "$unit.service" =~ /$re/;
    }
}
"""
_EDITS = """
import os, sys
for number in range(1000):
    text = sys.argv[2] if number == 999 else f"backends: [192.0.2.{number % 250 + 1}]\\n"
    with open("/etc/kube-nginx/part", "w") as part:
        part.write(text)
    os.replace("/etc/kube-nginx/part", sys.argv[1])
"""


@pytest.fixture
def node(healing: Node) -> Node:
    return healing


@pytest.fixture
def fleet(fleet_of_healing: Fleet) -> Fleet:
    return fleet_of_healing


# nginx's processes


def test_killed_worker_is_replaced(node: Node) -> None:
    before, (killed, *_) = master(node), workers(node)

    node.run("kill", "-KILL", str(killed))

    wait_until(lambda: killed not in workers(node) and len(workers(node)) == 2, 5, "a new worker")
    assert master(node) == before
    node.ask()


def test_stopped_master_goes_on_and_takes_the_next_list(node: Node, fleet: Fleet) -> None:
    since, before = time.time(), master(node)
    node.run("kill", "-STOP", str(before))

    node.configure(f"backends: [{fleet.addresses[0]}]\n")

    wait_for_servers(node, fleet.addresses[0])
    assert master(node) == before
    assert entries_since(node, kinds.NGINX_HUNG, since)
    assert node.ask() == "api1"


def test_stopped_workers_go_on(node: Node) -> None:
    since, before = time.time(), workers(node)
    node.run("kill", "-STOP", *map(str, before))

    node.wait_for_answer(POLL + 5)

    assert workers(node) == before
    assert entries_since(node, kinds.NGINX_HUNG, since)
    wait_until_well(node)


# Its config


@pytest.mark.parametrize(
    ("hand", "difference"),
    [
        pytest.param(f"sed -i s/16384/1/ {LIVE}", "worker_connections 1;", id="edited"),
        pytest.param(f"truncate -s 100 {LIVE}", "more lines", id="truncated"),
        pytest.param(f"rm {LIVE}", "was gone", id="deleted"),
    ],
)
def test_changed_live_config_is_restored_without_a_reload(
    node: Node, hand: str, difference: str
) -> None:
    since, text, before = time.time(), node.output("cat", LIVE), workers(node)

    node.shell(hand)

    wait_until(lambda: entries_since(node, kinds.LIVE_RESTORED, since), 5, "the restored config")
    assert node.output("cat", LIVE) == text
    assert difference in entries_since(node, kinds.LIVE_RESTORED, since)[0]["MESSAGE"]
    assert workers(node) == before


# Its binary


@contextmanager
def other_binary(node: Node, make: str) -> Iterator[None]:
    """Put what a shell command writes to its output in the place of the binary, for a while."""
    node.shell(f"ln {NGINX} {NGINX}.good")
    node.shell(f"({make}) >{NGINX}.other; chmod 755 {NGINX}.other; mv {NGINX}.other {NGINX}")
    try:
        yield
    finally:
        node.shell(f"mv {NGINX}.good {NGINX}")


def test_other_binary_takes_over_and_systemd_follows(node: Node) -> None:
    first = node.nginx_pid()
    restarts = node.machine.unit("kube-nginx")["NRestarts"]
    with node.load(rate=20.0, watches=5) as load, other_binary(node, f"cat {NGINX}; echo newer"):
        load.until(lambda seen: len(seen.lines) > 5, 10, "open watches")
        pass_now(node)
        second = master(node)
        lines = len(load.so_far().lines)
        load.until(lambda seen: len(seen.lines) > lines + 10, 10, "more lines on the watches")
        assert second != first
        assert node.nginx_pid() == first
        seen = load.stop()

        wait_until(lambda: node.nginx_pid() == second, 10, "systemd to follow the new master")

    assert (seen.count("failed"), seen.cuts) == (0, [])
    assert node.machine.unit("kube-nginx")["NRestarts"] == restarts
    pass_now(node)
    wait_until_well(node)


def test_new_master_that_is_killed_while_the_old_one_drains_is_replaced(node: Node) -> None:
    first = master(node)
    with node.load(rate=20.0, watches=5) as load, other_binary(node, f"cat {NGINX}; echo newest"):
        load.until(lambda seen: len(seen.lines) > 5, 10, "open watches")
        pass_now(node)
        second = master(node)
        assert second != first
        killed = time.monotonic()
        node.run("kill", "-KILL", str(second))
        wait_until(lambda: node.nginx_pid() not in (0, first, second), 10, "another master")
        load.until(lambda seen: seen.count("ok", since=killed + 2.0) > 20, 10, "traffic again")
        seen = load.stop()

    assert seen.count("failed", since=killed + 2.0) == 0
    pass_now(node)
    wait_until_well(node)


@pytest.mark.parametrize(
    ("hand", "words"),
    [
        pytest.param(_BREAK, "Exec format error", id="broken"),
        pytest.param(f"rm {NGINX}", "there is no nginx", id="missing"),
    ],
)
def test_broken_or_missing_binary_leaves_the_running_nginx(
    node: Node, hand: str, words: str
) -> None:
    before = workers(node)
    node.shell(f"ln {NGINX} {NGINX}.good\n{hand}")
    try:
        pass_now(node)

        reported(node, words)
        node.ask()
    finally:
        node.shell(f"mv {NGINX}.good {NGINX}")

    wait_until_well(node)
    assert workers(node) == before


def test_upgrade_of_a_library_restarts_the_agent_alone(node: Node) -> None:
    file = "/etc/needrestart/conf.d/kube-nginx-agent.conf"
    node.run("perl", "-c", file)

    overridden = node.output("perl", "-e", _READ_AS_NEEDRESTART, file, *UNITS)

    assert overridden.splitlines() == ["kube-nginx 0"]


# The port


def test_held_port_leaves_the_old_one_served_and_is_taken_when_it_is_free(
    node: Node, fleet: Fleet
) -> None:
    there = Address("127.0.0.1", 9443)
    listener = f"import socket, time; s = socket.create_server(('{there.host}', {there.port}))"
    command = ["python3", "-c", f"{listener}; time.sleep(600)"]
    node.run("systemd-run", "--quiet", "--unit=stranger", *command)
    wait_until(lambda: node.output("ss", "-Hltn", f"sport = :{there.port}"), 5, "the stranger")

    node.configure(f'listen: "{there}"\n{fleet.backends_yaml()}')

    status = reported(node, "it is held by")
    assert str(there) in str(status["problems"])
    node.ask()

    node.run("systemctl", "stop", "stranger")
    wait_until_well(node)
    assert node.ask(there) in {"api1", "api2", "api3"}


# The disk, and the run folder


def test_full_disk_keeps_no_list_from_going_live(node: Node, fleet: Fleet) -> None:
    node.shell(_MOVE_STATE)
    try:
        wait_until_well(node)
        node.shell("cat /dev/zero >/var/lib/kube-nginx/filler 2>/dev/null || true")

        for address in fleet.addresses:
            node.configure(f"backends: [{address}]\n")
            wait_for_servers(node, address)

        node.shell("rm /var/lib/kube-nginx/filler")
        wait_until_well(node)
    finally:
        node.shell(_MOVE_STATE_BACK)


def test_removed_run_folder_is_made_again_and_costs_no_session(node: Node) -> None:
    """systemd alone can make it again, for each unit in that unit's own mounts."""
    with node.load(rate=20.0, watches=5) as load:
        load.until(lambda seen: len(seen.lines) > 5, 10, "open watches")
        node.run("rm", "-r", RUN)

        wait_until(lambda: node.machine.succeeds("test", "-d", RUN), POLL + 5, "it is there again")
        lines = len(load.so_far().lines)
        load.until(lambda seen: len(seen.lines) > lines + 5, 10, "lines on the watches")
        seen = load.stop()
    assert (seen.count("failed"), seen.cuts) == (0, [])


def test_emptied_run_folder_is_filled_again_and_no_session_is_cut(node: Node) -> None:
    everything = ("find", RUN, "-mindepth", "1")
    before = set(node.output(*everything).split())
    with node.load(rate=20.0, watches=5) as load:
        load.until(lambda seen: len(seen.lines) > 5, 10, "open watches")
        node.run(*everything, "-delete")

        wait_until(lambda: set(node.output(*everything).split()) == before, POLL + 5, f"{before}")
        wait_until_well(node)
        lines = len(load.so_far().lines)
        load.until(lambda seen: len(seen.lines) > lines + 5, 10, "lines on the watches")
        seen = load.stop()

    assert (seen.count("failed"), seen.cuts) == (0, [])


# What is around the node


def test_first_apiserver_that_returns_is_used_within_a_second(node: Node, fleet: Fleet) -> None:
    since = time.time()
    with node.load(rate=20.0, watches=0) as load:
        load.until(lambda seen: seen.count("ok") > 10, 10, "traffic")
        for apiserver in fleet.apiservers:
            apiserver.kill()
        wait_until(lambda: entries_since(node, kinds.ALL_DOWN, since), 10, "it to be said")
        fleet.apiservers[0].start()
        back = time.monotonic()
        load.until(lambda seen: seen.count("ok", since=back + 1.0) > 20, 10, "traffic again")
        seen = load.stop()
    for apiserver in fleet.apiservers[1:]:
        apiserver.start()

    assert seen.count("failed", since=back + 1.0) == 0
    wait_until_well(node)


def test_last_addresses_of_a_name_outlive_dns_and_the_agent(node: Node, fleet: Fleet) -> None:
    hosts = node.output("cat", "/etc/hosts") + "\n"
    ip = fleet.addresses[0].partition(":")[0]
    node.machine.write("/etc/hosts", f"{hosts}{ip} api.test\n")
    status = node.configure_and_wait("backends: [api.test]\n")
    wait_for_servers(node, fleet.addresses[0])
    before = workers(node)

    node.machine.write("/etc/hosts", hosts)
    node.run("systemctl", "restart", "kube-nginx-agent")

    # It is told at the third failure in a row; one lost answer is none.
    told = reported(node, "its last addresses go on serving", timeout=20)
    assert told["generation"] == status["generation"]
    assert workers(node) == before
    assert node.ask() == "api1"


# The list


def test_edit_in_a_folder_that_was_replaced_goes_live(node: Node, fleet: Fleet) -> None:
    node.shell("cd /etc; cp -a kube-nginx other; mv kube-nginx former; mv other kube-nginx")

    for address in fleet.addresses:
        node.configure(f"backends: [{address}]\n")
        wait_for_servers(node, address, timeout=POLL / 2)

    node.shell("rm -r /etc/former")


def test_thousand_edits_end_in_the_last_one(node: Node, fleet: Fleet) -> None:
    with node.load(rate=20.0, watches=5) as load:
        load.until(lambda seen: len(seen.lines) > 5, 10, "open watches")
        last = f"backends: [{fleet.addresses[1]}]\n"
        node.run("python3", "-c", _EDITS, "/etc/kube-nginx/backends.yaml", last)

        wait_for_servers(node, fleet.addresses[1])
        seen = load.stop()

    assert seen.cuts_of_others({"api1", "api3"}) == []
    assert node.ask() == "api2"


def test_nothing_of_all_that_has_failed_a_unit(node: Node) -> None:
    for unit in UNITS:
        assert node.machine.unit(unit)["ActiveState"] == "active"
    assert node.output("systemctl", "is-system-running") == "running"
