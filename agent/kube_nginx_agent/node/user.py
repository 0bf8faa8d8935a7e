"""Becoming the user that the agent runs as, to see what that user would see."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from kube_nginx_agent.node.files import owner_of


def become_owner_of(folder: Path) -> None:
    """Give root's rights up for those of the user that ``folder`` belongs to, for good.

    Does nothing where we are not root, or the folder is root's, or is not there. A folder of a
    user without an entry in the user database, as in a container, is enough.
    """
    uid = owner_of(folder)
    if os.geteuid() or not uid:
        return
    try:
        gid = pwd.getpwuid(uid).pw_gid
    except KeyError:
        gid = uid
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
