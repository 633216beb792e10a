"""Claims on networks that are trained on one data set."""

from collections.abc import Sequence

from statsgd.comparison import Claim, Quantity


def claim(
    statement: str,
    source: str,
    quantities: Sequence[Quantity],
    why: str,
    origin: str,
    place: str,
    unit: str = "replicas",
) -> Claim:
    """A claim on networks that are trained on one data set."""
    return Claim(
        statement, source, quantities, why, origin=origin, place=place, data_sets=1, unit=unit
    )
