"""Faults on purpose: what becomes of results when machines, files and users do their worst.

`python -m tests.faults` runs all of it in full and prints the table.
"""
