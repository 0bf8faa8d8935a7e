"""A node and its apiservers on a network of their own, and everything that can go wrong there.

`make bench-faults` plays the faults to this agent and its peers, tests/faults plays shorter ones to
the agent alone.
"""
