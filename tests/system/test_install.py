"""``apt install`` on a fresh system, and what the administrator does next."""

from __future__ import annotations

from system.machine import Machine
from system.network import Fleet
from system.node import UNITS, Node

EXPOSURE_LIMIT = 1.5


def test_fresh_install_runs_both_units_enabled_and_without_an_error(machine: Machine) -> None:
    node = Node(machine)

    said = node.install()

    assert "rror" not in said
    assert "ailed" not in said
    for unit in UNITS:
        properties = machine.unit(unit)
        assert properties["ActiveState"] == "active"
        assert properties["UnitFileState"] == "enabled"
        assert properties["NRestarts"] == "0"
        assert properties["User"] == "kube-nginx"
    assert machine.output("systemctl", "is-system-running") == "running"
    assert node.status_line().startswith("no backends configured")
    assert node.status()["exit_code"] == 0


def test_saved_list_is_live_and_traffic_flows(node: Node, fleet: Fleet) -> None:
    node.configure_and_wait(fleet.backends_yaml())

    assert node.ask() in {"api1", "api2", "api3"}
    assert "3 apiservers" in node.status_line()


def test_edit_without_a_reload_goes_live_by_itself(node: Node, fleet: Fleet) -> None:
    node.configure(fleet.backends_yaml())

    node.wait_for_answer()


def test_units_are_sandboxed(node: Node, fleet: Fleet) -> None:
    node.configure_and_wait(fleet.backends_yaml())

    for unit in UNITS:
        verdict = node.output("systemd-analyze", "security", "--no-pager", unit).splitlines()[-1]
        exposure = float(verdict.partition("exposure level for ")[2].split()[1])
        assert exposure <= EXPOSURE_LIMIT, verdict
        status = node.output("cat", f"/proc/{node.machine.unit(unit)['MainPID']}/status")
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert f"{capabilities}:\t{0:016x}" in status
    node.ask()


def test_helper_has_one_capability_and_starts_when_it_is_asked(node: Node) -> None:
    unit = "kube-nginx-cut.service"
    verdict = node.output("systemd-analyze", "security", "--no-pager", unit).splitlines()[-1]
    assert float(verdict.partition("exposure level for ")[2].split()[1]) <= EXPOSURE_LIMIT, verdict

    properties = node.machine.unit(unit)

    assert properties["CapabilityBoundingSet"] == "cap_net_admin"
    assert properties["User"] == "kube-nginx"
    assert properties["ActiveState"] == "inactive"
    assert node.machine.unit("kube-nginx-cut.socket")["ActiveState"] == "active"
    assert node.machine.unit("kube-nginx-cut.socket")["UnitFileState"] == "enabled"


def test_nginx_has_what_the_data_plane_needs(node: Node) -> None:
    properties = node.machine.unit("kube-nginx")

    assert int(properties["LimitNOFILE"]) >= 65536
    assert properties["PrivateTmp"] == "yes"
    assert properties["Restart"] == "always"
    assert properties["StartLimitIntervalUSec"] == "0"
    assert "kubelet.service" in properties["Before"]
    assert "kubelet.service" in node.machine.unit("kube-nginx-agent")["Before"]


def test_nginx_can_not_write_its_own_config(node: Node) -> None:
    live = "/var/lib/kube-nginx/kube-nginx.conf"
    in_its_place = ("nsenter", f"--target={node.nginx_pid()}", "--mount", "--")

    assert not node.machine.succeeds(*in_its_place, "touch", live)
    assert node.machine.succeeds(*in_its_place, "touch", "/run/kube-nginx/probe")
