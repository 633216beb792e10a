"""Errata of the stationary law of diagonal networks: normalisation, depth, modes, interpolation."""

import jax.numpy as jnp
import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq

import statsgd
from statsgd.dynamics import Diffusion
from statsgd.laws import DiagonalNetworkLaw, FokkerPlanckLaw, InterpolationLaw
from statsgd.laws.grids.grid import Grid
from statsgd.laws.networks import DataMoments, absorption_probability, learning_regime
from statsgd.problems import landscape
from studies.atlas_families.family import Effort
from studies.errata.erratum import Curves, register

_SOURCE = "Ziyin, Li, Ueda (2023), arXiv:2308.06671"


def _layer_law(
    moments: DataMoments, layers: int, scale: float, decay: float, grid: Grid
) -> FokkerPlanckLaw:
    """The law of one layer u of a balanced network of width one, slope f = u^layers."""

    def drift(u):
        slope = u**layers
        return -2 * u ** (layers - 1) * (moments.b1 * slope - moments.b2) - decay * u

    def covariance(u):
        return (4 * u ** (2 * layers - 2) * moments.noise(u**layers))[..., None]

    return FokkerPlanckLaw(drift, covariance, scale, grid, reflecting=True)


@register(
    source=_SOURCE,
    printed="The exponent of the law, (1/T) ∫₀^f (b1 f − b2)/(A g) df, is finite: a lower limit "
    "near zero may be put to zero.",
    correction="For two and more layers the integral diverges at zero; with an indefinite integral "
    "the law is right.",
    evidence="The integral from ε to the best slope f = 1, by quadrature, two layers at T = 0.1.",
    title="Exponent of the two-layer law with lower limit ε",
    x="lower limit ε",
    y="integral from ε to 1",
    log="x",
)
def diverging_exponent(effort: Effort) -> Curves:
    """The integral in the exponent against its lower limit."""
    scale = 0.1
    moments = DataMoments.teacher(1, 2, 1, 1)
    law = DiagonalNetworkLaw(2, 1, moments, scale)

    def integral(low):
        def integrand(log_slope):
            slope = np.exp(log_slope)
            return (moments.b1 * slope - moments.b2) / (2 * moments.noise(slope) * scale)

        return quad(integrand, np.log(low), 0.0, limit=200)[0]

    def exponent(slope):
        weight = 1.5 * np.log(2 * slope) + np.log(moments.noise(slope))
        return float(np.squeeze(law.log_density(np.array([slope])))) + float(weight)

    at = np.geomspace(1e-8, 1e-1, 8)
    largest = integral(at[-1])
    return Curves(
        at, [integral(low) for low in at], lambda low: largest,
        lambda low: exponent(low) - exponent(1.0),
    )  # fmt: skip


@register(
    source=_SOURCE,
    printed="From T_c = b2/a3 on the network collapses to zero, at any depth.",
    correction="T_c belongs to two layers alone: deeper networks have a proper law at every T.",
    evidence="The Fokker–Planck equation of one layer of a balanced network of three layers.",
    title="Mean slope of a three-layer network beyond T_c",
    x="noise scale T/T_c",
    y="mean slope",
)
def critical_noise_at_depth(effort: Effort) -> Curves:
    """Three layers where two would have collapsed."""
    moments = DataMoments.teacher(1, 2, 1, 1)
    critical = float(moments.b2 / moments.a3)

    def truth(ratio):
        grid = Grid(0.02, 8.0, 4000)
        law = _layer_law(moments, 3, ratio * critical, 0.0, grid)
        return law.masses @ grid.centres() ** 3

    def corrected(ratio):
        return float(DiagonalNetworkLaw(3, 1, moments, ratio * critical).mean()[0])

    at = np.array([1.0, 1.5, 2.0, 3.0])
    return Curves(at, [truth(ratio) for ratio in at], lambda ratio: 0.0, corrected)


@register(
    source=_SOURCE,
    printed="The law of two layers has a local maximum at a positive slope up to the T* at which "
    "the discriminant of the mode equation vanishes.",
    correction="The roots must also be positive: for Gaussian inputs and σ > √(14/3) κ they are "
    "negative from T_c/3 on, where the maximum reaches zero.",
    evidence="Sign of the slope of the zero-flux density, scanned over f, with T bisected.",
    title="Largest noise with a positive mode, Gaussian inputs",
    x="label noise σ/κ",
    y="largest T/T_c with a positive mode",
    log="x",
)
def end_of_positive_modes(effort: Effort) -> Curves:
    """The upper end of the regimes with two modes."""

    def at_noise(level):
        return DataMoments.teacher(1, 2, 1, level)

    def bisected(level, has_mode):
        moments = at_noise(level)
        critical = float(moments.b2 / moments.a3)
        return brentq(lambda t: float(has_mode(moments, t * critical)) - 0.5, 0.2, 0.99, xtol=1e-4)

    def rises(moments, scale):
        # (log p)' = (2 drift − variance')/variance, with the coefficients of the slope's SDE.
        slope, h = np.geomspace(1e-6, 10, 20_000), 1e-5

        def variance(f):
            return 16 * f**2 * scale * moments.noise(f)

        drift = -4 * slope * (moments.b1 * slope - moments.b2)
        drift = drift + 4 * scale * slope * moments.noise(slope)
        change = (variance(slope * (1 + h)) - variance(slope * (1 - h))) / (2 * h * slope)
        return np.any(2 * drift > change)

    def corrected(level):
        return bisected(level, lambda moments, t: learning_regime(moments, t)[-1] in "bI")

    def printed(level):
        critical = 1 / float(at_noise(level).a3)
        return (4 + np.sqrt(42) * level) / (4 * (21 * level**2 - 8)) / critical

    at = np.array([1.0, 1.5, 2.0, 3.0, 5.0, 10.0])
    return Curves(at, [bisected(level, rises) for level in at], printed, corrected)


