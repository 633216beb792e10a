"""Claims: verdicts from intervals that hold together."""

import numpy as np
import pytest

from statsgd.comparison import Claim, Quantity


def claim(*quantities, **options):
    return Claim("SGD does something.", "derived", quantities, **options)


def equal(measured, error, margin=0.05, **options):
    return Quantity("variance", measured, error, 2.0, "=", margin, **options)


@pytest.mark.parametrize(
    ("quantity", "verdict"),
    [
        # Margin 5 % of 2 is 0.1; the interval of one quantity at 95 % has 1.96 standard errors.
        (equal(2.04, 0.03), "holds within 5 %"),  # 2.04 + 0.0588 < 2.1
        (equal(2.04, 0.04), "undecided"),  # 2.04 + 0.0784 > 2.1
        (equal(2.18, 0.04), "does not hold"),  # 2.18 − 0.0784 > 2.1
        (equal(1.82, 0.04), "does not hold"),
        (equal(2.04, 0.0, predicted_error=0.04), "undecided"),
        (Quantity("excess", 0.3, 0.1, 0.0, ">"), "holds"),
        (Quantity("excess", 0.1, 0.1, 0.0, ">"), "undecided"),
        (Quantity("excess", -0.3, 0.1, 0.0, ">"), "does not hold"),
        (Quantity("excess", -0.3, 0.1, 0.0, "<"), "holds"),
        (Quantity("slope", 0.01, 0.001, 0.0, "=", 0.02), "holds"),  # absolute where 0 is claimed
    ],
)
def test_verdict_of_one_quantity(quantity, verdict):
    assert claim(quantity).verdict == verdict


def test_one_quantity_that_does_not_hold_fails_the_claim():
    good, wide, bad = equal(2.0, 0.01), equal(2.0, 0.2), equal(3.0, 0.01)
    assert claim(good, wide).verdict == "undecided"
    assert claim(good, wide, bad).verdict == "does not hold"
    assert claim(good, equal(2.0, 0.01, 0.1)).verdict == "holds within 10 %"


@pytest.mark.slow
def test_intervals_hold_together():
    # Bonferroni over 10 intervals at 95 %: the normal quantile of 1 − 0.0025 is 2.807.
    assert claim(*[equal(2.0, 0.01)] * 10).width == pytest.approx(2.8070337683)
    # Ten true equalities judged from noisy measurements fail together in at most 5 % of claims.
    rng = np.random.default_rng(0)
    repeats, rejected = 2000, 0
    for _ in range(repeats):
        noisy = 2.0 + 0.1 * rng.standard_normal(10)
        rejected += claim(*(equal(float(x), 0.1, 1e-9) for x in noisy)).verdict == "does not hold"
    rate = rejected / repeats  # 1 − (1 − 0.005)^10 = 0.0489, standard error 0.0048
    assert abs(rate - 0.0489) < 4 * 0.0048


def test_table_and_tree_keep_everything():
    tree = claim(equal(2.0, 0.01), Quantity("excess", 0.3, 0.1, 0.0, ">"), why="seen").to_datatree()
    assert tree.attrs["kind"] == "claim"
    assert tree.attrs["statement"] == "SGD does something."
    assert tree.attrs["why"] == "seen"
    assert list(tree["table/verdict"].values) == ["holds", "holds"]
    assert list(tree["table/relation"].values) == ["=", ">"]


def test_bad_quantities_are_named():
    with pytest.raises(ValueError, match="measured of 'variance' must be finite, got nan"):
        equal(float("nan"), 0.1)
    with pytest.raises(ValueError, match="standard_error of 'variance' must be >= 0, got -1"):
        equal(2.0, -1.0)
    with pytest.raises(ValueError, match="margin of 'variance' must be positive for an equality"):
        equal(2.0, 0.1, 0.0)
    with pytest.raises(ValueError, match="relation must be one of"):
        Quantity("variance", 1.0, 0.1, 1.0, "~")
    with pytest.raises(ValueError, match="a claim must have quantities"):
        claim()
