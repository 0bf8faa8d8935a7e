"""``apt remove``, ``apt purge``, and the way back."""

from __future__ import annotations

from system.network import Fleet
from system.node import UNITS, Node

_FIND_LEFTOVERS = """
find / -xdev '(' -path /proc -o -path /sys -o -path /srv ')' -prune -o \
    '(' -user kube-nginx -o -path '*kube-nginx*' -o -path '*kube_nginx*' ')' -print |
    grep -v -e ^/etc/apt/ -e ^/usr/share/keyrings/ -e ^/var/lib/apt/ -e ^/var/log/ \
        -e ^/var/lib/systemd/catalog || true
find /run /tmp /var/tmp '(' -user kube-nginx -o -name '*kube-nginx*' ')' -print
"""


def test_remove_stops_both_and_keeps_the_configuration(node: Node, fleet: Fleet) -> None:
    node.configure_and_wait(fleet.backends_yaml())

    node.apt("remove", "kube-nginx-agent")

    for unit in UNITS:
        assert node.machine.unit(unit)["ActiveState"] == "inactive"
    assert _processes(node) == ""
    assert node.output("cat", "/etc/kube-nginx/backends.yaml") == fleet.backends_yaml().strip()


def test_install_after_remove_serves_the_kept_list(node: Node, fleet: Fleet) -> None:
    node.configure_and_wait(fleet.backends_yaml())
    node.apt("remove", "kube-nginx-agent")

    node.install()

    node.wait_for_answer()


def test_purge_leaves_nothing_behind(node: Node, fleet: Fleet) -> None:
    node.configure_and_wait(fleet.backends_yaml())

    node.apt("purge", "kube-nginx-agent")

    assert node.shell(_FIND_LEFTOVERS) == ""
    assert _processes(node) == ""
    assert node.output("ss", "-Hltn") == ""
    assert node.output("systemctl", "is-system-running") == "running"


def test_install_after_purge_starts_afresh(node: Node, fleet: Fleet) -> None:
    node.configure_and_wait(fleet.backends_yaml())
    node.apt("purge", "kube-nginx-agent")

    node.install()

    assert node.status_line().startswith("no backends configured")


def _processes(node: Node) -> str:
    return node.run("pgrep", "--list-full", "--uid", "kube-nginx", check=False).stdout
