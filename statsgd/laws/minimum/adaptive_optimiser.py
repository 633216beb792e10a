"""Optimisers that divide by running second moments of gradients: what they are once these rest."""

import abc
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float
from scipy.special import erf

from statsgd.arguments import fraction, non_negative, positive, real
from statsgd.laws.domain import SmallNumber
from statsgd.laws.minimum.clipping import clipped_covariance
from statsgd.laws.minimum.linear_optimiser import (
    LinearOptimiser,
    linear_momentum,
)


class AdaptiveOptimiser(eqx.Module):
    """An optimiser that is linear, and moves every parameter by itself, once v stands still.

        v ← β₂ v + (1−β₂) (s g + λ θ)²,      z ← K(v) z + B(v) g,      z = (θ, buffers)

    with v taken after its update. A final class says what K and B are.
    """

    second_moment_decay: Float[Any, ""]
    """β₂."""
    gain: Float[Any, " d"]
    """s, what gradients are multiplied by before they are squared."""
    pull: Float[Any, " d"]
    """λ, the weight decay that is squared with them."""

    @abc.abstractmethod
    def frozen(self, second_moment: Float[Any, " d"]) -> LinearOptimiser:
        """K(v) and B(v) at v = `second_moment`."""

    def check(self, second_moment: Float[Any, "d d"]) -> None:
        """Raise `ValueError` where the gradients of the law, with this E ggᵀ, do not suit it."""

    def small_numbers(self, law: Any, spread: Float[Any, " d"]) -> Sequence[SmallNumber]:
        """What is small where the `law` holds: 1−β₂, with the sharpness, and this over its edge.

        Bounds are those up to which the law of one mode under normal noise is within 5 % in total
        variation, against `AdaptiveGaussian.refined` (β₁ = 0) and simulation (β₁ = .9).
        """
        forgotten = float(1 - self.second_moment_decay)
        return (
            SmallNumber("1−β₂", forgotten, 0.1),
            SmallNumber("(1−β₂) λ_max(R H)", float(forgotten * law.sharpness), 0.5),
            SmallNumber("λ_max(R H)/edge", float(law.sharpness / law.edge), 0.7),
        )

    def kicks(
        self, noise: Float[Any, "d d"], signal: Float[Any, "d d"]
    ) -> tuple[Float[Any, " d"], Float[Any, "d d"]]:
        """v at rest, but for mean gradients, and the covariance of what stands for ξ in B(v) ξ.

        **Arguments:** `noise` C; `signal`, the covariance of s∇L + λθ over the law.
        """
        return np.diagonal(self.gain[:, None] * noise * self.gain + signal), noise


class Adam(AdaptiveOptimiser):
    """Adam, AdamW and NAdam long after their start; RMSProp at β₁ = 0.

        g' = g + λθ,   m ← β₁m + (1−β₁)g',   v ← β₂v + (1−β₂)g'²
        θ ← (1−ηω) θ − η m/(√(v+ϵ₀)+ϵ),  with `nesterov` (β₁m + (1−β₁)g') in place of m

    **Arguments:** `learning_rate` η > 0, `momentum` β₁ and `second_moment_decay` β₂ in [0, 1),
    β₂ > 0; `epsilon` ϵ ≥ 0, outside the root, and `epsilon_in_root` ϵ₀ ≥ 0; `weight_decay` λ ≥ 0,
    `decoupled_weight_decay` ω ≥ 0; `dimension`. Raises `ValueError` for others.

    Source: Kingma, Ba (2015), arXiv:1412.6980; Loshchilov, Hutter (2019), arXiv:1711.05101.

    >>> import numpy as np
    >>> adam = Adam(learning_rate=0.01, momentum=0.9, second_moment_decay=0.999)
    >>> adam.frozen(np.array([4.0])).entry.round(6)  # (−η(1 − β₁)/√v, 1 − β₁)
    array([-0.0005,  0.1   ])
    """

    learning_rate: float
    momentum: float
    epsilon: float
    epsilon_in_root: float
    decoupled_weight_decay: float
    nesterov: bool

    def __init__(
        self,
        learning_rate: Any,
        momentum: Any = 0.9,
        second_moment_decay: Any = 0.999,
        epsilon: Any = 1e-8,
        *,
        epsilon_in_root: Any = 0.0,
        weight_decay: Any = 0.0,
        decoupled_weight_decay: Any = 0.0,
        nesterov: bool = False,
        dimension: int = 1,
    ):
        self.learning_rate = float(positive("learning_rate", learning_rate))
        self.momentum = float(fraction("momentum", momentum))
        self.second_moment_decay = np.float64(
            real(
                "second_moment_decay",
                second_moment_decay,
                allowed="in (0, 1)",
                valid=lambda b: (b > 0) & (b < 1),
            )
        )
        self.epsilon = float(non_negative("epsilon", epsilon))
        self.epsilon_in_root = float(non_negative("epsilon_in_root", epsilon_in_root))
        self.decoupled_weight_decay = float(
            non_negative("decoupled_weight_decay", decoupled_weight_decay)
        )
        self.nesterov = bool(nesterov)
        self.gain = np.ones(dimension)
        self.pull = np.full(dimension, float(non_negative("weight_decay", weight_decay)))

    def frozen(self, second_moment: Float[Any, " d"]) -> LinearOptimiser:
        """Normalised momentum with the learning rates η/(√(v+ϵ₀)+ϵ)."""
        scale = np.sqrt(second_moment + self.epsilon_in_root) + self.epsilon
        beta = self.momentum
        direct, kept = (1 - beta, beta) if self.nesterov else (0.0, 1.0)
        transition, entry = linear_momentum(
            np.diag(self.learning_rate / scale),
            beta,
            1 - beta,
            direct,
            kept,
            self.pull,
            self.decoupled_weight_decay * scale,
        )
        return of_one_parameter(transition, entry)


