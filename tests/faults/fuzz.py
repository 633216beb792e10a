"""Cases that Hypothesis makes up, as many as asked for, the same ones for the same seed."""

from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from tests.faults.tally import Tally


def explored(cases: SearchStrategy, judge: Callable[[Any], Tally], trials: int, seed: int) -> Tally:
    """What becomes of `trials` cases."""
    total = Tally()

    @hypothesis.seed(seed)
    @settings(
        max_examples=trials,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def each(case: Any) -> None:
        nonlocal total
        total += judge(case)

    each()
    return total
