"""Errata of two valleys: the reading of the noise, commitment at the ridge, and a factor of two."""

import functools
import warnings

import numpy as np
from scipy.special import erfi, log_ndtr

import statsgd
from statsgd import SGD, noise
from statsgd.laws import FokkerPlanckLaw, TwoValleyLaw
from statsgd.laws.grids.grid import Grid, GridWarning
from statsgd.laws.valleys import TwoValleyHopping, two_valley_chain_law
from statsgd.laws.valleys.two_valley import Wells
from statsgd.problems import TwoValleyLandscape
from studies.atlas_families.family import Effort
from studies.errata.erratum import Curves, register

_SOURCE = "Yang, Zhang, Ouyang, Tang, Tu, arXiv:2601.10962"
_ALONG = 5.0
_LEVELS = np.array([0.001, 0.0015, 0.002, 0.003, 0.004])


def _law(level: float, power: float = 1.0, sharp_width: float = 0.65) -> TwoValleyLaw:
    landscape = TwoValleyLandscape(sharp_width=sharp_width)
    return TwoValleyLaw(landscape, _ALONG, level, power)


@functools.cache
def _flat_share(level: float) -> float:
    """Share of the flat valley under the chain, extrapolated to vanishing learning rates."""
    # The share converges like √η, because the noise jumps at the ridge.
    first, second = (
        two_valley_chain_law(_law(level), eta).flat_probability for eta in (4e-4, 1e-4)
    )
    return 2 * second - first


def _line_law(wells: Wells) -> FokkerPlanckLaw:
    """The Fokker–Planck equation across both valleys, with cells that meet at the ridge."""
    width, flatness, diffusion = (
        np.asarray(v) for v in (wells.width, wells.flatness, wells.diffusion)
    )
    reach = width / 2 + 7 * np.sqrt(np.asarray(wells.variance))
    step = reach.max() / 1500
    left, right = (int(np.ceil(side / step)) for side in reach[::-1])
    grid = Grid(-left * step, right * step, left + right)

    def drift(x):
        return np.where(
            x >= 0, -(2 * x - width[0]) / flatness[0], -(2 * x + width[1]) / flatness[1]
        )

    def covariance(x):
        return 2 * np.where(x >= 0, diffusion[0], diffusion[1])[..., None]

    with warnings.catch_warnings():
        # Twice as wide cells straddle the ridge, which spoils the estimate of the error alone.
        warnings.simplefilter("ignore", GridWarning)
        return FokkerPlanckLaw(drift, covariance, 1.0, grid)


@register(
    source=_SOURCE,
    printed="The density across the valleys has the flux A p − D∂p: flat and sharp valley are "
    "filled as e^(ΔL/D) says, without a factor γ.",
    correction="Discrete SGD is Itô, flux A p − ∂(D p): the odds of the flat valley are γ times as "
    "large.",
    evidence="The law of the discrete chain at fixed y = 5, extrapolated to η → 0.",
    title="Share of the flat valley, noise C = 2σH",
    x="noise level Δ_S = ησ",
    y="share of the flat valley",
)
def anti_ito_flux(effort: Effort) -> Curves:
    """Occupation under the published and the Itô reading."""

    def printed(level):
        width = np.asarray(_law(level).wells.width)
        deep = np.sum([1, -1] * width**2) / (8 * level)
        tails = log_ndtr(width / (2 * np.sqrt(level)))
        return 1 / (1 + np.exp(-(deep + tails[0] - tails[1])))

    return Curves(
        _LEVELS, [_flat_share(level) for level in _LEVELS], printed,
        lambda level: float(_law(level).flat_probability()),
    )  # fmt: skip


@register(
    source=_SOURCE,
    printed="The share of the flat valley is the ratio of the rates 1/τ to the ridge, "
    "1/(1 + γ⁻¹ erfi(z₂)/erfi(z₁)).",
    correction="A walker on the ridge still has to commit; with that probability, √γ/(1 + √γ) to "
    "the flat side, the rates give the Itô odds.",
    evidence="The law of the discrete chain at fixed y = 5, extrapolated to η → 0.",
    title="Share of the flat valley from rates",
    x="noise level Δ_S = ησ",
    y="share of the flat valley",
    margin=0.005,
)
def share_from_rates(effort: Effort) -> Curves:
    """Occupation from the published rates."""

    def printed(level):
        wells = _law(level).wells
        z = np.asarray(wells.width) / np.sqrt(8 * level)
        flatness = np.asarray(wells.flatness)
        return 1 / (1 + flatness[1] / flatness[0] * erfi(z[1]) / erfi(z[0]))

    return Curves(
        _LEVELS, [_flat_share(level) for level in _LEVELS], printed,
        lambda level: float(_law(level).flat_probability()),
    )  # fmt: skip


