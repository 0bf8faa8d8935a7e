"""Says which addresses of the list are not used: a problem, or no more than a note."""

from __future__ import annotations

from typing import Iterable

from kube_nginx_agent.desired import MOST_SERVERS, LeftOut, Reason
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.model import HostName, Target
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Sink
from kube_nginx_agent.notices.problems import Problem


def problems_of(left_out: Iterable[LeftOut]) -> Iterable[Problem]:
    """Yield what is wrong: who leads back to us, and a name with more addresses than we use."""
    too_many: set[Target] = set()
    for one in left_out:
        if one.reason is Reason.LEADS_BACK:
            yield _leads_back(one)
        elif one.reason is Reason.TOO_MANY and one.backend not in too_many:
            too_many.add(one.backend)
            # No count in the text: it would change with each answer.
            error = AgentError(
                f"not all of its addresses are used: the list has more than {MOST_SERVERS}",
                where=str(one.backend),
                hint="name fewer",
            )
            yield _problem(f"addresses of {one.backend}", one, error)


class FamilyNotes:
    """Says once for a name that this node can't use its addresses of one family."""

    def __init__(self, sink: Sink) -> None:
        """Take where the lines go."""
        self._sink = sink
        self._said: set[tuple[str, int]] = set()

    def note(self, left_out: Iterable[LeftOut]) -> None:
        """Say what is new; a family that comes and goes is not said again."""
        for one in left_out:
            key = str(one.backend), one.address.ip.version
            if one.reason is not Reason.NO_FAMILY or key in self._said:
                continue
            self._said.add(key)
            family = f"IPv{one.address.ip.version}"
            message = f"{one.backend}: its {family} addresses are not used: this node has none"
            self._sink(kinds.FAMILY_LEFT_OUT, message, {"BACKEND": str(one.backend)})


def _leads_back(one: LeftOut) -> Problem:
    error = AgentError(
        "it is not used: it is this node and a port that we listen on, so nginx would call itself",
        where=str(one.address),
        hint=f"correct what {one.backend.name} means in DNS, or listen"
        if isinstance(one.backend, HostName)
        else "remove it, or change listen",
    )
    return _problem(f"address {one.address}", one, error)


def _problem(about: str, one: LeftOut, error: AgentError) -> Problem:
    fields = {"BACKEND": str(one.backend), "ADDRESS": str(one.address)}
    return Problem(about, kinds.ADDRESS_LEFT_OUT, error, fields)
