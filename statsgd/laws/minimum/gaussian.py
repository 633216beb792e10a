"""Normal laws near a minimum with Hessian H, whose modes are eigenvectors of H + λI."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import (
    fraction,
    location_vector,
    non_negative,
    positive,
    symmetric,
)
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.gaussian import NormalLaw
from statsgd.laws.law import ImproperLawError
from statsgd.laws.minimum.local_quadratic import LocalQuadratic, local_quadratic
from statsgd.precision import formula
from statsgd.problems import Problem


class Modes(NamedTuple):
    """Eigenvalues h, ascending, and eigenvectors (columns) of H + λI."""

    curvatures: Float[Any, " d"]
    vectors: Float[Any, "d d"]


class MinimumGaussian(NormalLaw):
    """A normal law of SGD with learning rate η, momentum β and weight decay λ near a minimum."""

    hessian: Float[Any, "d d"]
    learning_rate: Float[Any, ""]
    momentum: Float[Any, ""]
    weight_decay: Float[Any, ""]

    def modes(self) -> Modes:
        """Eigenvalues h (ascending) and eigenvectors of H + λI."""
        return eigenmodes(self.hessian, self.weight_decay)

    def require_one_rate(self) -> None:
        """Raise `ValueError` where parameters have learning rates of their own."""
        if np.shape(self.learning_rate) != ():
            raise ValueError(
                "learning_rate must be one number here, where modes are those of the Hessian, got "
                f"shape {np.shape(self.learning_rate)}"
            )

    def directions(self) -> Float[Any, "d d"]:
        """The modes: eigenvectors of H + λI."""
        return np.asarray(self.modes().vectors)

    def kept(
        self, steps: int, learning_rate: float | None = None, momentum: float | None = None
    ) -> Float[Any, " d"] | None:
        """Share of a displacement that each mode has kept after `steps`: r^steps, at most 1.

        r is the larger root modulus of z² − (1 + β − ηh)z + β. Source: derived.
        """
        eta = float(self.learning_rate if learning_rate is None else learning_rate)
        beta = float(self.momentum if momentum is None else momentum)
        trace = 1 + beta - eta * np.asarray(self.modes().curvatures)
        root = np.sqrt(trace.astype(complex) ** 2 - 4 * beta)
        modulus = np.maximum(np.abs(trace + root), np.abs(trace - root)) / 2
        return np.minimum(modulus, 1.0) ** steps


class ConstantNoiseGaussian(MinimumGaussian):
    """A normal law near a minimum where gradient noise has the same covariance C everywhere.

    A final class hands on these arguments, computes `joint` and states `require_proper`.

    **Arguments:** `hessian` H `(d, d)`, loss/params²; `noise_covariance` C `(d, d)`; η, β, λ as in
    `SGD`; `location` `(d,)`, the minimiser of L + (λ/2)|θ|², zero by default.
    """

    noise_covariance: Float[Any, "d d"]

    def __init__(
        self,
        hessian: Any,
        noise_covariance: Any,
        learning_rate: Any,
        momentum: Any = 0.0,
        weight_decay: Any = 0.0,
        location: Any = None,
    ):
        self.hessian = symmetric("hessian", hessian)
        d = self.hessian.shape[0]
        self.noise_covariance = symmetric(
            "noise_covariance", noise_covariance, dimension=d, definite="semi"
        )
        self.learning_rate = self._rate(learning_rate, d)
        self.momentum = fraction("momentum", momentum)
        self.weight_decay = non_negative("weight_decay", weight_decay)
        self.location = location_vector(location, d)

    @classmethod
    def _rate(cls, learning_rate: Any, dimension: int) -> Any:
        """The learning rate, checked: one number."""
        rate = positive("learning_rate", learning_rate)
        if np.shape(rate) != ():
            raise ValueError(
                f"learning_rate must be one number for {cls.__name__}, got shape {np.shape(rate)}"
            )
        return rate

    def _where_proper(self, covariance: Callable[..., Any], *others: Any) -> Any:
        """`covariance(H, C, η, β, λ, *others)`, or NaN in its place where no law exists."""
        computed = covariance(
            self.hessian,
            self.noise_covariance,
            self.learning_rate,
            self.momentum,
            self.weight_decay,
            *others,
        )
        try:
            self.require_proper()
        except ImproperLawError:
            return np.full_like(computed, np.nan)
        return computed

    @classmethod
    def from_sgd(cls, problem: Problem, sgd: SGD, at: PyTree | None = None) -> Self:
        """The law for `sgd` near a minimum of `problem`: H and C are those at the minimum.

        >>> import numpy as np, statsgd
        >>> bowl = statsgd.problems.landscape(lambda x: 0.5 * x @ x, np.zeros(1))
        >>> sgd = statsgd.SGD(0.2, statsgd.noise.Isotropic(1.0))
        >>> statsgd.laws.HeavyBallGaussian.from_sgd(bowl, sgd).covariance()  # η/(2 − η)
        array([[0.11111111]])

        `at` gives the minimum; by default it is found. Raises as `local_quadratic`.
        """
        return cls._near(local_quadratic(problem, sgd, at), sgd)

    @classmethod
    def _near(cls, local: LocalQuadratic, sgd: SGD, **other: Any) -> Self:
        return cls(
            local.hessian,
            local.noise_covariance,
            learning_rate=sgd.learning_rate,
            momentum=sgd.momentum,
            weight_decay=sgd.weight_decay,
            location=local.location,
            **other,
        )


@formula
def eigenmodes(hessian: Any, weight_decay: Any) -> Modes:
    """Eigenvalues (ascending) and eigenvectors of H + λI."""
    values, vectors = jnp.linalg.eigh(jnp.asarray(hessian))
    return Modes(values + weight_decay, vectors)


@formula
def joint_covariance(vectors: Any, params: Any, cross: Any, buffer: Any) -> Any:
    """The covariance of (θ, m) from Cov θ, Cov(θ, m) and Cov m in the basis `vectors`."""
    params, cross, buffer = (
        vectors @ block @ vectors.T for block in map(jnp.asarray, (params, cross, buffer))
    )
    return jnp.block([[params, cross], [cross.T, buffer]])
