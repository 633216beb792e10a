"""Laws of diagonal linear networks and of rescaling orbits, held against SGD on them."""

import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from statsgd import SGD, noise
from statsgd.comparison import Marginal
from statsgd.laws import (
    DiagonalNetworkLaw,
    DiscreteChainLaw,
    InfiniteDepthNetworkLaw,
    InterpolationLaw,
    NoiseEquilibrium,
    RescalingGibbs,
)
from statsgd.laws.bases.slope import SlopeLaw
from statsgd.laws.grids.discrete_chain import FiniteNoise
from statsgd.laws.grids.grid import Grid, GridWarning
from statsgd.problems import (
    DiagonalLinearNetwork,
    EmpiricalRisk,
    diagonal_linear_network,
    landscape,
    linear_network,
)
from studies.atlas_families.family import (
    AtlasCell,
    Effort,
    change,
    even,
    register,
    simulated,
    within,
)

_STABLE = 0.1  # largest step that counts as small, in units of the one where SGD gets unstable


def _data(label_std: float) -> tuple[np.ndarray, np.ndarray]:
    """Inputs with E x² = 1, Var x² = ¼, and targets x ± σ: eight equally likely examples."""
    x = np.sqrt([0.5, 1.5]).repeat(4) * np.tile([1.0, 1.0, -1.0, -1.0], 2)
    return x, x + label_std * np.tile([1.0, -1.0], 4)


