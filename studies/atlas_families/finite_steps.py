"""Laws that speak about the discrete steps of SGD themselves: chains, walks, runs and epochs."""

import warnings
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd import SGD, noise
from statsgd.comparison import Marginal
from statsgd.laws import (
    AnisotropicQuadraticLaw,
    DiscreteChainLaw,
    EpochNoiseGaussian,
    LogMultiplicativeWalk,
)
from statsgd.laws.grids.grid import Grid, GridWarning
from statsgd.problems import landscape, linear_regression
from studies.atlas_families.family import AtlasCell, Effort, between, register, simulated
from studies.atlas_families.loss_scaled import growing_wells, saddle

_SMALL = 0.1  # a number this small counts as far below 1
_BINS = 2**17
_EXAMPLES = 64
_TEMPERATURE = 0.1  # about the height of the barrier between the wells


@register(
    law="DiscreteChainLaw",
    problem="two wells of curvatures h and h/9, equally high, constant noise",
    coordinate="the parameter; basins on both sides of the saddle",
    truth="an ensemble of SGD, long after it starts at the minima",
    axes={"cell ÷ step": (0.25, 0.5, 1.0, 2.0, 4.0, 8.0), "ηh": (0.1, 0.3, 1.0)},
    domain="cells of at most half the standard deviation of a step",
    valid=lambda cell, step: cell <= 0.5,
)
def discrete_chain(effort: Effort, cell: float, step: float) -> AtlasCell:
    """What a grid that is too coarse for the steps does to the law."""
    sgd = SGD(step, noise.Isotropic(2 * _TEMPERATURE / step))
    problem = landscape(growing_wells, np.ones(1))
    reach = 5.0  # more than 11 standard deviations of L = x²/4
    cells = 2 * reach / (cell * np.sqrt(2 * step * _TEMPERATURE))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridWarning)
        law = DiscreteChainLaw.from_sgd(problem, sgd, Grid(-reach, reach, round(cells)))
        predicted = Marginal.of_law(law)
    # One in four starts in the sharp well; the slowest rate is about that of the flat one, 1/9.
    start = np.where(np.arange(effort.replicas)[:, None] % 4, -1.0, 1.0)
    truth = simulated(problem, sgd, effort, int(np.ceil(60 / step)), start=start)
    return AtlasCell(truth, predicted, saddle())


def _spread_curvatures(reach: float) -> Float[Any, " n"]:
    """Curvatures evenly spread over (−`reach`, `reach`)."""
    return reach * (2 * np.arange(_EXAMPLES) + 1 - _EXAMPLES) / _EXAMPLES


def _number_of_steps(inverse: float) -> int:
    return round(1 / inverse)


def _skewness(inverse: float, reach: float) -> float:
    """Of log|w_k|: that of one step over √k."""
    logs = np.log(np.abs(1 - _spread_curvatures(reach)))
    logs -= logs.mean()
    return float(np.mean(logs**3) / np.mean(logs**2) ** 1.5 * np.sqrt(inverse))


