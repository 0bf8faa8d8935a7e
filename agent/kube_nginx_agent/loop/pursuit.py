"""Brings nginx to the list that is wanted, or else keeps the live one as its backends are now."""

from __future__ import annotations

import time
from typing import Iterable, Sequence

from kube_nginx_agent.desired import LeftOut, NoServerError, addresses_of, left_out
from kube_nginx_agent.health.monitor import Monitor
from kube_nginx_agent.health.severing import Severer
from kube_nginx_agent.intake.intake import Intake, Wish
from kube_nginx_agent.intake.unused_addresses import FamilyNotes, problems_of
from kube_nginx_agent.loop.goals import Base, is_same, make_base, make_goal, wanted_listen
from kube_nginx_agent.model import Desired, Node
from kube_nginx_agent.nginx.apply import Proof
from kube_nginx_agent.nginx.data_plane import DataPlane
from kube_nginx_agent.nginx.decision import Goal
from kube_nginx_agent.nginx.listening import Listening
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.notices import kinds
from kube_nginx_agent.notices.journal import Sink
from kube_nginx_agent.notices.problems import Problem


class Pursuit:
    """Knows what is wanted and what is live, and has the data plane close the gap."""

    def __init__(  # noqa: PLR0913 - what it ties together
        self,
        paths: Paths,
        intake: Intake,
        monitor: Monitor,
        severer: Severer,
        data_plane: DataPlane,
        sink: Sink,
    ) -> None:
        """Take the parts; nothing happens before ``pursue``."""
        self._paths = paths
        self._intake = intake
        self._monitor = monitor
        self._severer = severer
        self._data_plane = data_plane
        self._listening = Listening(paths)
        self._sink = sink
        self._live: Base | None = None
        self._no_server: NoServerError | None = None
        self._unused: Sequence[LeftOut] = ()
        self._family_notes = FamilyNotes(sink)
        self.wanted: Goal | None = None
        """What nginx should serve, whether it can or not."""
        self.serving: Desired | None = None
        """What nginx does, and was proven to do."""

    @property
    def is_wanted_live(self) -> bool:
        """Whether nginx serves what it should."""
        return self.wanted is not None and self._data_plane.is_live(self.wanted)

    @property
    def has_failed(self) -> bool:
        """Whether the last try at what is wanted was a failure."""
        return self.wanted is not None and self._data_plane.has_failed(self.wanted)

    @property
    def is_anybody_served(self) -> bool:
        """Whether an apiserver passes its checks; a list without backends lacks none."""
        has_backends = self._live is not None and bool(self._live.backends)
        return not (has_backends and self._monitor.view().none_passes)

    def pursue(self, node: Node, now: float, *, afresh: bool) -> bool:
        """Take one turn. Return False if the wanted list has to wait for a moment.

        ``afresh``: what keeps nginx from listening is to be found out again.
        """
        if self._data_plane.master is None:
            self._data_plane.observe(now)  # whose listen addresses are nobody's but its own
        self._look_at_listen(node, afresh=afresh)
        wanted, is_decided = self._wanted_base(node, now)
        bases = self._candidates(wanted, node)
        self._follow(bases, now)
        if wanted and self._monitor.is_waiting_for_first_look(now):
            bases, is_decided = bases[1:], False
        self._approach(bases, wanted, now)
        return is_decided

    def problems(self) -> Iterable[Problem]:
        """Yield what keeps the wanted list from being served as it is written."""
        if self._no_server:
            yield Problem("names", kinds.NAME_FAILED, self._no_server)
        yield from problems_of(self._unused)
        yield from self._listening.problems()

    def _look_at_listen(self, node: Node, *, afresh: bool) -> None:
        wishes = (wish for wish in (self._intake.wanted, self._intake.live) if wish)
        wanted = {address for wish in wishes for address in wanted_listen(wish, node)}
        live = frozenset(self.serving.listen if self.serving else ())
        self._listening.look(wanted, live, self._data_plane.master, afresh=afresh)

    def _wanted_base(self, node: Node, now: float) -> tuple[Base | None, bool]:
        """Return what the newest list means on this node, and whether that is decided yet."""
        self._no_server = None
        if self._intake.wanted is None:
            return None, self._intake.has_looked
        if self._intake.is_waiting_for_names(now):
            return None, False
        self._note_unused(self._intake.wanted, node)
        try:
            return self._base(self._intake.wanted, node), True
        except NoServerError as error:
            self._no_server = error
            return None, True

    def _note_unused(self, wish: Wish, node: Node) -> None:
        """Note which addresses that the list stands for are not used, and why."""
        listen = wanted_listen(wish, node)
        self._unused = left_out(wish.config, self._intake.resolved, node, listen)
        self._family_notes.note(self._unused)

    def _base(self, wish: Wish, node: Node) -> Base:
        usable = self._listening.usable(wanted_listen(wish, node))
        return make_base(wish, self._intake.resolved, node, usable)

    def _candidates(self, wanted: Base | None, node: Node) -> list[Base]:
        """Return what nginx could serve, the most wanted first.

        An edit; the live list as the node is now; and the live one as it was.
        """
        found = [wanted] if wanted else []
        if self._intake.live:
            try:
                renewed = self._base(self._intake.live, node)
            except NoServerError:
                renewed = None
            if renewed and not (wanted and is_same(renewed, wanted)):
                found.append(renewed)
            self._live = self._live or renewed
        if self._live and not any(is_same(self._live, base) for base in found):
            found.append(self._live)
        return found

    def _follow(self, bases: Sequence[Base], now: float) -> None:
        """Have the backends of all lists probed, and the sessions of the live one looked after."""
        backends = {address for base in bases for address in base.backends}
        if bases:
            self._monitor.want(backends, bases[0].wish.config.health_check, now)
        if self._live:
            # Whom DNS names no more, or whom this node can't reach by now, may well be healthy:
            # only what the administrator has taken from the list loses its sessions, and not what
            # a newer list, which is about to go live, has again.
            config, intake = self._live.wish.config, self._intake
            kept = addresses_of(config, intake.resolved) | addresses_of(config, intake.retired)
            listen = self.serving.listen if self.serving else self._live.listen
            self._severer.want(backends | kept, now, listen)

    def _approach(self, bases: Sequence[Base], wanted: Base | None, now: float) -> None:
        view, live = self._monitor.view(), self._live
        goals = [make_goal(base, view, self._paths, live=live) for base in bases]
        if wanted and bases and bases[0] is wanted:
            self.wanted = goals[0]
        if wanted and is_same(wanted, live):
            self._intake.take_edit_time()  # an edit of a comment; what comes is not its work
        proof = self._data_plane.reconcile(goals, now)
        for base, goal in zip(bases, goals):
            if self._data_plane.is_live(goal):
                self._note_live(base, goal, proof)
                break
        if not goals and self._intake.has_looked:
            self._data_plane.start_from_disk()

    def _note_live(self, base: Base, goal: Goal, proof: Proof | None) -> None:
        """Note what nginx serves, and clients by it."""
        self._live, self.serving = base, goal.desired
        self._severer.want_live(s.address for s in goal.desired.servers if not s.down)
        self._intake.note_live(base.wish)
        if proof is None or proof.generation != goal.generation:
            return
        edited_at = self._intake.take_edit_time() if goal is self.wanted else None
        after = time.time() - edited_at if edited_at else None
        # An older edit was made while no agent ran, or the clock has jumped.
        since_edit = f", {after * 1000:.0f} ms after the edit" if after and 0 < after < 60 else ""
        where = ", ".join(map(str, goal.desired.listen))
        self._sink(
            kinds.GENERATION_LIVE,
            f"generation {proof.generation} is live on {where}{since_edit} "
            f"(applied and proven in {proof.seconds * 1000:.0f} ms)",
            {"GENERATION": proof.generation, "NGINX_PID": str(proof.master.pid)},
        )
