"""What would be made of a backends.yaml, found out without a running agent."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from functools import partial
from typing import Tuple

from kube_nginx_agent.config.load import Loaded, load_config
from kube_nginx_agent.desired import desire, left_out
from kube_nginx_agent.inbox import NameAnswered
from kube_nginx_agent.intake.backends_file import Content, read_content
from kube_nginx_agent.intake.ca_file import refusal
from kube_nginx_agent.intake.resolver import resolve
from kube_nginx_agent.intake.unused_addresses import problems_of
from kube_nginx_agent.model import Desired, HostName
from kube_nginx_agent.node.facts import look_at_node
from kube_nginx_agent.node.paths import Paths
from kube_nginx_agent.node.starting import start_thread


@dataclass(frozen=True)
class Preview:
    """The desired state, and what is worth a warning on the way to it."""

    desired: Desired
    warnings: Tuple[str, ...]


def preview(paths: Paths, content: Content | None = None) -> Preview:
    """Read the file, unless its content is given, and ask DNS as the agent would.

    Raise AgentError.
    """
    content = content or read_content(paths.config)
    if content.error:
        raise content.error
    node = look_at_node()
    loaded = load_config(content.data, str(paths.config), node.addresses)
    flaw = refusal(loaded.config.health_check.ca_file)
    if flaw:
        raise flaw
    answers = _resolve(loaded)
    resolved = {answer.name: answer.addresses for answer in answers if not answer.error}
    desired = desire(loaded.config, resolved, node)
    warnings = [problem.describe(str(paths.config)) for problem in loaded.warnings]
    warnings += [f"{a.name}: it can't be resolved: {a.error}" for a in answers if a.error]
    unused = left_out(loaded.config, resolved, node, desired.listen)
    warnings += [str(problem.error) for problem in problems_of(unused)]
    return Preview(desired, tuple(warnings))


def _resolve(loaded: Loaded) -> list[NameAnswered]:
    """Ask for all names at once; in threads that an interrupt need not wait for."""
    targets = (backend.target for backend in loaded.config.backends)
    names = sorted({target.name for target in targets if isinstance(target, HostName)})
    answers: queue.SimpleQueue[NameAnswered] = queue.SimpleQueue()
    for name in names:
        ask = partial(_ask, name, answers)
        start_thread(f"dns-{name}", ask)
    return sorted((answers.get() for _ in names), key=lambda answer: answer.name)


def _ask(name: str, answers: queue.SimpleQueue[NameAnswered]) -> None:
    answers.put(resolve(name))
