"""What laws of scalar-input networks need of the data, and of SGD: six numbers."""

from typing import Any, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.arguments import (
    finite_array,
    is_traced,
    kinds_checked,
    means,
    non_negative,
    positive,
    real,
)
from statsgd.dynamics.noise import Minibatch
from statsgd.dynamics.sgd import SGD
from statsgd.problems import EmpiricalRisk


class DataMoments(eqx.Module):
    """Moments of one scalar input x and target y, for the loss ℓ = (f x − y)² of a slope f.

        b1 = E x²,  b2 = E xy,  a1 = Var x²,  a2 = Cov(x², xy),  a3 = Var xy
        L(f) = b1 f² − 2 b2 f + E y²,   Var[dℓ/df] = 4 g(f),   g(f) = a1 f² − 2 a2 f + a3

    g never falls below Δ/a1 with Δ = a1a3 − a2² ≥ 0. Raises `ValueError` where the numbers are not
    moments of any distribution. For ℓ = c (f x − y)² use `scaled(c)`.

    Source: Ziyin, Li, Ueda (2023), arXiv:2308.06671.

    >>> import numpy as np
    >>> moments = DataMoments.of_data(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    >>> float(moments.b1), float(moments.a1)  # E x², Var x²
    (2.5, 2.25)
    """

    b1: Float[Any, ""]
    b2: Float[Any, ""]
    a1: Float[Any, ""]
    a2: Float[Any, ""]
    a3: Float[Any, ""]
    #: Whether x² is constant, so that only the labels are noisy (a1 = a2 = 0). Static.
    pure_label_noise: bool = eqx.field(static=True)

    def __init__(self, b1: Any, b2: Any, a1: Any, a2: Any, a3: Any):
        self.b1 = positive("b1", b1)
        self.b2 = _number("b2", b2)
        self.a1, self.a2, self.a3 = _number("a1", a1), _number("a2", a2), _number("a3", a3)
        if is_traced(a1, a2, a3):
            self.pure_label_noise = not is_traced(a1) and float(self.a1) == 0
            return
        scale = float(self.a1 * self.a3 + self.a2**2)
        if self.a1 < 0 or self.a3 < 0 or self.delta < -1e-12 * max(1.0, scale):
            raise ValueError(
                f"not moments of a distribution: Delta = a1*a3 - a2**2 = {float(self.delta):.6g} "
                f"must not be negative, nor a1 = {float(self.a1):.6g} nor a3 = {float(self.a3):.6g}"
            )
        self.pure_label_noise = float(self.a1) == 0

    @classmethod
    def of_data(cls, inputs: Any, targets: Any, loss_factor: Any = 1.0) -> Self:
        """Moments of a finite data set, for the loss ℓ = `loss_factor` (f x − y)².

        Inputs whose squares agree to rounding count as pure label noise.
        """
        x = np.asarray(finite_array("inputs", inputs, ndim=1), dtype=np.float64)
        y = np.asarray(finite_array("targets", targets, ndim=1), dtype=np.float64)
        if x.shape != y.shape:
            raise ValueError(f"inputs and targets must have one shape, got {x.shape}, {y.shape}")
        square, product = x**2, x * y
        a1, a3 = np.var(square), np.var(product)
        a2 = np.mean((square - square.mean()) * (product - product.mean()))
        varies = float(np.ptp(square) > 1e-6 * np.max(square))
        moments = cls(square.mean(), product.mean(), varies * a1, varies * a2, a3)
        return moments.scaled(loss_factor)

    @classmethod
    def teacher(cls, b1: Any, a1: Any, teacher_slope: Any, label_std: Any) -> Self:
        """y = κx + ε with ε independent of x, E ε = 0 and standard deviation σ: κ and σ.

        Standard normal inputs have b1 = 1, a1 = 2; x = ±1 has b1 = 1, a1 = 0.
        """
        slope, std = _number("teacher_slope", teacher_slope), non_negative("label_std", label_std)
        x2, var = positive("b1", b1), non_negative("a1", a1)
        return cls(x2, slope * x2, var, slope * var, slope**2 * var + std**2 * x2)

    @property
    def delta(self) -> Any:
        """Δ = a1a3 − a2²."""
        return self.a1 * self.a3 - self.a2**2

    @property
    def best_slope(self) -> Any:
        """f* = b2/b1, of the smallest loss."""
        return self.b2 / self.b1

    def noise(self, slope: Any) -> Any:
        """g(f) = Var[dℓ/df]/4 at a slope f."""
        return (self.a1 * slope - 2 * self.a2) * slope + self.a3

    def scaled(self, loss_factor: Any) -> Self:
        """The moments for a loss multiplied by `loss_factor`: b times it, a times its square."""
        c = positive("loss_factor", loss_factor)
        return type(self)(c * self.b1, c * self.b2, c**2 * self.a1, c**2 * self.a2, c**2 * self.a3)

    def mirrored(self) -> Self:
        """The moments of (x, −y): the law of −f."""
        return type(self)(self.b1, -self.b2, self.a1, -self.a2, self.a3)


@kinds_checked
def noise_scale(problem: EmpiricalRisk, sgd: SGD) -> float:
    """T with ηC = T Σ₁, the step size of the diffusion limit times C/Σ₁; unit of η.

    T = η/S with replacement, η(N−S)/(S(N−1)) without; momentum multiplies by 1/(1−β), and time is
    then ηk/(1−β). Raises `ValueError` for noise that is not i.i.d. minibatches.

    >>> import numpy as np
    >>> from statsgd import noise
    >>> from statsgd.problems import linear_regression
    >>> problem = linear_regression(np.ones((4, 1)), np.arange(4.0))
    >>> noise_scale(problem, SGD(0.1, noise.Minibatch(2)))  # η/S
    0.05
    """
    sgd.require_heavy_ball()
    if not isinstance(sgd.noise, Minibatch):
        raise ValueError(f"the law needs Minibatch noise, got {type(sgd.noise).__name__}")
    if not sgd.noise.white:
        raise ValueError(
            "reshuffled noise is not white: no noise_scale; use the exact identities or the "
            "collapse exponent"
        )
    sgd.noise.check(problem)
    rate = float(sgd.learning_rate) / (1 - float(sgd.momentum))
    return rate * sgd.noise.variance_factor(problem)


def _number(name: str, value: Any) -> Any:
    return real(name, value, allowed="a finite number", valid=lambda x: x == x)


means("moments", DataMoments, "DataMoments, such as DataMoments.of_data(inputs, targets)")


def log_noise(moments: DataMoments, log_slope: Any) -> Any:
    """log g(f) at f = exp(`log_slope`), without overflow, in JAX."""
    small = jnp.exp(-jnp.abs(log_slope))
    first = jnp.where(log_slope > 0, moments.a1, moments.a3)
    last = jnp.where(log_slope > 0, moments.a3, moments.a1)
    return 2 * jnp.maximum(log_slope, 0) + jnp.log(first + small * (small * last - 2 * moments.a2))