@register(
    law="LogMultiplicativeWalk",
    problem="losses hw²/2 with 64 curvatures h evenly spread over ±Δh, batch size 1",
    coordinate="log|w| after k steps",
    truth="the exact law of SGD, a k-fold convolution",
    axes={"1 ÷ k": (0.001, 0.004, 0.02, 0.1, 0.25, 0.5), "ηΔh": (0.3, 0.9, 1.5)},
    domain="many steps: skewness of log|w| ≪ 1",
    valid=lambda inverse, reach: abs(_skewness(inverse, reach)) <= _SMALL,
)
def multiplicative_walk(effort: Effort, inverse: float, reach: float) -> AtlasCell:
    """The central limit sets in late where an example nearly annihilates the weight."""
    steps, curvatures = _number_of_steps(inverse), _spread_curvatures(reach)
    law = LogMultiplicativeWalk(curvatures, 1.0, steps)
    truth, rough = (_walked(curvatures, steps, bins) for bins in (_BINS, _BINS // 2))
    edges = np.linspace(rough.lower, rough.upper, 1001)
    error = between(truth, rough, edges)
    return AtlasCell(truth, Marginal.of_law(law), truth_error=error)


def _walked(curvatures: Float[Any, " n"], steps: int, bins: int) -> Marginal:
    """The law of log|w| after as many steps, by Fourier transform on a grid."""
    logs = np.log(np.abs(1 - curvatures))
    rate, deviation = logs.mean(), logs.std() * np.sqrt(steps)
    # Bins go round a circle of 30 standard deviations, each step shared by the bins next to it.
    width = 30 * deviation / bins
    place = (logs - rate) / width
    low = np.floor(place).astype(int)
    one = np.zeros(bins)
    np.add.at(one, low % bins, (1 + low - place) / _EXAMPLES)
    np.add.at(one, (low + 1) % bins, (place - low) / _EXAMPLES)
    masses = np.fft.fftshift(np.fft.irfft(np.fft.rfft(one) ** steps, bins))
    edges = steps * rate + width * (np.arange(bins + 1) - bins / 2 - 0.5)
    cumulative = np.concatenate([[0.0], np.cumsum(np.maximum(masses, 0))])
    return Marginal(lambda x: np.interp(x, edges, cumulative / cumulative[-1]), edges[0], edges[-1])


_HESSIAN = np.array([[1.0, 0.3], [0.3, 0.5]])
_HESSIAN /= np.linalg.eigvalsh(_HESSIAN)[-1]
_NOISE = np.array([[1.0, 0.5], [0.5, 1.0]])


class _Wavy(eqx.Module):
    """½θᵀHθ, with a curvature along θ₁ that grows by ½(1 − cos wθ₁)."""

    wavenumber: Float[Any, ""]

    def __call__(self, params: Float[Any, " 2"]) -> Float[Any, ""]:
        """The loss."""
        form, w = (jnp.asarray(x, dtype=params.dtype) for x in (_HESSIAN, self.wavenumber))
        # 1 − cos wθ in a form that keeps its digits.
        wave = 2 * jnp.sin(w * params[0] / 2) ** 2 / w**2
        return 0.5 * params @ form @ params + 0.5 * (params[0] ** 2 / 2 - wave)


@register(
    law="AnisotropicQuadraticLaw",
    problem="½θᵀHθ whose curvature along θ₁ grows by h(1 − cos wθ₁)/2, run from the minimum for "
    "t = 2/h, noise that does not commute with H",
    coordinate="the parameter θ₁",
    truth="an ensemble of SGD of as many steps",
    axes={"w²τ ÷ h": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0), "ηh": (0.03, 0.1, 0.3, 1.0)},
    domain="quadratic loss at any learning rate: w²τ/h ≪ 1",
    valid=lambda wave, step: wave <= _SMALL,
)
def anisotropic_quadratic(effort: Effort, wave: float, step: float) -> AtlasCell:
    """In units of the temperature τ and of the largest curvature h."""
    problem = landscape(_Wavy(np.asarray(np.sqrt(wave))), np.zeros(2))
    covariance = 2 / step * _NOISE
    steps = int(np.ceil(2 / step))
    law = AnisotropicQuadraticLaw(_HESSIAN, covariance, step, steps)
    sgd = SGD(step, noise.Anisotropic(covariance))
    return AtlasCell(simulated(problem, sgd, effort, steps), Marginal.of_law(law))


@register(
    law="EpochNoiseGaussian",
    problem="regression on 100 examples in shuffled epochs of 10 batches, curvatures h(1 ± ρ)",
    coordinate="the parameter at the end of epochs",
    truth="an ensemble of SGD, five relaxation times after it starts at the minimum",
    axes={"ρ": (0.01, 0.03, 0.1, 0.3, 0.6, 0.9), "ηhM": (0.1, 1.0, 10.0)},
    domain="constant noise at any learning rate: ρ ≪ 1",
    valid=lambda spread, step: spread <= _SMALL,
)
def epoch_noise(effort: Effort, spread: float, step: float) -> AtlasCell:
    """Gradients that go with curvatures shift the mean, which flat directions feel."""
    number, batches = 100, 10
    signs = np.where(np.arange(number) % 2, 1.0, -1.0)
    gradients = signs + np.random.default_rng(0).normal(size=number)
    # Examples of curvature zero have no gradient.
    inputs = np.sqrt(1 + spread * signs)
    gradients = np.where(inputs > 0, gradients, 0.0)
    gradients[inputs > 0] -= gradients.sum() / np.sum(inputs > 0)
    targets = np.divide(gradients, inputs, out=np.zeros(number), where=inputs > 0)
    problem = linear_regression(inputs[:, None], targets)
    sgd = SGD(step / batches, noise.Minibatch(number // batches, "reshuffle"))
    law = EpochNoiseGaussian.from_sgd(problem, sgd)
    epochs = max(3, int(np.ceil(5 / step)))
    return AtlasCell(simulated(problem, sgd, effort, epochs * batches), Marginal.of_law(law))
