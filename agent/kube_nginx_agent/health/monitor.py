"""The loop's view of the backends: takes what was observed, and says what changed."""

from __future__ import annotations

from typing import Iterable

from kube_nginx_agent.desired import ALL_WELL, HealthView, connect_timeout_for
from kube_nginx_agent.errors import AgentError
from kube_nginx_agent.health import fleet
from kube_nginx_agent.health.machine import Health, State, hint, is_out, observe, reconsider
from kube_nginx_agent.health.prober import Doubt, Prober
from kube_nginx_agent.health.readyz import ReadyzProbe
from kube_nginx_agent.health.trust import Trust
from kube_nginx_agent.inbox import NginxComplained, Probed, SessionsWait
from kube_nginx_agent.model import HealthCheck, SocketAddress
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Sink
from kube_nginx_agent.notices.problems import Problem
from kube_nginx_agent.observation import Layer, Observation, Result
from kube_nginx_agent.sessions.session_watch import SessionWatch
from kube_nginx_agent.sessions.table import has_sent

_FIRST_LOOK = 0.5
"""Seconds that a list with a new backend waits for the first look at it."""


class Monitor:
    """Holds the health of every backend of the list."""

    def __init__(
        self,
        prober: Prober,
        sessions: SessionWatch,
        sink: Sink,
    ) -> None:
        """Take the tools; nothing is probed before ``want``."""
        self.healths: dict[SocketAddress, Health] = {}
        self.silent_since: dict[SocketAddress, float] = {}
        """Since when the process of a backend does not answer its probe."""
        self.connect_timeout = ALL_WELL.connect_timeout
        """How long nginx should wait for one of them, by their round-trip times."""
        self._check = HealthCheck()
        self._trust: Trust | None = None
        self._prober = prober
        self._sessions = sessions
        self._new_until = 0.0
        self._sink = sink
        self._wrong: dict[str, Problem] = {}
        self._has_list = False

    def want(self, backends: Iterable[SocketAddress], check: HealthCheck, now: float) -> None:
        """Watch over these backends from now on."""
        wanted = set(backends)
        if check != self._check or self._trust is None:
            self._check = check
            self._make_trust()
        added = wanted - self.healths.keys()
        for backend in added:
            # At the agent's own start all are in until a probe says otherwise.
            self.healths[backend] = Health(since=now, is_trusted=not self._has_list)
        if added and self._has_list:
            self._new_until = now + _FIRST_LOOK
        for backend in self.healths.keys() - wanted:
            del self.healths[backend]
            self._wrong.pop(_about(backend), None)
        self._has_list = self._has_list or bool(wanted)
        self._prober.want(wanted, check, self._make_readyz)

    def due(self, now: float) -> float | None:
        """Return when time alone changes something."""
        dues = [health.due for health in self.healths.values()]
        if self.is_waiting_for_first_look(now):
            dues.append(self._new_until)
        return min((due for due in dues if due is not None and due > now), default=None)

    def view(self) -> HealthView:
        """Return what the health of the backends means to nginx."""
        return HealthView(
            out=fleet.out_of_use(self.healths),
            none_passes=bool(self.healths) and fleet.outlook(self.healths) is fleet.Outlook.NONE,
            connect_timeout=self.connect_timeout,
        )

    def problems(self) -> Iterable[Problem]:
        """Yield who is out, and that nobody is left."""
        yield from self._wrong.values()
        if self._trust and self._check.readyz.enabled:
            yield from self._trust.problems()

    def is_waiting_for_first_look(self, now: float) -> bool:
        """Tell whether a backend was added whose first look will be there in a moment."""
        is_new = (h.state is State.NEW and not h.is_trusted for h in self.healths.values())
        return now < self._new_until and any(is_new)

    def take(self, event: Probed | NginxComplained | SessionsWait, now: float) -> None:
        """Take what somebody has seen."""
        if isinstance(event, Probed):
            self._note(event, now)
        elif isinstance(event, NginxComplained):
            self._suspect(event.backend, now)
        else:
            for backend in event.backends:
                self._suspect(backend, now)

    def _note(self, probed: Probed, now: float) -> None:
        health = self.healths.get(probed.backend)
        if health:
            seen = self._excuse_slow(probed, now)
            self._change(probed.backend, observe(health, seen, self._check, now), now)

    def _suspect(self, backend: SocketAddress, now: float) -> None:
        health = self.healths.get(backend)
        if health:
            self._change(backend, hint(health, self._check, now), now)

    def tick(self, now: float) -> None:
        """Let time pass, and hurry the probes of what is in doubt."""
        for backend, health in list(self.healths.items()):
            self._change(backend, reconsider(health, self._check, now), now)
        rtt = fleet.slowest(self.healths)
        self.connect_timeout = connect_timeout_for(rtt, self.connect_timeout)
        doubts = {b: Doubt(h.is_in_doubt, h.rtt) for b, h in self.healths.items()}
        self._prober.set_doubts(doubts)
        self._say_outlook()

    def _excuse_slow(self, probed: Probed, now: float) -> Observation:
        """Take a process that has sent data to somebody meanwhile as slow, not as frozen."""
        if probed.seen.result is not Result.SILENT:
            if probed.seen.layer is Layer.READYZ:
                self.silent_since.pop(probed.backend, None)
            return probed.seen
        since = self.silent_since.setdefault(probed.backend, probed.began)
        if not has_sent(self._sessions.look(), probed.backend, now - since):
            return probed.seen
        del self.silent_since[probed.backend]
        return Observation(probed.seen.layer, Result.ALIVE, "slow")

    def _change(self, backend: SocketAddress, after: Health, now: float) -> None:
        before = self.healths[backend]
        self.healths[backend] = after
        if is_out(after) and after.state is not before.state:
            kind = kinds.BACKEND_DOWN if after.state is State.DOWN else kinds.BACKEND_DRAINING
            reason, fields = _reason(backend, after), _fields(backend, after)
            self._wrong[_about(backend)] = Problem(_about(backend), kind, reason, fields)
        elif is_out(before) and not is_out(after):
            lasted = f"{now - before.since:.1f} s"
            self._wrong.pop(_about(backend), None)
            message = f"{backend}: it is up again after {lasted}"
            self._sink(kinds.BACKEND_UP, message, {"BACKEND": str(backend), "STATE": "up"})

    def _say_outlook(self) -> None:
        if fleet.outlook(self.healths) is not fleet.Outlook.NONE:
            self._wrong.pop("fleet", None)
            return
        if "fleet" in self._wrong:
            return  # Said when it began; on the way back the causes change one by one.
        network = fleet.is_own_network(self.healths)
        what = "no apiserver passes its checks: all stay in, and nginx tries them all"
        hint_ = "look at this node's own network first" if network else "look at the apiservers"
        error = AgentError(what, hint=hint_)
        self._wrong["fleet"] = Problem("fleet", kinds.ALL_DOWN, error)

    def _make_trust(self) -> None:
        self._trust = Trust(self._check.ca_file)
        if self._check.readyz.enabled and self._trust.is_blind:
            message = (
                "no CA file of the cluster is known: /readyz is asked without checking "
                "certificates; health_check.readyz.ca_file names one, or none"
            )
            self._sink(kinds.NO_CA, message, {})

    def _make_readyz(self, backend: SocketAddress) -> ReadyzProbe:
        trust = self._trust or Trust(None)
        check = self._check
        return ReadyzProbe(backend, check.path, trust.context, check.server_name)


def _about(backend: SocketAddress) -> str:
    return f"backend {backend}"


def _reason(backend: SocketAddress, health: Health) -> AgentError:
    cause = health.cause.value if health.cause else "unknown"
    detail = f" ({health.detail})" if health.detail else ""
    return AgentError(f"it is {health.state.value}: {cause}{detail}", where=str(backend))


def _fields(backend: SocketAddress, health: Health) -> dict[str, str]:
    cause = health.cause.value if health.cause else ""
    return {"BACKEND": str(backend), "STATE": health.state.value, "CAUSE": cause}
