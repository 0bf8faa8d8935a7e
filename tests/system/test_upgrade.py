"""The upgrade of the package under load."""

from __future__ import annotations

from system.machine import wait_until
from system.network import Fleet
from system.node import Node
from system.packages import NEWER_VERSION

NGINX = "/usr/libexec/kube-nginx/nginx"


def test_upgrade_fails_no_connection_and_cuts_no_session(node: Node, fleet: Fleet) -> None:
    node.configure_and_wait(fleet.backends_yaml())
    first = node.nginx_pid()
    with node.load() as load:
        load.until(lambda seen: len(seen.lines) > 20, 10, "open watches")
        node.upgrade()
        wait_until(lambda: _runs_new_nginx(node), 30, "the new nginx to serve")
        lines = len(load.so_far().lines)
        load.until(lambda seen: len(seen.lines) > lines + 60, 15, "more lines on the watches")
        seen = load.stop()

    assert (seen.count("failed"), seen.cuts) == (0, [])
    assert node.status()["version"] == NEWER_VERSION
    # All sessions have ended with the load, so the old master ends and systemd follows the new one.
    wait_until(lambda: node.nginx_pid() not in (0, first), 30, "systemd to follow the new master")
    assert node.machine.unit("kube-nginx")["NRestarts"] == "0"
    node.shell("systemctl reload kube-nginx")
    node.ask()


def test_upgrade_keeps_what_the_administrator_disabled(node: Node) -> None:
    node.shell("systemctl disable --now kube-nginx-agent")

    node.upgrade()

    properties = node.machine.unit("kube-nginx-agent")
    assert (properties["ActiveState"], properties["UnitFileState"]) == ("inactive", "disabled")


def _runs_new_nginx(node: Node) -> bool:
    """Tell whether the master in the pid file runs the file that is installed now."""
    script = f'[ "$(readlink /proc/$(cat /run/kube-nginx/nginx.pid)/exe)" = {NGINX} ]'
    return node.machine.succeeds("sh", "-c", script)
