"""Stationary moments of minibatch SGD on linear regression, where the noise follows the state."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq

from statsgd.arguments import (
    count,
    fraction,
    is_traced,
    kinds_checked,
    location_vector,
    non_negative,
    positive,
    symmetric,
)
from statsgd.dynamics.noise import Minibatch
from statsgd.dynamics.sgd import SGD
from statsgd.laws.domain import SmallNumber
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.minimum.gaussian import MinimumGaussian, eigenmodes, joint_covariance
from statsgd.laws.minimum.heavy_ball import (
    HeavyBallGaussian,
    heavy_ball_moments,
    require_settled_chain,
    require_stable_mean,
)
from statsgd.laws.minimum.regression_shape import regression_shape
from statsgd.laws.minimum.second_moments import (
    feedback_covariance,
    feedback_gain,
    feedback_noise,
    stability_threshold,
)
from statsgd.problems import LinearRegression, Problem, linear_regression

_SHAPED = 4  # parameters up to which fourth moments are solved for in a moment
_FLAT = 1e-12  # of the largest curvature: what counts as none
_ROUNDING = 1e-12  # of the size of a prediction: a residual that is none


@register
class LinearRegressionGaussian(MinimumGaussian):
    """The Gaussian with the exact first two moments of minibatch SGD on least squares.

    The gradient noise of a minibatch grows away from the minimum μ: with x = θ − μ, example
    Hessians H_i = φ_iφ_iᵀ and p = C/Σ₁ (1/S with replacement),

        E C = C(μ) + p ( mean_i φ_iφ_iᵀ (φ_iᵀPφ_i) − HPH ),     P = Cov θ

    and P solves the heavy-ball moment equation with this C. The map P → Cov θ is linear and
    positive; its spectral radius, the *feedback gain*, is proportional to p. Moments are finite,
    from any start, iff 0 < ηh < 2(1+β) and the gain is below 1, which is a condition on the batch
    size. It holds also where the data leave no noise at the minimum and the law is a point.

    Moments are exact at any learning rate. The true marginals are not Gaussian: compare variances
    and the bulk, not tails. `regression_shape` has their exact skewness and kurtosis, which is
    above the Gaussian one or, with few examples and large steps, below it; fresh Gaussian inputs
    make power laws of the tails (`regression_tail_index`). Total variation of marginals is below
    5 % where the skewness is at most 0.3 and the excess kurtosis at most 0.15, either sign; above
    four parameters, where these are not computed, where the feedback gain is at most 0.05
    (measured on 200 examples, for one and eight parameters).

    Build it with `from_sgd` (a finite data set, i.i.d. batches) or `gaussian_inputs` (fresh data).

    Source: Mulayoff, Michaeli (2024), arXiv:2306.07850, for finite data without momentum; Ziyin,
    Liu, Mori, Ueda (2022), arXiv:2102.05375, for Gaussian inputs; momentum and weight decay with
    finite data are derived.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> problem = problems.linear_regression(np.ones((2, 1)), np.array([1.0, 3.0]))
    >>> law = LinearRegressionGaussian.from_sgd(problem, SGD(0.1, noise.Minibatch(1)))
    >>> law.mean().round(4), law.covariance().round(4)
    (array([2.]), array([[0.0526]]))
    """

    setting: ClassVar[str] = "heavy-ball SGD, linear regression, i.i.d. minibatches"
    exactness: ClassVar[str] = (
        "exact first two moments; marginals within 5 % up to skewness 0.3, excess kurtosis 0.15"
    )
    citation: ClassVar[str] = (
        "Mulayoff, Michaeli (2024), arXiv:2306.07850; Ziyin et al. (2022), arXiv:2102.05375"
    )

    feedback_gain: Float[Any, ""]
    batch_size: Int[Any, ""]
    critical_batch_size: Float[Any, ""]

    @classmethod
    def from_sgd(cls, problem: Problem, sgd: SGD) -> Self:
        """The law for minibatch `sgd` on a `linear_regression` problem.

        Raises `ValueError` for another problem or noise, `ImproperLawError` (from the first use)
        if the moments are infinite. Cost: N d² an iteration, tens of iterations.
        """
        data = _finite_data(problem, sgd)
        joint, gain = _solve(data, float(sgd.learning_rate), float(sgd.momentum))
        return cls(
            data.location,
            joint,
            data.vectors * data.hessian @ data.vectors.T,
            sgd.learning_rate,
            sgd.momentum,
            sgd.weight_decay,
            np.float64(gain),
            np.int64(data.batch_size),
            np.float64(data.critical_batch_size(gain)),
        )

    @classmethod
    def gaussian_inputs(
        cls,
        input_covariance: Any,
        label_noise: Any,
        batch_size: int,
        learning_rate: Any,
        momentum: Any = 0.0,
        location: Any = None,
    ) -> Self:
        """The law for fresh data x ~ N(0, A), y = x·θ* + noise of variance `label_noise` ≥ 0.

        In closed form, with G = 2(1−β)I − ((1−β)/(1+β) + 1/S)ηA and T = Tr[ηAG⁻¹]: Cov θ =
        (σ²/S) ηG⁻¹/(1 − T/S). No weight decay. The condition is G > 0 and T < S.
        """
        a = symmetric("input_covariance", input_covariance, definite="positive")
        sigma2 = float(non_negative("label_noise", label_noise))
        s = count("batch_size", batch_size)
        eta, beta = positive("learning_rate", learning_rate), fraction("momentum", momentum)
        eigenvalues, q = np.linalg.eigh(a)
        gain = _gaussian_gain(eigenvalues, float(eta), float(beta), s)
        d = len(eigenvalues)
        joint = np.full((2 * d, 2 * d), np.nan)
        if gain < 1 and eta * eigenvalues[-1] < 2 * (1 + beta):
            g = _g(eigenvalues, float(eta), float(beta), s)
            params = sigma2 / s * eta / g / (1 - gain)
            buffer = 2 * eigenvalues * params / (eta * (1 + beta))
            blocks = (params, -eta / 2 * buffer, buffer)
            joint = joint_covariance(q, *(np.diag(block) for block in blocks))
        place = location_vector(location, d)
        return cls(
            place,
            joint,
            a,
            eta,
            beta,
            np.float64(0.0),
            np.float64(gain),
            np.int64(s),
            np.float64(_gaussian_critical_batch_size(eigenvalues, float(eta), float(beta))),
        )

    def small_numbers(self, problem: Problem, sgd: SGD) -> Sequence[SmallNumber]:
        """Skewness and excess kurtosis, largest of all parameters; the feedback gain if d > 4."""
        if self.dimension * (2 if self.momentum > 0 else 1) > _SHAPED:
            return (SmallNumber("feedback gain", float(self.feedback_gain), 0.05),)
        try:
            shape = regression_shape(problem, sgd)
            largest = [float(np.max(np.abs(np.nan_to_num(moment)))) for moment in shape]
        except ImproperLawError:  # fourth moments are infinite
            largest = [np.inf, np.inf]
        return (
            SmallNumber("|skewness|", largest[0], 0.3),
            SmallNumber("|excess kurtosis|", largest[1], 0.15),
        )

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Fresh Gaussian inputs, and six examples in two dimensions."""
        inputs = [[1.0, 0], [0, 1], [1, 1], [2, -1], [-1, 0.5], [0.5, 2]]
        problem = linear_regression(inputs, [1.0, -1, 0.5, 2, 0, -1.5])
        return (
            cls.gaussian_inputs([[1.0]], 1.0, 4, 0.5),
            cls.from_sgd(problem, SGD(0.1, Minibatch(2), momentum=0.5, weight_decay=0.1)),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A batch too small for its learning rate, and a mean that diverges."""
        return (
            cls.gaussian_inputs(np.diag([2.0, 1.0, 0.5]), 0.5, 4, 0.65),
            cls.gaussian_inputs([[1.0]], 1.0, 4, 2.5),
        )

    def equivalent_chain(self) -> HeavyBallGaussian:
        """The chain with constant noise that has the same first two moments, at all times too.

        Its noise is E C over this law. As the mean of a step is linear in θ whatever the noise is,
        autocorrelations, stationary displacements and currents agree as well: hand it to
        `mean_squared_displacement`, `stochastic_area` and the like. Not for starts from rest,
        where the noise of this law is still that of the minimum.
        """
        self.require_proper()
        h, q = self.modes()
        unit = heavy_ball_moments(h, np.ones((len(h), len(h))), self.learning_rate, self.momentum)
        noise = q @ (q.T @ self.covariance() @ q / unit[0]) @ q.T
        return HeavyBallGaussian(
            self.hessian,
            (noise + noise.T) / 2,
            self.learning_rate,
            self.momentum,
            self.weight_decay,
            self.location,
        )

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless 0 < ηh < 2(1+β) and the feedback gain is below 1."""
        if is_traced(self.hessian, self.learning_rate, self.feedback_gain):
            return
        require_settled_chain(self)
        if not self.feedback_gain < 1:
            raise ImproperLawError(
                f"the variance of SGD is infinite: the noise feedback has gain "
                f"{float(self.feedback_gain):.6g} ≥ 1; at learning_rate = "
                f"{float(self.learning_rate):.6g} batch_size must be above "
                f"{float(self.critical_batch_size):.6g}, got {int(self.batch_size)}"
            )


@kinds_checked
def critical_learning_rate(problem: Problem, sgd: SGD) -> float:
    """The learning rate at which the variance of `sgd` on `problem` becomes infinite.

    At least from starts away from the minimum, where the data leave no noise there. Never above
    2(1+β)/(h_max+λ), where the mean diverges, and equal to it for a full batch. Directions that no
    input has a share in count for nothing; infinite if there are no others. `sgd.learning_rate` is
    not used. For i.i.d. minibatches; otherwise `ValueError`.

    >>> import numpy as np
    >>> from statsgd import noise
    >>> from statsgd.problems import linear_regression
    >>> problem = linear_regression(np.ones((2, 1)), np.array([1.0, 3.0]))
    >>> round(critical_learning_rate(problem, SGD(0.1, noise.Minibatch(1))), 4)
    2.0
    """
    data = _finite_data(problem, sgd).without_flat_directions()
    if not len(data.curvatures):
        return np.inf
    return stability_threshold(data.feedback_noise, data.curvatures, float(sgd.momentum))


def gaussian_critical_learning_rate(
    input_covariance: Any, batch_size: int, momentum: Any = 0.0
) -> float:
    """As `critical_learning_rate`, for fresh Gaussian inputs with the covariance given.

    >>> import numpy as np
    >>> round(gaussian_critical_learning_rate(np.eye(2), batch_size=1), 4)  # 2S/(S + d + 1)
    0.5
    """
    a = np.linalg.eigvalsh(symmetric("input_covariance", input_covariance, definite="positive"))
    beta, s = float(fraction("momentum", momentum)), count("batch_size", batch_size)
    # Where G is positive: T/S grows from zero to infinity.
    highest = 2 * (1 - beta) / (((1 - beta) / (1 + beta) + 1 / s) * a[-1])

    def excess(eta: float) -> float:
        gain = _gaussian_gain(a, eta, beta, s)
        return 1 - 1 / gain if np.isfinite(gain) else 1.0

    return float(brentq(excess, 1e-9 * highest / len(a), highest, xtol=1e-300, rtol=1e-14))


class _FiniteData(NamedTuple):
    """Least squares in the eigenbasis of H + λI, about the stationary mean."""

    location: Float[Any, " d"]
    vectors: Float[Any, "d d"]
    curvatures: Float[Any, " d"]
    hessian: Float[Any, " d"]
    features: Float[Any, "N d"]
    noise: Float[Any, "d d"]
    factor: float
    batch_size: int
    replacement: bool

    def critical_batch_size(self, gain: float) -> float:
        """The batch size at which the gain, proportional to C/Σ₁, would be one."""
        if not 0 < gain < np.inf:
            return 0.0 if gain == 0 else np.inf
        factor, n = self.factor / gain, len(self.features)
        return 1 / factor if self.replacement else n / (1 + factor * (n - 1))

    def feedback_noise(self, params: Float[Any, "d d"]) -> Float[Any, "d d"]:
        """E C − C(μ) where Cov θ = `params`."""
        return feedback_noise(self.features, self.hessian, self.factor, params)

    def without_flat_directions(self) -> "_FiniteData":
        """The data in the directions that have curvature."""
        kept = self.curvatures > _FLAT * np.max(self.curvatures)
        return self._replace(
            vectors=self.vectors[:, kept],
            curvatures=self.curvatures[kept],
            hessian=self.hessian[kept],
            features=self.features[:, kept],
            noise=self.noise[np.ix_(kept, kept)],
        )


def _finite_data(problem: Problem, sgd: SGD) -> _FiniteData:
    if not isinstance(problem, LinearRegression):
        raise ValueError(
            f"the law speaks about linear_regression problems, got {type(problem).__name__}"
        )
    sgd.require_heavy_ball()
    if not (isinstance(sgd.noise, Minibatch) and sgd.noise.white):
        raise ValueError(f"the law needs i.i.d. Minibatch noise, got {sgd.noise!r}")
    sgd.noise.check(problem)
    decay = float(sgd.weight_decay)
    location = problem.minimiser(decay)
    curvatures, q = eigenmodes(problem.hessian_matrix(), decay)
    inputs, targets = np.asarray(problem.inputs, np.float64), np.asarray(problem.targets)
    features = inputs @ q
    residuals = inputs @ location - targets
    # Data that are fitted but for rounding leave no noise.
    residuals[np.abs(residuals) <= _ROUNDING * (np.abs(inputs) @ np.abs(location))] = 0.0
    gradients = residuals[:, None] * features
    gradients -= gradients.mean(0)
    factor = sgd.noise.variance_factor(problem)
    return _FiniteData(
        location,
        q,
        curvatures,
        curvatures - decay,
        features,
        factor * gradients.T @ gradients / len(residuals),
        factor,
        sgd.noise.batch_size,
        sgd.noise.sampling == "with_replacement",
    )


def _solve(data: _FiniteData, eta: float, beta: float) -> tuple[np.ndarray, float]:
    """The covariance of (θ, m), NaN where it is infinite, and the feedback gain."""
    h = data.curvatures
    nowhere = np.full((2 * len(h), 2 * len(h)), np.nan)
    try:
        require_stable_mean(h, eta, beta)
    except ImproperLawError:
        return nowhere, np.inf
    gain = feedback_gain(data.feedback_noise, h, eta, beta)
    if not gain < 1:
        return nowhere, gain
    params = feedback_covariance(data.feedback_noise, data.noise, h, eta, beta)
    moments = heavy_ball_moments(h, data.noise + data.feedback_noise(params), eta, beta)
    return joint_covariance(data.vectors, *moments), gain


def _g(a: np.ndarray, eta: float, beta: float, s: int) -> np.ndarray:
    return 2 * (1 - beta) - ((1 - beta) / (1 + beta) + 1 / s) * eta * a


def _gaussian_gain(a: np.ndarray, eta: float, beta: float, s: int) -> float:
    """T/S, infinite where G is not positive."""
    g = _g(a, eta, beta, s)
    return float(np.sum(eta * a / g) / s) if np.all(g > 0) else np.inf


def _gaussian_critical_batch_size(a: np.ndarray, eta: float, beta: float) -> float:
    """S at which T/S = 1; infinite where no batch is large enough."""
    constant = 2 * (1 - beta) - (1 - beta) / (1 + beta) * eta * a
    if np.any(constant <= 0):
        return np.inf
    # With G = constant − ηa/S the gain is Σ ηa/(S·constant − ηa): decreasing in S.
    low, high = np.max(eta * a / constant), np.max(eta * a / constant) * (2 + len(a))
    return float(
        brentq(
            lambda s: 1 - 1 / np.sum(eta * a / (s * constant - eta * a)), low * (1 + 1e-12), high
        )
    )
