"""By what SGD multiplies the factors of a balanced diagonal network, and its moments."""

from typing import Any, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.dynamics.noise import Minibatch
from statsgd.dynamics.sgd import SGD
from statsgd.problems import DiagonalLinearNetwork

_CENTRAL = (2, 3, 4)


class FactorShrinkage(eqx.Module):
    """Moments of z, where a step multiplies every factor u of the network of slope f by 1 − z.

        z = η(λ + 2 u^(P−2) mean_B(x²f − xy)),    u = (f/M)^(1/P)

    Raises `ValueError` for momentum and batches without replacement, whose moments are others.
    """

    learning_rate: Float[Any, ""]
    weight_decay: Float[Any, ""]
    num_layers: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    mean: Float[Any, " 2"]
    """E x² and E xy, of the loss as it is scaled."""
    central: tuple[Float[Any, " _"], ...]
    """Coefficients in f, highest first, of the central moments of x²f − xy of a batch, from the
    second on."""

    @classmethod
    def of(cls, problem: DiagonalLinearNetwork, sgd: SGD) -> Self:
        """Of `sgd` on a balanced network."""
        noise: Any = sgd.noise
        if float(sgd.momentum) != 0:
            raise ValueError(
                f"the discrete correction needs momentum = 0, got {float(sgd.momentum):.4g}"
            )
        if not isinstance(noise, Minibatch) or noise.sampling != "with_replacement":
            raise ValueError(
                f"the discrete correction needs Minibatch noise with replacement, got {noise!r}"
            )
        x, y = (np.asarray(a, dtype=np.float64) for a in (problem.inputs, problem.targets))
        square, product = problem.loss_factor * x**2, problem.loss_factor * x * y
        mean = np.array([square.mean(), product.mean()])
        deviations = np.stack([square - mean[0], mean[1] - product], axis=1)
        single = [_power_mean(deviations, power) for power in _CENTRAL]
        size = float(noise.batch_size)
        together = 3 * (size - 1) * np.convolve(single[0], single[0])
        central = (single[0] / size, single[1] / size**2, (single[2] + together) / size**3)
        return cls(
            np.asarray(sgd.learning_rate, dtype=np.float64),
            np.asarray(sgd.weight_decay, dtype=np.float64),
            problem.num_layers,
            problem.width,
            mean,
            central,
        )

    def __call__(self, slope: Any) -> tuple[Any, Any, Any, Any]:
        """E z, E z², E z³ and E z⁴ at a slope f > 0, in JAX."""
        layers = self.num_layers
        gain = 2 * self.learning_rate * (slope / self.width) ** ((layers - 2) / layers)
        decay = self.learning_rate * self.weight_decay
        m = decay + gain * (self.mean[0] * slope - self.mean[1])
        c2, c3, c4 = (
            gain**power * jnp.polyval(jnp.asarray(coefficients), slope)
            for power, coefficients in zip(_CENTRAL, self.central, strict=True)
        )
        square, cube = m**2 + c2, m**3 + 3 * m * c2 + c3
        return m, square, cube, m**4 + 6 * m**2 * c2 + 4 * m * c3 + c4


class LogSlopeSteps(eqx.Module):
    """Moments of the step of s = ln f, P ln(1 − z), to fourth order in z."""

    shrinkage: FactorShrinkage

    def __call__(self, coordinate: Any) -> tuple[Any, Any, Any, Any]:
        """The first four at s, in JAX."""
        layers = self.shrinkage.num_layers
        expansion = [-layers / power for power in (1, 2, 3, 4)]
        return step_moments(expansion, self.shrinkage(jnp.exp(coordinate)))


class LogitSteps(eqx.Module):
    """Moments of the step of s = ln r, r = f/(κ − f), of two layers, to fourth order in z.

    f becomes f(1 − z)², so that the step is 2 ln(1 − z) − ln(1 + r(2z − z²)).
    """

    shrinkage: FactorShrinkage
    teacher_slope: Float[Any, ""]

    def __call__(self, coordinate: Any) -> tuple[Any, Any, Any, Any]:
        """The first four at s, in JAX."""
        r = jnp.exp(coordinate)
        expansion = [
            -2 - 2 * r,
            -1 + r + 2 * r**2,
            -2 / 3 - 2 * r**2 - 8 / 3 * r**3,
            -1 / 2 + r**2 / 2 + 4 * r**3 + 4 * r**4,
        ]
        return step_moments(expansion, self.shrinkage(self.teacher_slope * r / (1 + r)))


def step_moments(expansion: Any, moments: Any) -> tuple[Any, Any, Any, Any]:
    """Moments of Σ a_k z^k from `expansion` a₁…a₄ and `moments` E z…E z⁴, to fourth order in z."""
    a, b, c, d = expansion
    first, second, third, fourth = moments
    return (
        a * first + b * second + c * third + d * fourth,
        a**2 * second + 2 * a * b * third + (2 * a * c + b**2) * fourth,
        a**3 * third + 3 * a**2 * b * fourth,
        a**4 * fourth,
    )


def _power_mean(deviations: Float[Any, "N 2"], power: int) -> Float[Any, " k"]:
    """Coefficients in f, highest first, of the mean of (a f + b)^power over rows (a, b)."""
    products = np.ones((len(deviations), 1))
    for _ in range(power):
        wider = np.zeros((len(deviations), products.shape[1] + 1))
        wider[:, :-1] += products * deviations[:, :1]
        wider[:, 1:] += products * deviations[:, 1:]
        products = wider
    return products.mean(axis=0)
