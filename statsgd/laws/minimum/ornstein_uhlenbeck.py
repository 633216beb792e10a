"""The first-order Ornstein–Uhlenbeck law of SGD near a minimum, and the rate it recommends."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float

from statsgd.arguments import count, fraction, is_traced, positive, symmetric
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.minimum.gaussian import ConstantNoiseGaussian, MinimumGaussian, eigenmodes
from statsgd.precision import formula


@register
class OrnsteinUhlenbeckLaw(ConstantNoiseGaussian):
    """Stationary law of the first-order SDE of SGD on a quadratic with constant noise.

    (1−β) dθ = −(H+λI)(θ−location) dt + √(ηC) dW is stationary with Cov θ = V,

        HV + VH = ηC/(1−β)        (H including λ; V_ij = ηC_ij/((1−β)(h_i+h_j)) in its eigenbasis)

    a Gaussian law even where H and C do not commute and the flux does not vanish (see
    `zero_flux_residual`). It knows no velocity and no finite learning rate: `HeavyBallGaussian` is
    the law of the chain, larger by 1/(1 − ηh/(2(1+β))) in a mode where the two commute, and with
    momentum this one drops their (h_i−h_j)² term as well.

    **Arguments:** as `HeavyBallGaussian`.

    Source: Mandt, Hoffman, Blei (2017), arXiv:1704.04289.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> bowl = problems.quadratic(np.diag([2.0]))
    >>> law = OrnsteinUhlenbeckLaw.from_sgd(bowl, SGD(0.1, noise.Isotropic(1.0)))
    >>> law.covariance().round(4)  # ηC/(2h)
    array([[0.025]])
    """

    setting: ClassVar[str] = "SGD near a minimum, first-order SDE, constant noise covariance"
    exactness: ClassVar[str] = "exact for its SDE; relative error about ηh/(2(1+β)) for the chain"
    citation: ClassVar[str] = "Mandt, Hoffman, Blei (2017), arXiv:1704.04289"

    def __init__(
        self,
        hessian: Any,
        noise_covariance: Any,
        learning_rate: Any,
        momentum: Any = 0.0,
        weight_decay: Any = 0.0,
        location: Any = None,
    ):
        super().__init__(hessian, noise_covariance, learning_rate, momentum, weight_decay, location)
        self.joint = self._where_proper(_covariance)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Noise that does not commute with the curvature, without and with momentum."""
        skew = [[1.0, 0.6], [0.6, 0.8]]
        return (
            cls(np.diag([2.0, 0.5]), skew, 0.1),
            cls(np.diag([2.0, 0.5]), skew, 0.1, 0.9, 0.1, location=[0.5, -1.0]),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A flat direction, and a saddle."""
        return cls(np.diag([1.0, 0.0]), np.eye(2), 0.1), cls(np.diag([1.0, -1.0]), np.eye(2), 0.1)

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless H + λI is positive definite."""
        require_settled_position(self)


@formula
def _covariance(hessian: Any, noise: Any, eta: Any, beta: Any, decay: Any) -> Any:
    h, q = eigenmodes(hessian, decay)
    return q @ (eta * (q.T @ noise @ q) / ((1 - beta) * (h[:, None] + h))) @ q.T


def require_settled_position(law: MinimumGaussian) -> None:
    """Raise `ImproperLawError` unless H + λI is positive definite."""
    if is_traced(law.hessian, law.weight_decay):
        return
    smallest = float(law.modes().curvatures[0])
    if smallest <= 0:
        raise ImproperLawError(
            f"hessian + weight_decay*I has eigenvalue {smallest:.6g} ≤ 0 (mode 0): the "
            "position does not settle"
        )


def optimal_learning_rate(
    noise_covariance: Float[Any, "d d"], num_examples: int, momentum: float = 0.0
) -> float:
    """The η at which the Ornstein–Uhlenbeck law is nearest to the posterior N(θ*, (NH)⁻¹).

    η* = 2d(1−β)/(N tr C), whatever H: it minimises `posterior_divergence`. C is the covariance of
    one stochastic gradient, `(d, d)`. Raises `ValueError` unless tr C > 0 and N ≥ 1.

    Source: Mandt, Hoffman, Blei (2017), arXiv:1704.04289.

    >>> import numpy as np
    >>> round(optimal_learning_rate(np.eye(2), num_examples=100), 4)  # 2d/(N tr C)
    0.02
    """
    c = symmetric("noise_covariance", noise_covariance)
    trace = float(positive("the trace of noise_covariance", np.trace(c)))
    number = count("num_examples", num_examples)
    return 2 * len(c) * (1 - float(fraction("momentum", momentum))) / (number * trace)


def posterior_divergence(law: MinimumGaussian, num_examples: int) -> float:
    """Kullback–Leibler divergence (nats) of `law` from N(location, (N(H+λI))⁻¹).

    What SGD's stationary law loses as an approximation of the posterior that the mean loss of N
    examples stands for. Raises `ImproperLawError` as the law does.

    >>> import numpy as np
    >>> from statsgd.laws import OrnsteinUhlenbeckLaw
    >>> law = OrnsteinUhlenbeckLaw(np.eye(2), np.eye(2), learning_rate=0.02)
    >>> abs(posterior_divergence(law, num_examples=100)) < 1e-9  # at the optimal learning rate
    True
    """
    number = count("num_examples", num_examples)
    h, q = law.modes()
    covariance = q.T @ law.covariance() @ q
    _, log_determinant = np.linalg.slogdet(covariance)
    fit = np.sum(number * h * np.diagonal(covariance)) - len(h)
    return float(0.5 * (fit - log_determinant - np.sum(np.log(number * h))))
