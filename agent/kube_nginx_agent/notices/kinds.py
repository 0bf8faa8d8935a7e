"""The kinds of things that are worth a line in the journal, each with an id of its own.

``journalctl MESSAGE_ID=...`` finds them, and the message catalog (``packaging/catalog``) explains
each: what it means and what to do.
"""

from __future__ import annotations

import syslog
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of event: a name for people, its MESSAGE_ID, and its priority as in syslog(3)."""

    name: str
    message_id: str
    priority: int


AGENT_STARTED = Kind("agent started", "b17c3f5c0a9b4d0f8a55f0f0e6b7c101", syslog.LOG_INFO)
AGENT_STOPPED = Kind("agent stopped", "b17c3f5c0a9b4d0f8a55f0f0e6b7c102", syslog.LOG_INFO)
AGENT_FAILED = Kind("agent failed", "b17c3f5c0a9b4d0f8a55f0f0e6b7c103", syslog.LOG_CRIT)
CONFIG_ACCEPTED = Kind(
    "configuration accepted", "b17c3f5c0a9b4d0f8a55f0f0e6b7c201", syslog.LOG_INFO
)
CONFIG_REFUSED = Kind("configuration refused", "b17c3f5c0a9b4d0f8a55f0f0e6b7c202", syslog.LOG_ERR)
CONFIG_UNWISE = Kind("configuration unwise", "b17c3f5c0a9b4d0f8a55f0f0e6b7c203", syslog.LOG_WARNING)
GENERATION_LIVE = Kind("generation live", "b17c3f5c0a9b4d0f8a55f0f0e6b7c301", syslog.LOG_NOTICE)
APPLY_FAILED = Kind("apply failed", "b17c3f5c0a9b4d0f8a55f0f0e6b7c302", syslog.LOG_ERR)
LIVE_RESTORED = Kind("live config restored", "b17c3f5c0a9b4d0f8a55f0f0e6b7c303", syslog.LOG_WARNING)
GENERATION_CUT = Kind(
    "old generation ended", "b17c3f5c0a9b4d0f8a55f0f0e6b7c304", syslog.LOG_WARNING
)
LISTEN_FAILED = Kind("address not listened on", "b17c3f5c0a9b4d0f8a55f0f0e6b7c305", syslog.LOG_ERR)
NAME_FAILED = Kind("name not resolved", "b17c3f5c0a9b4d0f8a55f0f0e6b7c401", syslog.LOG_WARNING)
NAME_CHANGED = Kind("name resolved", "b17c3f5c0a9b4d0f8a55f0f0e6b7c402", syslog.LOG_INFO)
NAME_VARIES = Kind("name varies", "b17c3f5c0a9b4d0f8a55f0f0e6b7c403", syslog.LOG_NOTICE)
ADDRESS_LEFT_OUT = Kind("address left out", "b17c3f5c0a9b4d0f8a55f0f0e6b7c404", syslog.LOG_WARNING)
FAMILY_LEFT_OUT = Kind("family left out", "b17c3f5c0a9b4d0f8a55f0f0e6b7c405", syslog.LOG_INFO)
BACKEND_DOWN = Kind("backend down", "b17c3f5c0a9b4d0f8a55f0f0e6b7c701", syslog.LOG_WARNING)
BACKEND_DRAINING = Kind("backend draining", "b17c3f5c0a9b4d0f8a55f0f0e6b7c702", syslog.LOG_WARNING)
BACKEND_UP = Kind("backend up", "b17c3f5c0a9b4d0f8a55f0f0e6b7c703", syslog.LOG_NOTICE)
ALL_DOWN = Kind("all backends down", "b17c3f5c0a9b4d0f8a55f0f0e6b7c704", syslog.LOG_CRIT)
SESSIONS_CUT = Kind("sessions cut", "b17c3f5c0a9b4d0f8a55f0f0e6b7c705", syslog.LOG_NOTICE)
CUT_FAILED = Kind("sessions not cut", "b17c3f5c0a9b4d0f8a55f0f0e6b7c706", syslog.LOG_ERR)
NO_CA = Kind("certificates unchecked", "b17c3f5c0a9b4d0f8a55f0f0e6b7c707", syslog.LOG_NOTICE)
PROBES_MISSING = Kind("probes missing", "b17c3f5c0a9b4d0f8a55f0f0e6b7c70a", syslog.LOG_ERR)
SESSIONS_UNSEEN = Kind("sessions not seen", "b17c3f5c0a9b4d0f8a55f0f0e6b7c709", syslog.LOG_WARNING)
NGINX_ENDED = Kind("nginx ended", "b17c3f5c0a9b4d0f8a55f0f0e6b7c501", syslog.LOG_ERR)
NGINX_HUNG = Kind("nginx hung", "b17c3f5c0a9b4d0f8a55f0f0e6b7c502", syslog.LOG_ERR)
NGINX_SAYS = Kind("nginx complains", "b17c3f5c0a9b4d0f8a55f0f0e6b7c503", syslog.LOG_WARNING)
NGINX_UPGRADED = Kind("nginx upgraded", "b17c3f5c0a9b4d0f8a55f0f0e6b7c504", syslog.LOG_NOTICE)
UPGRADE_FAILED = Kind("nginx upgrade failed", "b17c3f5c0a9b4d0f8a55f0f0e6b7c505", syslog.LOG_ERR)
NGINX_FULL = Kind("nginx full", "b17c3f5c0a9b4d0f8a55f0f0e6b7c506", syslog.LOG_ERR)
WATCH_LOST = Kind("file watch lost", "b17c3f5c0a9b4d0f8a55f0f0e6b7c601", syslog.LOG_WARNING)
RUN_FOLDER_REPAIRED = Kind(
    "run folder repaired", "b17c3f5c0a9b4d0f8a55f0f0e6b7c602", syslog.LOG_WARNING
)
INTERNAL = Kind("internal error", "b17c3f5c0a9b4d0f8a55f0f0e6b7c104", syslog.LOG_ERR)
REPORT_FAILED = Kind("report failed", "b17c3f5c0a9b4d0f8a55f0f0e6b7c603", syslog.LOG_WARNING)
PROBLEM_SOLVED = Kind("problem solved", "b17c3f5c0a9b4d0f8a55f0f0e6b7c901", syslog.LOG_NOTICE)

ALL = tuple(kind for kind in list(globals().values()) if isinstance(kind, Kind))
