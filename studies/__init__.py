"""Studies: one importable script per body of claims. `python -m studies` lists them.

Each module has a frozen dataclass `Config` (its command line), `run(config) -> DataTree`, and a
module docstring whose first line is its summary.
"""
