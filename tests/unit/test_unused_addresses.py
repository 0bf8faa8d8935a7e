"""What is said of addresses that the list stands for and nginx is not given."""

from __future__ import annotations

from kube_nginx_agent.desired import LeftOut, Reason
from kube_nginx_agent.intake.unused_addresses import FamilyNotes, problems_of
from kube_nginx_agent.model import HostName
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Fields
from unit.making import address

NAME = HostName("a.b", 6443)
V6 = LeftOut(address("[2001:db8::1]:6443"), NAME, Reason.NO_FAMILY)
V6_TOO = LeftOut(address("[2001:db8::2]:6443"), NAME, Reason.NO_FAMILY)
MANY = [LeftOut(address(f"10.0.0.{n}:6443"), NAME, Reason.TOO_MANY) for n in (1, 2, 3)]
SELF = address("10.0.0.9:8443")


def texts_of(*left_out: LeftOut) -> list[str]:
    return [str(problem.error) for problem in problems_of(left_out)]


def test_address_that_leads_back_is_a_problem_with_a_hint_for_where_it_stands() -> None:
    written, named = texts_of(
        LeftOut(SELF, SELF, Reason.LEADS_BACK),
        LeftOut(SELF, HostName("a.b", 8443), Reason.LEADS_BACK),
    )

    assert written.startswith("10.0.0.9:8443: it is not used: it is this node")
    assert written.endswith("; remove it, or change listen")
    assert named.endswith("; correct what a.b means in DNS, or listen")


def test_too_many_addresses_are_one_problem_whose_text_is_stable() -> None:
    assert texts_of(*MANY) == texts_of(*MANY[:1])
    assert len(texts_of(*MANY)) == 1


def test_missing_family_is_no_problem() -> None:
    assert texts_of(V6) == []


def test_missing_family_is_noted_once_for_a_name() -> None:
    said: list[str] = []

    def sink(kind: kinds.Kind, message: str, fields: Fields) -> None:
        said.append(f"{kind.name}: {message}")

    notes = FamilyNotes(sink)

    for left_out in ([V6, V6_TOO], [], [V6], MANY):
        notes.note(left_out)

    name = kinds.FAMILY_LEFT_OUT.name
    assert said == [f"{name}: a.b:6443: its IPv6 addresses are not used: this node has none"]