@register(
    source=_SOURCE,
    printed="The valleys exchange walkers at the rates 1/τ at which these reach the ridge.",
    correction="From the ridge only a part commits to the other side: the rates are c/τ.",
    evidence="The first eigenvalue of the Fokker–Planck operator across both valleys.",
    title="Rate at which the occupation of two valleys relaxes",
    x="noise level Δ_S = ησ",
    y="relaxation rate per unit time",
    tolerance=0.05,
    margin=0.1,
    log="y",
)
def hopping_rate(effort: Effort) -> Curves:
    """Rates with and without commitment."""

    def printed(level):
        wells = _law(level).wells
        z = np.asarray(wells.width) / np.sqrt(8 * level)
        return np.sum(2 / (np.pi * np.asarray(wells.flatness) * erfi(z)))

    at = np.array([0.0005, 0.0007, 0.001, 0.0014])
    with warnings.catch_warnings():
        # The gap is known to about a per cent, against a tolerance of five.
        warnings.simplefilter("ignore", GridWarning)
        gaps = [_line_law(_law(level).wells).spectral_gap() for level in at]
    return Curves(at, gaps, printed, lambda level: np.sum(TwoValleyHopping(_law(level)).rates()))


@register(
    source=_SOURCE,
    printed="Isotropic noise fills the flat valley with the share γ/(1 + γ).",
    correction="Boltzmann's share is √γ/(1 + √γ).",
    evidence="The Fokker–Planck equation across both valleys, isotropic noise of temperature "
    "ΔL/12.",
    title="Share of the flat valley, isotropic noise",
    x="ratio of flatness γ",
    y="share of the flat valley",
)
def isotropic_share(effort: Effort) -> Curves:
    """Occupation with constant noise."""
    level = 0.04 / 12  # the barrier at y = 5 is 0.04

    def law(gamma):
        return _law(level, 0.0, 0.8 / np.sqrt(gamma))

    def truth(gamma):
        found = _line_law(law(gamma).wells)
        return float(found.masses[found.grid.centres() > 0].sum() / found.masses.sum())

    at = np.array([1.1, 1.5, 2.0, 3.0, 4.0])
    return Curves(
        at, [truth(gamma) for gamma in at], lambda gamma: gamma / (1 + gamma),
        lambda gamma: float(law(gamma).flat_probability()),
    )  # fmt: skip


@register(
    source="Yang, Zhang, Ouyang, Tang, Tu, arXiv:2601.10962, released code",
    printed="The noise level of C = 2σH is ησ/2: that is the variance in either valley.",
    correction="D = ηC/2 = ησH, so the noise level is Δ_S = ησ, twice as much.",
    evidence="An ensemble of SGD from the bottom of the flat valley at y = 20, η = 0.005.",
    title="Variance in the flat valley",
    x="noise level ησ (10⁻³)",
    y="variance in the flat valley (10⁻³)",
    margin=0.05,
    tolerance=0.015,
    dense=False,
)
def noise_level(effort: Effort) -> Curves:
    """The variance of a well that no run leaves."""
    along, eta = 20.0, 0.005
    landscape = TwoValleyLandscape()
    problem = landscape.frozen(along)
    bottom = np.asarray(landscape.widths(along)[0]) / 2
    at, unit = np.array([1.0, 2.0, 3.0]), 1e-3
    sgd = statsgd.grid(SGD(eta, noise.HessianScaled(1.0)), {"noise.strength": 2 * unit * at / eta})
    ends = statsgd.simulate(
        problem, sgd, steps=1000, replicas=4 * effort.replicas, seed=effort.seed,
        start=np.array([bottom]), progress=False,
    )  # fmt: skip
    (params,) = ends["endpoints"].to_dataset().data_vars.values()
    found = params.values.reshape(len(at), -1).var(axis=1, ddof=1) / unit

    def corrected(level):
        law = TwoValleyLaw(landscape, along, level * unit, learning_rate=eta)
        return float(law.scales()[0]) ** 2 / unit

    return Curves(
        at, found, lambda level: level / 2, corrected,
        error=found * np.sqrt(2 / (4 * effort.replicas)),
    )  # fmt: skip
