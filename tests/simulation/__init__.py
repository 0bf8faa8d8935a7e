"""The real agent in a world of arithmetic: clock, disk, nginx and backends are made here.

Everything that decides is the product's own code, the loop included. A seed makes the faults, so
what fails once fails again (`python -m simulation --help`).
"""