class SignDescent(AdaptiveOptimiser):
    """θ ← θ − η sign(g): RMSProp without memory, v = g².

    For a Gaussian gradient of covariance Γ = C + HPH around zero, in the mean sign(g) is
    √(2/π) g/√Γ_ii and the covariance of signs is (2/π) arcsin of that of g. What is not the
    mean is a kick as of independent noise.

    Source: *derived* (Stein's and Grothendieck's identities).

    >>> import numpy as np
    >>> SignDescent(learning_rate=0.01).frozen(np.array([4.0])).entry
    array([-0.00398942])
    """

    learning_rate: float

    def __init__(self, learning_rate: Any, dimension: int = 1):
        self.learning_rate = float(positive("learning_rate", learning_rate))
        self.second_moment_decay = np.float64(0.0)
        self.gain, self.pull = np.ones(dimension), np.zeros(dimension)

    def frozen(self, second_moment: Float[Any, " d"]) -> LinearOptimiser:
        """Gradient descent with the learning rates η√(2/π)/√v, v = diag Γ."""
        rates = self.learning_rate * np.sqrt(2 / np.pi / second_moment)
        return of_one_parameter(np.eye(len(rates)), -np.diag(rates))

    def small_numbers(self, law: Any, spread: Float[Any, " d"]) -> Sequence[SmallNumber]:
        """The step over the spread: 1 % of total variation at the bound, 4 % at 1.3."""
        return (SmallNumber("η/σ", float(np.max(self.learning_rate / spread)), 1.0),)

    def kicks(
        self, noise: Float[Any, "d d"], signal: Float[Any, "d d"]
    ) -> tuple[Float[Any, " d"], Float[Any, "d d"]]:
        """diag Γ, and the covariance of signs without the part that follows θ, over √(2/π)/√v."""
        total = noise + signal
        spread = np.sqrt(np.diagonal(total))
        outer = np.outer(spread, spread)
        return spread**2, outer * np.arcsin(np.clip(total / outer, -1, 1)) - signal


class ClippedOptimiser(AdaptiveOptimiser):
    """z ← K z + B clip(g), every element of g clipped at ±b.

    For a normal gradient of covariance Γ = C + HPH around zero, clip(g) is in the mean
    erf(b/√(2Γ_ii)) g; what is not the mean is a kick as of independent noise. Exact where the bound
    is never reached; sign descent by ηb where it always is.

    **Arguments:** `linear`, the optimiser behind, `bound` b > 0, loss/params. Source: *derived*
    (Stein's identity).

    >>> import numpy as np
    >>> clipped = ClippedOptimiser(LinearOptimiser.sgd(0.1), bound=1.0)
    >>> clipped.frozen(np.array([1.0])).entry.round(3)
    array([-0.068,  0.683])
    """

    linear: LinearOptimiser
    bound: float

    def __init__(self, linear: LinearOptimiser, bound: Any, dimension: int = 1):
        self.linear, self.bound = linear, float(positive("bound", bound))
        self.second_moment_decay = np.float64(0.0)
        self.gain, self.pull = np.ones(dimension), np.zeros(dimension)

    def frozen(self, second_moment: Float[Any, " d"]) -> LinearOptimiser:
        """With the learning rates times erf(b/√(2v)), v = diag Γ."""
        slope = self._slope(second_moment)
        if len(slope) == 1 and self.linear.uniform:
            return LinearOptimiser(self.linear.transition, self.linear.entry * slope[0])
        transition, entry = self.linear.matrices(len(slope))
        return LinearOptimiser(transition, entry * slope)

    def kicks(
        self, noise: Float[Any, "d d"], signal: Float[Any, "d d"]
    ) -> tuple[Float[Any, " d"], Float[Any, "d d"]]:
        """diag Γ, and the covariance of clip(g) without what follows θ, over the slopes."""
        total = noise + signal
        slope = self._slope(np.diagonal(total))
        return np.diagonal(total), clipped_covariance(total, self.bound) / np.outer(
            slope, slope
        ) - signal

    def small_numbers(self, law: Any, spread: Float[Any, " d"]) -> Sequence[SmallNumber]:
        """The largest step over the spread, times the share of elements that are clipped.

        Variances of two modes are within 1 % of simulation at the bound.
        """
        slope = self._slope(law.second_moment)
        step = self.bound * np.diagonal(law.learning_rates) / slope / spread
        return (SmallNumber("R b/σ P(|g|>b)", float(np.max((1 - slope) * step)), 1.0),)

    def _slope(self, second_moment: Any) -> Float[Any, " d"]:
        with np.errstate(divide="ignore"):
            return erf(self.bound / np.sqrt(2 * np.asarray(second_moment)))


def of_one_parameter(transition: Any, entry: Any) -> LinearOptimiser:
    """With one parameter in the form for parameters that move alike, which knows thresholds."""
    alone = entry.shape[1] == 1
    return LinearOptimiser(transition, entry[:, 0] if alone else entry)
