"""Laws of interacting particles, held against their noisy gradient descent at a finite step."""

import jax
import numpy as np

from statsgd.comparison import Marginal
from statsgd.kernels import MeanFieldFunctional
from statsgd.laws import MeanFieldLaw, MeanFieldLimit, QuadraticMeanField
from statsgd.laws.mean_field import particle_sgd, tanh_features
from statsgd.problems import landscape
from studies.atlas_families.family import DRAWS_A_RUN, AtlasCell, Effort, register, simulated

_SMALL = 0.1  # share of the step where the mean of particles gets unstable, and share of one
_TANH = {
    "problem": "N tanh neurons on one example, weight decay, injected noise",
    "coordinate": "a neuron",
}


def _limit() -> MeanFieldLimit:
    """λ = ½, τ = 0.2, y = ½: the steepest mode has curvature λ + b = 3/2."""
    return MeanFieldLimit(tanh_features([1.0]), 0.5, 0.5, 0.2)


def _neurons(effort: Effort, law: MeanFieldLaw, step: float) -> Marginal:
    """All neurons of as many networks as make `replicas` together, eight times 1/(ηλ) long.

    Neurons of one network are as good as independent for a marginal: they are exchangeable, and
    their correlation, of the order 1/N, is negative.
    """
    eta, number = step / 1.5, law.num_particles
    networks = Effort(-(-effort.replicas // number), effort.seed)
    return simulated(
        law.problem(),
        particle_sgd(law.limit.temperature, number, eta),
        networks,
        int(np.ceil(8 / (0.5 * eta))),
        coordinate=np.ravel,
    )


@register(
    law="MeanFieldLaw",
    truth="a simulated ensemble of SGD; the law by exact draws",
    axes={"η(λ + b)": (0.03, 0.1, 0.3, 0.6, 1.2, 1.6), "N": (1.0, 2.0, 5.0)},
    domain="η(λ + b) ≪ 2, at any number of neurons",
    valid=lambda step, number: step <= 2 * _SMALL,
    **_TANH,
)
def mean_field(effort: Effort, step: float, number: float) -> AtlasCell:
    """The bias of the step alone."""
    law = MeanFieldLaw(_limit(), int(number))
    key = jax.random.key(effort.seed)
    networks = -(-DRAWS_A_RUN * effort.replicas // int(number))
    draws = np.asarray(law.draw(key, (networks,)), dtype=np.float64)
    return AtlasCell(_neurons(effort, law, step), Marginal.of_points(draws.ravel()))


@register(
    law="MeanFieldLimit",
    truth="a simulated ensemble of SGD",
    axes={"1 ÷ N": (0.02, 0.05, 0.1, 0.25, 0.5, 1.0), "η(λ + b)": (0.03, 0.3, 1.2)},
    domain="many neurons, 1/N ≪ 1, and η(λ + b) ≪ 2",
    valid=lambda inverse_number, step: inverse_number <= _SMALL and step <= 2 * _SMALL,
    **_TANH,
)
def mean_field_limit(effort: Effort, inverse_number: float, step: float) -> AtlasCell:
    """Neurons of finitely many repel one another less than the limit says."""
    limit = _limit()
    law = MeanFieldLaw(limit, round(1 / inverse_number))
    reach = float(np.max(limit.grid))
    known = Marginal(lambda x: limit.cdf(x[:, None])[:, 0], -reach, reach)
    return AtlasCell(_neurons(effort, law, step), known)


@register(
    law="QuadraticMeanField",
    problem="N particles under a quadratic functional, injected noise",
    coordinate="a particle",
    truth="a simulated ensemble of SGD",
    axes={"η(a + b)": (0.03, 0.1, 0.3, 0.6, 1.2, 1.9), "N": (1.0, 2.0, 5.0)},
    domain="exact for the chain at every stable step, η(a + b) < 2",
    valid=lambda step, number: step < 2,
)
def quadratic_mean_field(effort: Effort, step: float, number: float) -> AtlasCell:
    """a = 1, b = 4, y = 2, τ = ½; ten times the relaxation of the cloud and of the mean."""
    eta, count = step / 5, int(number)
    law = QuadraticMeanField.scalar(1, 4, 2, 0.5, count, eta)
    law.require_proper()
    problem = landscape(MeanFieldFunctional.of(law).value, np.zeros((count, 1)))
    slowest = min(eta, 1 - abs(1 - step))
    networks = Effort(-(-effort.replicas // count), effort.seed)
    truth = simulated(
        problem,
        particle_sgd(0.5, count, eta),
        networks,
        int(np.ceil(10 / slowest)),
        coordinate=np.ravel,
    )
    return AtlasCell(
        truth, Marginal.of_normal(law.particle_mean().item(), law.particle_covariance().item())
    )