def _balanced_chain(
    law: SlopeLaw, layers: int, width: int, data: tuple[np.ndarray, np.ndarray], step: float
) -> tuple[Marginal, float]:
    """The law of ln f of the chain on the balanced set, where all factors equal u = (f/M)^(1/P).

    SGD with one example a step multiplies every factor by 1 − ηG u^(P−2), G = 2(x²f − xy). The
    box holds all but 2·10⁻⁵ of the law and half as much again. With it, its error on the grid.
    """
    x, y = data

    def factor(log_slope):
        gradient = 2 * (x**2 * jnp.exp(log_slope) - x * y)
        scale = jnp.exp((layers - 2) / layers * (log_slope - np.log(width)))
        return layers * jnp.log(jnp.abs(1 - step * gradient * scale))[:, None]

    at = np.log(law.quantile(np.array([1e-5, 1e-3, 0.5, 1 - 1e-3, 1 - 1e-5]))[:, 0])
    middle, reach = at[2], np.maximum(1.5 * np.abs(at[[0, -1]] - at[2]), 4 * np.sqrt(step))
    kicks = [np.asarray(factor(place)).std() for place in at[1:4]]
    low, high = middle - reach[0], middle + reach[1]
    cells = even(np.clip(8 * (high - low) / min(kicks), 400, 6000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridWarning)
        chain, rough = (
            DiscreteChainLaw(
                lambda log_slope: 0 * log_slope,
                FiniteNoise(factor, np.full(len(x), 1 / len(x))),
                1.0,
                grid,
            )
            for grid in (Grid(low, high, cells), Grid(low, high, cells // 2))
        )
    return Marginal.of_law(chain, grid=chain.grid), change(chain, rough)


def _logarithmic(law: SlopeLaw, truth: Marginal) -> Marginal:
    """The law of ln f."""
    return Marginal(lambda s: law.cdf(np.exp(s)[:, None])[:, 0], truth.lower, truth.upper)


_BALANCED = "the chain's law on a grid, on the balanced set, where it ends up"


def _two_layers(step: float, ratio: float) -> tuple[DiagonalLinearNetwork, SGD, DiagonalNetworkLaw]:
    """A(f*) = 2 at f* = 1, so η is half the first number; σ² makes T = η the share of T_c."""
    eta = step / 2
    problem = diagonal_linear_network(*_data(np.sqrt(ratio / eta - 0.25)))
    sgd = SGD(eta, noise.Minibatch(1))
    return problem, sgd, DiagonalNetworkLaw.from_sgd(problem, sgd)


@register(
    law="DiagonalNetworkLaw",
    problem="diagonal network of two layers, noisy inputs and labels, single examples",
    coordinate="logarithm of the slope f",
    truth=_BALANCED,
    axes={"ηA(f*)b₁": (0.003, 0.01, 0.03, 0.1, 0.3, 0.6), "T ÷ T_c": (0.1, 0.3, 0.6, 0.9)},
    domain="diffusion limit, ηA(f*)b₁ ≤ 0.02 and ηA(f*)b₁ ≤ 0.04 (T_c/T − 1)",
    valid=within(_two_layers),
)
def diagonal_network(effort: Effort, step: float, ratio: float) -> AtlasCell:
    """Where T nears T_c the mass near zero falls as a low power, which finite steps change."""
    problem, sgd, law = _two_layers(step, ratio)
    law.require_proper()
    data = np.asarray(problem.inputs, np.float64), np.asarray(problem.targets, np.float64)
    truth, error = _balanced_chain(law, 2, 1, data, float(sgd.learning_rate))
    return AtlasCell(truth, _logarithmic(law, truth), truth_error=error)


def _deep(
    inverse_depth: float, step: float
) -> tuple[DiagonalLinearNetwork, SGD, InfiniteDepthNetworkLaw]:
    """Depth D and width M = D: in the limit only M/(DT) is left of the three."""
    depth = round(1 / inverse_depth)
    problem = diagonal_linear_network(*_data(1.0), num_layers=depth + 1, width=depth)
    sgd = SGD(step, noise.Minibatch(1))
    return problem, sgd, InfiniteDepthNetworkLaw.from_sgd(problem, sgd)


@register(
    law="InfiniteDepthNetworkLaw",
    problem="diagonal network as deep as wide, noisy inputs and labels, single examples",
    coordinate="logarithm of the slope f",
    truth=_BALANCED,
    axes={"1 ÷ D": (0.005, 0.01, 0.03125, 0.1, 0.25, 0.5), "TD ÷ M": (0.003, 0.01, 0.03, 0.1, 0.3)},
    domain="1/D ≤ 0.01, ηA(f*)b₁ = TD/M ≤ 0.02, and the relative variance of f, as large here",
    valid=within(_deep),
)
def infinite_depth(effort: Effort, inverse_depth: float, step: float) -> AtlasCell:
    """The law of the limit, against finite depth and steps."""
    _, _, law = _deep(inverse_depth, step)
    law.require_proper()
    depth = round(1 / inverse_depth)
    truth, error = _balanced_chain(law, depth + 1, depth, _data(1.0), step)
    return AtlasCell(truth, _logarithmic(law, truth), truth_error=error)


def _interpolated() -> tuple[np.ndarray, np.ndarray]:
    """Sixteen inputs at quantiles of a normal law, with E x² = 1, and targets y = x."""
    x = norm.ppf((np.arange(16) + 0.5) / 16)
    x /= np.sqrt(np.mean(x**2))
    return x, x


def _decaying(step: float, decay: float) -> tuple[DiagonalLinearNetwork, SGD, InterpolationLaw]:
    """κ = 1, so A(κ) = 2."""
    problem = diagonal_linear_network(*_interpolated())
    sgd = SGD(step / 2, noise.Minibatch(1), weight_decay=decay)
    return problem, sgd, InterpolationLaw.from_sgd(problem, sgd)


@register(
    law="InterpolationLaw",
    problem="diagonal network of two layers on noiseless y = κx, weight decay, single examples",
    coordinate="slope f",
    truth="a simulated ensemble of SGD, from draws of the law on",
    axes={"ηA(κ)b₁": (0.01, 0.03, 0.1, 0.3, 0.6, 0.8), "λ ÷ κb₁": (0.03, 0.1, 0.3, 1.0)},
    domain="diffusion limit, ηA(κ)b₁ ≤ 0.02, and T below its threshold",
    valid=within(_decaying),
)
def interpolation(effort: Effort, step: float, decay: float) -> AtlasCell:
    """The slope relaxes in 1/(4η) steps; the run lasts forty times that."""
    problem, sgd, law = _decaying(step, decay)
    law.require_proper()
    levels = np.random.default_rng(effort.seed).random(effort.replicas)
    start = np.sqrt(law.quantile(levels))[:, :, None] * np.ones((1, 2))
    truth = simulated(
        problem, sgd, effort, int(np.ceil(20 / step)),
        coordinate=lambda params: params[:, 0] * params[:, 1], start=start,
    )  # fmt: skip
    return AtlasCell(truth, Marginal.of_law(law))


def _pair(params):
    return (params[0] * params[1] - 1) ** 2


class _Factor:
    """The marginal of u under `RescalingGibbs` with y = 1: w given u is normal."""

    def __init__(self, law: RescalingGibbs):
        self.stiffness = float(law.weight_decay) / 2
        self.temperature = float(law.temperature)
        reach = np.sqrt(60 * self.temperature / self.stiffness)
        edges = np.linspace(-reach, reach, 200_001)
        u = (edges[1:] + edges[:-1]) / 2
        curvature = u**2 + self.stiffness
        energy = self.stiffness * u**2 + self.stiffness / curvature
        masses = np.exp(-energy / self.temperature) / np.sqrt(curvature)
        cumulative = np.cumsum(masses) / masses.sum()
        self.edges, self.cumulative = edges, np.concatenate([[0.0], cumulative])

    def marginal(self) -> Marginal:
        """The law of u."""
        return Marginal(
            lambda u: np.interp(u, self.edges, self.cumulative), self.edges[0], self.edges[-1]
        )

    def draw(self, effort: Effort) -> np.ndarray:
        """Pairs (u, w)."""
        rng = np.random.default_rng(effort.seed)
        u = np.interp(rng.random(effort.replicas), self.cumulative, self.edges)
        curvature = u**2 + self.stiffness
        spread = np.sqrt(self.temperature / (2 * curvature))
        return np.stack([u, u / curvature + spread * rng.normal(size=u.shape)], axis=1)


def _orbit(width: float) -> RescalingGibbs:
    """τ = 0.1 and y = 1; decay that lets the orbit spread so far."""
    return RescalingGibbs(1.0, 0.1, 0.1 / width)


@register(
    law="RescalingGibbs",
    problem="loss (uw − y)² with weight decay, constant isotropic noise",
    coordinate="factor u, along the orbit of rescalings",
    truth="a simulated ensemble of SGD with injected noise, from draws of the law on",
    axes={"ηh": (0.01, 0.03, 0.1, 0.3, 1.0), "τ ÷ λy": (0.1, 0.3, 1.0)},
    domain="Langevin dynamics in continuous time: η times the mean curvature, 4E u², ≪ 2",
    valid=lambda step, width: step * float(_orbit(width).covariance()[0, 0]) <= _STABLE * 2,
)
def rescaling_gibbs(effort: Effort, step: float, width: float) -> AtlasCell:
    """h = 4y is the curvature where u = w. Charges relax in 1/(2ηλ) steps; six times that."""
    eta, law = step / 4, _orbit(width)
    law.require_proper()
    temperature, decay = float(law.temperature), float(law.weight_decay)
    sgd = SGD(eta, noise.Isotropic(2 * temperature / eta), weight_decay=decay)
    factor = _Factor(law)
    truth = simulated(
        landscape(_pair, np.ones(2)), sgd, effort, int(np.ceil(3 / (eta * decay))),
        start=factor.draw(effort),
    )  # fmt: skip
    return AtlasCell(truth, factor.marginal())


_TARGET = np.array([1.0, 0.6])
_RESCALING = np.diag([-1.0, -1.0, 1.0])  # of (w, u)


def _signals(label_std: float) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of covariance diag(1, ¼) and targets V·x ± σ: eight equally likely examples."""
    x = np.kron(np.diag([np.sqrt(2), np.sqrt(0.5)]), np.array([[1.0, 1.0, -1.0, -1.0]]).T)
    return x, (x @ _TARGET + label_std * np.tile([1.0, -1.0], 4))[:, None]


def _log_ratio(params: np.ndarray) -> np.ndarray:
    """ln(|u|/|w|)."""
    return np.log(np.abs(params[:, 2])) - 0.5 * np.log(params[:, 0] ** 2 + params[:, 1] ** 2)


def _two_inputs(step: float, noise_step: float) -> tuple[EmpiricalRisk, SGD, NoiseEquilibrium]:
    start = {"weights": [_TARGET[None], np.ones((1, 1))]}

    def setting(eta: float, label_std: float) -> tuple[EmpiricalRisk, SGD, NoiseEquilibrium]:
        problem = linear_network(*_signals(label_std), [1], start)
        sgd = SGD(eta, noise.Minibatch(1))
        return problem, sgd, NoiseEquilibrium.from_sgd(problem, sgd, _RESCALING, start)

    w1, w2, u = setting(1.0, 1.0)[2].mean()  # where it is does not depend on η and σ
    hessian = 2 * np.array(
        [[u**2, 0, u * w1], [0, u**2 / 4, u * w2 / 4], [0, 0, w1**2 + w2**2 / 4]]
    )
    eta = step / np.linalg.eigvalsh(hessian, UPLO="U")[-1]
    return setting(eta, np.sqrt(noise_step / eta))


@register(
    law="NoiseEquilibrium",
    problem="linear network u w·x with two inputs and label noise σ, single examples",
    coordinate="ln(|u|/|w|), blurred by ±½: total variation is the shift, and more for a spread",
    truth="a simulated ensemble of SGD, from the equilibrium on",
    axes={"ηh": (0.03, 0.1, 0.3, 0.6, 1.0), "ησ²": (0.01, 0.03, 0.1, 0.3)},
    domain="the noise that of the minimum: ηh ≤ 0.2, and (η/2) Tr CH⁺ ≤ 0.026 |θ|²: ησ² ≤ 0.03",
    valid=within(_two_inputs),
)
def noise_equilibrium(effort: Effort, step: float, noise_step: float) -> AtlasCell:
    """A point mass. The charge relaxes in about 1/(4η²σ²) steps; the run lasts three times that."""
    problem, sgd, law = _two_inputs(step, noise_step)
    law.require_proper()
    point = law.mean()
    at = float(_log_ratio(point[None])[0])
    steps = int(np.ceil(0.75 / (float(sgd.learning_rate) * noise_step)))
    ended: Any = simulated(
        problem, sgd, effort, steps, coordinate=_log_ratio,
        start={"weights": [point[None, :2], point[None, 2:]]},
    )  # fmt: skip
    blur = np.random.default_rng(effort.seed).uniform(-0.5, 0.5, ended.points.size)
    truth = Marginal.of_points(ended.points + blur)
    return AtlasCell(truth, Marginal(lambda x: np.clip(x - at + 0.5, 0, 1), at - 0.5, at + 0.5))
