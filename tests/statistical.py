"""Assertions that carry their own error bars: they fail on bias, not on bad luck."""

import numpy as np

SIGMAS = 4.0


def assert_mean_within(samples, expected, *, resolve=1.1, sigmas=SIGMAS):
    """Means over axis 0 of independent `samples` equal `expected` within `sigmas` standard errors.

    Also asserts that the test could see a wrong factor `resolve`: where `expected` is not zero, the
    error bar must be smaller than the difference that factor makes.
    """
    samples, expected = np.asarray(samples, dtype=float), np.asarray(expected, dtype=float)
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    seen = (resolve - 1) * np.abs(expected)
    blunt = (expected != 0) & (sigmas * error > seen)
    assert not np.any(blunt), f"too few samples: error {error}, needed below {seen / sigmas}"
    off = np.abs(samples.mean(axis=0) - expected) / np.where(error > 0, error, 1e-300)
    assert np.all(off <= sigmas), f"mean {samples.mean(axis=0)} against {expected}: {off} sigmas"


def assert_variance_within(samples, expected, *, mean=None, resolve=1.1, sigmas=SIGMAS):
    """As `assert_mean_within`, for variances about `mean` (the sample mean by default)."""
    samples = np.asarray(samples, dtype=float)
    centre = samples.mean(axis=0) if mean is None else mean
    assert_mean_within((samples - centre) ** 2, expected, resolve=resolve, sigmas=sigmas)


def assert_printed(value, printed):
    """`value` equals a number known to the digits `printed` shows: rtol 1e-6 plus half a unit.

    `printed` is text, so that trailing zeros count.
    """
    number = float(printed)
    mantissa = printed.lower().split("e")
    decimals = len(mantissa[0].split(".")[1]) if "." in mantissa[0] else 0
    exponent = int(mantissa[1]) if len(mantissa) > 1 else 0
    tolerance = 0.5 * 10.0 ** (exponent - decimals) + 1e-6 * abs(number)
    assert abs(float(value) - number) <= tolerance, f"{float(value)!r} against {printed}"
