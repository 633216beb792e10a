"""Random losses on the line, and the check that a law of them knows its error."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jaxtyping import Float
from scipy.stats import kstest

LEVELS = np.array([0.01, 0.2, 0.5, 0.77, 0.999])
NODES, WEIGHTS = np.polynomial.legendre.leggauss(30)
#: What the rule and the ends of the support leave.
ROUNDING = 1e-10


class RandomWells(eqx.Module):
    """The least of parabolas, with a kink of its own, and at most five wells."""

    places: Float[np.ndarray, " 5"]
    heights: Float[np.ndarray, " 5"]
    curvatures: Float[np.ndarray, " 5"]
    kink: Float[np.ndarray, " 2"]

    def __call__(self, x):
        x = x[..., :1]
        branches = self.heights + self.curvatures * (x - self.places) ** 2 / 2
        return jnp.min(branches, axis=-1) + self.kink[0] * jnp.abs(x[..., 0] - self.kink[1])

    def at(self, x):
        x = np.asarray(x)
        branches = self.heights + self.curvatures * (x[..., None] - self.places) ** 2 / 2
        return np.min(branches, axis=-1) + self.kink[0] * np.abs(x - self.kink[1])

    def first(self, number):
        """Without the branches that are infinitely high."""
        kept = slice(number)
        return RandomWells(self.places[kept], self.heights[kept], self.curvatures[kept], self.kink)

    def breaks(self, temperature):
        """Where the loss has a kink, and a few widths about every well."""
        found = [self.kink[1] + temperature / (self.kink[0] + 1e-300) * np.array([-9, -1, 0, 1, 9])]
        for i, (place, h) in enumerate(zip(self.places, self.curvatures, strict=True)):
            found.append(place + np.sqrt(temperature / h) * np.arange(-10, 11))
            for j in range(i):
                curved = (h - self.curvatures[j]) / 2
                linear = self.curvatures[j] * self.places[j] - h * place
                squares = h * place**2 - self.curvatures[j] * self.places[j] ** 2
                constant = squares / 2 + self.heights[i] - self.heights[j]
                roots = np.roots([curved, linear, constant])
                found.append(roots[np.isreal(roots)].real)
        return np.unique(np.concatenate(found))


def integrals(log_density, breaks, low, high):
    """The integral of the density times a function, between any two ends: Gauss, by bisection."""

    def gauss(function, begin, end):
        x = begin[:, None] + (end - begin)[:, None] * (1 + NODES) / 2
        return (function(x) * np.exp(log_density(x))) @ WEIGHTS * (end - begin) / 2

    def over(begin, end, function=np.ones_like):
        ends = np.array([begin, *breaks[(breaks > begin) & (breaks < end)], end])
        left, right, total, scale = ends[:-1], ends[1:], 0.0, 0.0
        for _ in range(40):
            middle = (left + right) / 2
            whole = gauss(function, left, right)
            halves = gauss(function, left, middle) + gauss(function, middle, right)
            scale = max(scale, np.sum(np.abs(halves)))
            bad = np.abs(halves - whole) > 1e-12 * scale
            total += np.sum(halves[~bad])
            left, right = (
                np.concatenate(ends)
                for ends in ((left[bad], middle[bad]), (middle[bad], right[bad]))
            )
        return total

    return over, over(low, high)


def assert_within_what_is_stated(law, log_density, breaks, rounding=0.0):
    """`rounding` is that of `log_density`, where it subtracts large numbers."""
    low, high = float(law.support.low), float(law.support.high)
    over, normalizer = integrals(log_density, breaks, low, high)
    stated = float(law.error_estimate) + ROUNDING + rounding
    # Of the two densities, which are normalised differently.
    middle = float(law.table.center)
    offset = float(log_density(middle) + law.potentials(np.array([middle])))
    assert abs(law.log_normalizer() - np.log(normalizer) + offset) < stated
    mean = over(low, high, lambda x: x) / normalizer
    assert abs(law.mean()[0] - mean) < stated * (high - low)
    spread = over(low, high, lambda x: (x - mean) ** 2) / normalizer
    assert abs(law.covariance()[0, 0] - spread) < 2 * stated * (high - low) ** 2
    for level, x in zip(LEVELS, law.quantile(LEVELS)[:, 0], strict=True):
        assert abs(over(low, x) / normalizer - level) < stated
        assert abs(law.cdf(np.array([x]))[0] - level) < stated
    levels = law.cdf(law.draw(jax.random.key(0), (400,)))[:, 0]
    assert kstest(levels, "uniform").pvalue > 1e-4
    return stated


def random_wells(seed, number, scale, kink, lowest=0.0):
    """Wells with heights within six times `scale` above the first one, at `lowest`."""
    rng = np.random.default_rng(seed)
    heights = np.full(5, np.inf)
    heights[:number] = lowest + rng.uniform(0, 6 * scale, number)
    heights[0] = lowest
    # A kink less steep than would push the wells around.
    slope = kink * min(np.sqrt(scale), 1.0)
    return RandomWells(
        np.sort(rng.uniform(-3, 3, 5)), heights, 10 ** rng.uniform(-1, 2, 5), np.array([slope, 0.3])
    )


WELLS = {
    "seed": st.integers(0, 10**6),
    "number": st.integers(1, 5),
    "log_temperature": st.floats(-7, 1),
    "kink": st.sampled_from([0.0, 0.5]),
}
