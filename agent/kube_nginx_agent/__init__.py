"""Keeps a node-local nginx pointed at the kube-apiservers that work."""

import sys

__version__ = "0.2.0"

# What our rpm carries for the systems that lack it. It comes last, so that the system's own goes
# first, and nobody has it but our commands. Elsewhere there is no such folder.
sys.path.append(f"{__path__[0]}/_carried")
