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


@pytest.mark.parametrize(
    ("measured", "error", "verdict"),
    [
        # Margin 5 %; an interval of 1.96 errors that leaves out the prediction is a difference.
        (2.04, 0.01, "holds to within 3 %"),  # 2 % + 1.96·0.5 % = 2.98 %
        (1.96, 0.01, "holds to within 3 %"),
        (2.04, 0.021, "holds within 5 %"),  # 2 % − 1.96·1.05 % < 0
        (2.04, 0.0, "holds within 5 %"),  # computed: without an interval
        (2.2, 0.01, "does not hold"),
    ],
)
def test_what_is_resolved_but_small_is_told(measured, error, verdict):
    assert claim(equal(measured, error)).verdict == verdict


def test_few_units_widen_the_interval():
    # Student's 97.5 % quantile with 7 degrees of freedom is 2.3646, the normal one 1.9600.
    many, few = (Quantity("x", 1.0, 0.5, 0.0, ">", clusters=n) for n in (None, 8))
    assert many.interval(1.959964) == pytest.approx((1 - 0.97998, 1 + 0.97998), abs=1e-5)
    assert few.interval(1.959964) == pytest.approx((1 - 1.18231, 1 + 1.18231), abs=1e-5)
    assert claim(many).verdict == "holds"
    assert claim(few).verdict == "undecided"
    with pytest.raises(ValueError, match="clusters of 'x' must be at least 2, got 1"):
        Quantity("x", 1.0, 0.5, 0.0, ">", clusters=1)


def test_differences_are_told_in_per_cent():
    row = claim(equal(2.04, 0.01)).table().iloc[0]
    expected = (2.0, 2.0 - 0.979982, 2.0 + 0.979982)
    columns = ["difference_percent", "low_percent", "high_percent"]
    np.testing.assert_allclose(row[columns].astype(float), expected, rtol=1e-5)
    assert np.isnan(Quantity("x", 1.0, 0.5, 0.0, ">").percent(2.0)).all()


def test_a_changed_claim_keeps_its_first_form():
    first = claim(equal(3.0, 0.01))
    tree = claim(equal(2.0, 0.01), first_form=first).to_datatree()
    assert tree.attrs["verdict"] == "holds within 5 %"
    assert tree["first_form"].attrs["verdict"] == "does not hold"


def test_what_a_claim_does_not_say_is_missing():
    assert claim(equal(2.0, 0.01)).missing == ("origin", "unit", "place", "data_sets")
    rests = {"origin": "derived", "data_sets": 0, "unit": "computed"}
    assert claim(equal(2.0, 0.01), **rests).missing == ()
    assert claim(equal(2.0, 0.01), **rests | {"origin": "reading"}).missing == ("place",)
    with pytest.raises(ValueError, match="origin must be one of 'source', 'reading'"):
        claim(equal(2.0, 0.01), origin="theirs")
    with pytest.raises(ValueError, match="data_sets must be at least 0, got -1"):
        claim(equal(2.0, 0.01), data_sets=-1)


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
