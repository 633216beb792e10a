"""Errata of Gibbs-like laws and escape: batch size, and the prefactor of curvature noise."""

import warnings

import jax.numpy as jnp
import numpy as np

from statsgd.laws import DiscreteChainLaw, EffectivePotentialGibbs, FokkerPlanckLaw
from statsgd.laws.gibbs import PiecewiseDiffusion, mean_first_passage_1d
from statsgd.laws.grids.grid import Grid, GridWarning
from statsgd.problems import landscapes
from studies.atlas_families.family import Effort
from studies.errata.erratum import Curves, register


@register(
    source="Dai, Zhu (2021), arXiv:2112.00987, abstract",
    printed="In the end SGD prefers the flatter of two equally deep minima regardless of the "
    "batch size.",
    correction="That holds where the noise is constant or a function of the loss; otherwise the "
    "minimum reached through weaker noise wins, exponentially in the batch size.",
    evidence="The law of the discrete chain at η = 0.01 on wells of curvatures 1 and 9, noise "
    "variance 6 + 2 tanh(3(½ − x)) for one example: stronger at the flat minimum.",
    title="Share of the flat well, noise stronger there",
    x="batch size S",
    y="share of the flat well",
    tolerance=0.03,
    margin=0.05,
    dense=False,
)
def regardless_of_batch_size(effort: Effort) -> Curves:
    """Wells of equal depth in noise that differs between them."""
    eta, saddle = 0.01, 0.6585913
    problem = landscapes.smooth_wells(2.0)

    def variance(size):
        return lambda params: (6 + 2 * jnp.tanh(3 * (0.5 - params[0]))) / size

    def truth(size):
        law = DiscreteChainLaw(
            lambda x: -problem.gradient(x),
            lambda x: jnp.reshape(variance(size)(x), (1, 1)),
            eta,
            Grid(saddle - 1.7, saddle + 1.3, 1000),
        )
        return float(law.masses[law.grid.centres() < saddle].sum() / law.masses.sum())

    def corrected(size):
        law = EffectivePotentialGibbs(problem, variance(size), eta)
        return float(np.squeeze(law.cdf(np.array([saddle]))))

    at = np.array([1.0, 2.0, 4.0])
    return Curves(at, [truth(size) for size in at], lambda size: 0.75, corrected)


@register(
    source="Xie, Sato, Sugiyama (2021), arXiv:2002.03495",
    printed="Curvature noise lets SGD escape in the time (2π/|H_b|) exp(…), with the curvature of "
    "the saddle in the prefactor.",
    correction="That is a Fick reading of the noise; the Itô one, which is SGD, has the curvature "
    "of the minimum, H_a.",
    evidence="Twice the mean first passage to the saddle of the quartic, by the Fokker–Planck "
    "equation with the noise constant on either side of the inflection.",
    title="Escape time under curvature noise",
    x="noise scale ηκ/(2S)",
    y="escape time t = ηk",
    log="y",
    margin=0.15,
)
def escape_prefactor(effort: Effort) -> Curves:
    """Escape over the saddle of the tilted quartic."""
    minimum, saddle, switch = -2.9035340278, 0.1567312568, -1.6329931619
    steep, unstable, height, share = 34.5830591, 15.8526119, 39.3617780628, 0.4396628
    problem = landscapes.tilted_quartic()

    def diffusion(scale):
        return PiecewiseDiffusion(scale * steep, scale * unstable, switch)

    def truth(scale):
        step = (saddle - switch) / 600
        grid = Grid(switch - 900 * step, saddle + 2 * step, 1502)
        centres = grid.centres()
        with warnings.catch_warnings():
            # Walls at the saddle are meant; cells twice as wide straddle the jump of the noise.
            warnings.simplefilter("ignore", GridWarning)
            law = FokkerPlanckLaw(
                lambda x: -problem.gradient(x),
                lambda x: 2 * jnp.reshape(diffusion(scale)(x), (1, 1)),
                1.0,
                grid,
                reflecting=True,
            )
        times = law.process.mean_passage(centres > saddle)
        return 2 * float(np.interp(minimum, centres, times))

    def printed(scale):
        exponent = height / scale * (share / steep + (1 - share) / unstable)
        return 2 * np.pi / unstable * np.exp(exponent)

    def corrected(scale):
        time = mean_first_passage_1d(problem, diffusion(scale), minimum, saddle, breaks=(switch,))
        return 2 * time

    at = np.array([0.2, 0.25, 0.3, 0.4])
    return Curves(at, [truth(scale) for scale in at], printed, corrected)
