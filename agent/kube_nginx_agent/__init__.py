"""Keeps a node-local nginx pointed at the kube-apiservers that work."""

__version__ = "0.1.0"
