"""One potential of independent parts, with exact draws of exp(−U/T) and its exact moments.

Kernels whose proposals act coordinate by coordinate see all parts at once, in one compilation.
"""

import jax.numpy as jnp
import numpy as np

STUDENT, FUNNEL = 30.0, 0.5
PARTS = ("wide", "narrow", "skewed", "student", "neck", "mouth", "wells")
_GRID = np.linspace(-40, 40, 400001)


def skewed(x, xp=jnp):
    # A Gumbel law: all moments, no symmetry.
    return 0.8 * x + xp.exp(-0.8 * x)


def student(x, xp=jnp):
    return (STUDENT + 1) / 2 * xp.log1p(x**2 / STUDENT)


def wells(x, xp=jnp):
    return (x**2 - 1) ** 2 - 0.15 * x


def potential(z):
    """U of the seven coordinates `PARTS`."""
    funnel = z[4] ** 2 / 2 + z[5] ** 2 * jnp.exp(-FUNNEL * z[4]) / 2 + FUNNEL * z[4] / 2
    return z[0] ** 2 / 2 + 50 * z[1] ** 2 + skewed(z[2]) + student(z[3]) + funnel + wells(z[6])


def draw(random, temperature, number):
    """`(number, 7)` independent draws from exp(−U/T)."""
    t = temperature
    noise = random.standard_normal((number, 4))
    neck = FUNNEL * (t - 1) / 2 + np.sqrt(t) * noise[:, 2]
    mouth = np.sqrt(t) * np.exp(FUNNEL * neck / 2) * noise[:, 3]
    wide, narrow = np.sqrt(t) * noise[:, 0], np.sqrt(t) * noise[:, 1] / 10
    line = [
        np.interp(random.random(number), *_distribution(part, t))
        for part in (skewed, student, wells)
    ]
    return np.stack([wide, narrow, line[0], line[1], neck, mouth, line[2]], axis=1)


def expected(temperature):
    """Mean, variance and 0.9 quantile of each coordinate, by formula or quadrature."""
    t = temperature
    centre = FUNNEL * (t - 1) / 2
    spread = t * np.exp(FUNNEL * centre + FUNNEL**2 * t / 2)
    normal = 1.2815515655446004
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    scale = np.sqrt(t) * np.exp(FUNNEL * (centre + np.sqrt(t) * nodes) / 2)
    rows = {
        "wide": (0, t, normal * np.sqrt(t)),
        "narrow": (0, t / 100, normal * np.sqrt(t) / 10),
        "neck": (centre, t, centre + normal * np.sqrt(t)),
        "mouth": (0, spread, _mixture_quantile(scale, weights / weights.sum())),
    }
    for name, part in (("skewed", skewed), ("student", student), ("wells", wells)):
        mass, grid = _distribution(part, t)
        weight = np.gradient(mass)
        mean = np.sum(weight * grid)
        rows[name] = (mean, np.sum(weight * (grid - mean) ** 2), np.interp(0.9, mass, grid))
    return np.array([rows[name] for name in PARTS], dtype=float).T


def _distribution(part, temperature):
    with np.errstate(over="ignore"):
        log_density = -part(_GRID, np) / temperature
    density = np.exp(log_density - log_density.max())
    mass = np.cumsum(density) - density / 2
    mass /= density.sum()
    inside = np.concatenate([[True], np.diff(mass) > 0])
    return mass[inside], _GRID[inside]


def _mixture_quantile(scale, weights):
    from scipy.optimize import brentq
    from scipy.stats import norm

    return brentq(lambda x: np.sum(weights * norm.cdf(x / scale)) - 0.9, 0, 100)
