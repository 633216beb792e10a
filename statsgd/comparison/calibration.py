"""Tests of the tests: how often they reject where they should not, and where they should."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from statsgd.arguments import count, fraction, one_of, positive
from statsgd.comparison.permutation import permutation_outcome
from statsgd.comparison.stein import stein_outcome
from statsgd.comparison.two_sample import STATISTICS

#: Every test that can be calibrated.
CALIBRATED_TESTS = (*STATISTICS, "kernel_stein_discrepancy")

#: Repeats computed at once.
_BATCH = 20
#: Distance of the wells of the mixture from the middle, in standard deviations of one.
_WELL = 3.0


class Setting(NamedTuple):
    """A situation in which a test is tried, in the plane."""

    name: str
    draw: Callable[[Any, int], Any]
    """`(key, n) -> (n, d)`: points of what is tested."""
    reference: Callable[[Any, int], Any]
    """`(key, n) -> (n, d)`: draws from what is claimed."""
    log_density: Callable[[Any], Any]
    """Of what is claimed, up to a constant."""


def normal_setting(name: str, variance_ratio: float = 1.0) -> Setting:
    """Standard normal points in the plane, all variances multiplied by `variance_ratio`.

    >>> import jax
    >>> points = normal_setting("too wide", variance_ratio=4.0).draw(jax.random.key(0), 1000)
    >>> points.shape, round(float(points.std()))
    ((1000, 2), 2)
    """
    scale = float(np.sqrt(positive("variance_ratio", variance_ratio)))

    def reference(key, number):
        return jax.random.normal(key, (number, 2))

    def draw(key, number):
        return scale * reference(key, number)

    return Setting(name, draw, reference, lambda x: -0.5 * jnp.sum(x**2))


def wells_setting(name: str, weight_shift: float = 0.0) -> Setting:
    """Two round wells 6 standard deviations apart, the left one of weight ½ + `weight_shift`.

    >>> import jax
    >>> points = wells_setting("shifted", weight_shift=0.4).draw(jax.random.key(0), 1000)
    >>> round(float((points[:, 0] < 0).mean()), 1)
    0.9
    """
    shift = float(weight_shift)

    def points(key, number, weight):
        well, place = jax.random.split(key)
        side = jnp.where(jax.random.uniform(well, (number,)) < weight, -_WELL, _WELL)
        return jax.random.normal(place, (number, 2)).at[:, 0].add(side)

    def log_density(x):
        centred = jnp.stack([x[0] + _WELL, x[0] - _WELL])
        return jax.nn.logsumexp(-0.5 * centred**2) - 0.5 * x[1] ** 2

    return Setting(
        name,
        lambda key, number: points(key, number, 0.5 + shift),
        lambda key, number: points(key, number, 0.5),
        log_density,
    )


def standard_settings() -> tuple[Setting, Setting]:
    """What every test is tried against: a 10 % error of variance, a 5 % shift between wells.

    >>> [setting.name for setting in standard_settings()]
    ['variance 10 % too large', '5 % of the weight moved between wells']
    """
    return (
        normal_setting("variance 10 % too large", 1.1),
        wells_setting("5 % of the weight moved between wells", 0.05),
    )


def calibrate(
    tests: Sequence[str] = CALIBRATED_TESTS,
    settings: Sequence[Setting] | None = None,
    *,
    repeats: int,
    points: int,
    references: int | None = None,
    permutations: int = 99,
    level: float = 0.05,
    seed: int,
) -> pd.DataFrame:
    """How often each test rejects at `level` in each setting, over independent repeats.

    **Arguments:** `tests`, names from `CALIBRATED_TESTS`; `settings`, by default
    `[normal_setting("null")]`, where the rate of rejection is the size of the test, which should
    be `level`; with `standard_settings()` it is the power. Every repeat draws `points` points and
    `references` reference points (by default as many; the Stein test uses none) and
    `permutations` relabellings, for which `level·(permutations + 1)` should be whole. Unequal
    numbers of points leave fewer ties, and so less conservative Kolmogorov–Smirnov tests.

    **Returns** one row for every setting and test: rate, its binomial standard error, and the
    sizes. Raises `ValueError` for unknown tests and empty sizes.

    >>> table = calibrate(["energy"], repeats=20, points=20, permutations=19, seed=0)
    >>> table[["setting", "test", "repeats", "points"]].to_dict("records")
    [{'setting': 'null', 'test': 'energy', 'repeats': 20, 'points': 20}]
    """
    names = [one_of("tests", name, CALIBRATED_TESTS) for name in tests]
    count("repeats", repeats)
    sizes = count("points", points, at_least=2), count("references", references or points)
    level = float(fraction("level", level))
    count("permutations", permutations)
    chosen = [normal_setting("null")] if settings is None else list(settings)
    rows = []
    for index, setting in enumerate(chosen):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), index), repeats)
        p_values = _repeat(setting, tuple(names), *sizes, permutations, keys)
        for name, values in p_values.items():
            rate = float(np.mean(np.asarray(values) <= level * (1 + 1e-6)))
            rows.append(
                {
                    "setting": setting.name,
                    "test": name,
                    "rate": rate,
                    "standard_error": float(np.sqrt(rate * (1 - rate) / repeats)),
                    "level": level,
                    "points": sizes[0],
                    "references": sizes[1],
                    "permutations": permutations,
                    "repeats": repeats,
                }
            )
    return pd.DataFrame(rows)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _repeat(
    setting: Setting, names: tuple[str, ...], points: int, references: int, permutations: int, keys
) -> Mapping[str, Any]:
    """p-values of every test, one for each key."""

    def once(key):
        of_points, of_references, of_test = jax.random.split(key, 3)
        x = setting.draw(of_points, points)
        y = setting.reference(of_references, references)
        p_values = {}
        # All tests share the data and relabellings of a repeat: their rates are compared fairly.
        for name in names:
            if name in STATISTICS:
                outcome = permutation_outcome(STATISTICS[name], x, y, of_test, permutations)
            else:
                score = jax.vmap(jax.grad(setting.log_density))(x)
                outcome = stein_outcome(x, score, of_test, permutations)
            p_values[name] = outcome.p_value
        return p_values

    return jax.lax.map(once, keys, batch_size=_BATCH)
