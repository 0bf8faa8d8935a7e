"""Stand-ins for what surrounds the agent: kube-apiservers, their certificates and their clients.

Standard library only, and every server or load is a process of its own, so that what is measured
is not the test runner's own scheduling.
"""
