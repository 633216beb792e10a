"""Where a law holds: the dimensionless numbers that it takes for small, and how large they may be.

The bounds are measured: up to them the total variation between the marginals of a law and of the
chain is at most 5 % on the problems of the atlas, and on those that a law names.
"""

from collections.abc import Sequence
from typing import NamedTuple


class SmallNumber(NamedTuple):
    """A dimensionless number that a law takes for small."""

    name: str
    value: float
    bound: float
    """The largest value in the domain of the law."""

    @property
    def small(self) -> bool:
        """Whether the number is within its bound; one that is no number is not."""
        # Numbers are products of rounded ones: at the bound they are within it.
        return bool(self.value <= self.bound * (1 + 1e-9))

    def __str__(self) -> str:
        sign = "≤" if self.small else ">"
        return f"{self.name} = {self.value:.3g} {sign} {self.bound:g}"


def outside(numbers: Sequence[SmallNumber]) -> str:
    """Which of the numbers leave the domain, in words; empty inside it."""
    large = [str(number) for number in numbers if not number.small]
    return f"outside its domain: {', '.join(large)}" if large else ""