@register(
    source=_SOURCE,
    printed="With weight decay the law at interpolation falls like exp(−b1 γ r/(2T a1 κ²)), "
    "r = f/(κ − f).",
    correction="The factor b1 in the exponential is spurious: exp(−γ r/(2T a1 κ²)).",
    evidence="The Fokker–Planck equation of one layer of a balanced two-layer network with b1 = 2, "
    "a1 = 2, T = 0.3.",
    title="Distance of the mean slope from the solution",
    x="weight decay γ",
    y="1 − mean slope/κ",
)
def interpolation_exponential(effort: Effort) -> Curves:
    """The mean of the two densities."""
    b1, a1, scale = 2.0, 2.0, 0.3
    moments = DataMoments.teacher(b1, a1, 1, 0)

    def truth(gamma):
        grid = Grid(0.01, 1.0, 4000)
        law = _layer_law(moments, 2, scale, 2 * gamma, grid)
        return 1 - law.masses @ grid.centres() ** 2 / law.masses.sum()

    def printed(gamma):
        h, c = (b1 - gamma) / (2 * scale * a1), b1 * gamma / (2 * scale * a1)

        def density(s):  # of s = ln r
            return np.exp((h - 0.5) * s + 1.5 * np.logaddexp(0, s) - c * np.exp(s))

        s = np.linspace(-60, 12, 20_001)
        weight = density(s)
        return float(weight @ (1 / (1 + np.exp(s))) / weight.sum())

    def corrected(gamma):
        return 1 - float(InterpolationLaw(b1, a1, 1.0, scale, 2 * gamma).mean()[0])

    at = np.array([0.05, 0.1, 0.2, 0.3, 0.4])
    return Curves(at, [truth(gamma) for gamma in at], printed, corrected)


@register(
    source=_SOURCE,
    printed="On noiseless targets f^(h − 3/2) (κ − f)^(−h − 2) is the stationary law, whatever the "
    "start.",
    correction="It is no probability law: both ends absorb, and the share of each depends on the "
    "start, I_{f₀/κ}(½ − h, 1 + h) at κ.",
    evidence="Ensembles of the diffusion of log u, followed for 12 units of time, at T = 2T_c.",
    title="Where a network on noiseless targets ends",
    x="slope at the start f₀/κ",
    y="share that ends at f = κ",
    tolerance=0.015,
)
def interpolation_without_decay(effort: Effort) -> Curves:
    """The share of runs that find the solution."""
    moments, scale = DataMoments.teacher(1, 2, 1, 0), 1.0
    h = float(moments.b1 / (2 * scale * moments.a1))
    at = np.array([0.05, 0.2, 0.4, 0.6, 0.8])

    def drift(params):
        slope = jnp.exp(2 * params)
        return -2 * (moments.b1 * slope - moments.b2) - 2 * scale * moments.noise(slope)

    def root(params):
        return 2 * jnp.sqrt(scale * jnp.maximum(moments.noise(jnp.exp(2 * params)), 0.0))

    diffusion = Diffusion(drift, time_step=0.01, root=root)
    start = np.repeat(0.5 * np.log(at), effort.replicas)[:, None]
    ends = statsgd.simulate(
        landscape(lambda params: jnp.sum(params**2), np.zeros(1)), diffusion, steps=1200,
        replicas=len(start), seed=effort.seed, start=start, progress=False,
    )  # fmt: skip
    (params,) = ends["endpoints"].to_dataset().data_vars.values()
    share = np.mean(np.exp(2 * params.values.reshape(len(at), -1)) > 0.5, axis=1)

    def formal(log_slope):  # in s = ln(f/(κ − f)), cut off at both ends alike
        return np.exp((h - 0.5) * log_slope + 1.5 * np.logaddexp(0, log_slope))

    solved, dead = (quad(formal, *ends, limit=200)[0] for ends in ((0, 14), (-14, 0)))
    return Curves(
        at, share, lambda f: solved / (solved + dead),
        lambda f: float(absorption_probability(moments.b1, moments.a1, 1.0, scale, f)),
        error=np.sqrt(share * (1 - share) / effort.replicas),
    )  # fmt: skip
