"""SGD near a stationary point that all examples share: a random walk of the log-distance."""

import itertools
from collections.abc import Sequence
from math import comb
from typing import Any, ClassVar, NamedTuple, Self

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float
from scipy.optimize import brentq

from statsgd.arguments import (
    count,
    finite_array,
    fraction,
    is_traced,
    non_negative,
    one_of,
    positive,
    random_seed,
    real,
)
from statsgd.laws.bases.gaussian import NormalLaw
from statsgd.laws.law import ImproperLawError, register
from statsgd.precision import formula

_MAX_BATCHES = 200_000


class BatchCurvature(NamedTuple):
    """The distribution of the mean curvature of a batch."""

    values: Float[Any, " n"]
    probabilities: Float[Any, " n"]


def batch_curvature(
    curvatures: Any, batch_size: int = 1, sampling: str = "with_replacement"
) -> BatchCurvature:
    """Every value that the mean of h over a batch can take, with its probability.

    `curvatures` `(N,)`, one an example. Equal curvatures are counted together, so two kinds of
    examples give batch_size + 1 values. Raises `ValueError` above 200 000 different batches.

    >>> batch_curvature([1.0, -0.5], batch_size=2)
    BatchCurvature(values=array([-0.5 ,  0.25,  1.  ]), probabilities=array([0.25, 0.5 , 0.25]))
    """
    h = np.asarray(finite_array("curvatures", curvatures, ndim=1), dtype=np.float64)
    s = count("batch_size", batch_size)
    one_of("sampling", sampling, ("with_replacement", "without_replacement"))
    if sampling == "without_replacement" and s > len(h):
        raise ValueError(f"batch_size must be at most N = {len(h)} without replacement, got {s}")
    kinds, numbers = np.unique(h, return_counts=True)
    batches = comb(s + len(kinds) - 1, s)
    if batches > _MAX_BATCHES:
        raise ValueError(
            f"batch_size = {s} with {len(kinds)} different curvatures gives {batches} different "
            f"batches, more than {_MAX_BATCHES}"
        )
    values, probabilities = [], []
    for batch in itertools.combinations_with_replacement(range(len(kinds)), s):
        chosen = np.bincount(batch, minlength=len(kinds))
        if sampling == "without_replacement":
            ways = np.prod([comb(n, k) for n, k in zip(numbers, chosen, strict=True)], dtype=float)
            probability = ways / comb(len(h), s)
        else:
            probability, left = 1.0, s
            for n, k in zip(numbers, chosen, strict=True):
                probability *= comb(left, int(k)) * (n / len(h)) ** int(k)
                left -= int(k)
        values.append(float(chosen @ kinds) / s)
        probabilities.append(float(probability))
    return BatchCurvature(np.array(values), np.array(probabilities))


@register
class LogMultiplicativeWalk(NormalLaw):
    """Law of log|w| after k steps of SGD near a stationary point common to all examples.

    Example losses h w²/2 with random h give w ← (1 − ηλ − η mean_B h) w, so that log|w| is a
    random walk with

        Λ = E log|1 − ηλ − η mean_B h|,   V = Var log|…|,   log|w_k| ≈ N(log|w₀| + kΛ, kV)

    Λ < 0: w → 0 in probability, also where E h < 0 and the point is a maximum, while E w and E w²
    grow. Λ > 0: SGD leaves at the rate Λ per step, also from a minimum. The sign of E h decides
    nothing. Mean and variance are exact, the shape is the central limit.

    `params` is (log|w_k|,). There is no stationary law of w; this one moves with k.

    **Arguments:** `curvatures` `(n,)`, the values of mean_B h, and their `probabilities`
    (`batch_curvature`; equal by default); `learning_rate`; `steps` k; `weight_decay`; `start` |w₀|.
    Raises `ImproperLawError` where a batch has η(mean_B h + λ) = 1: w is annihilated in one step.

    Source: Ziyin, Li, Simon, Ueda (2022), arXiv:2107.11774, for the phenomenon; the formulas are
    derived.

    >>> law = LogMultiplicativeWalk([1.0, -0.5], learning_rate=0.1, steps=100)
    >>> round(float(law.mean()[0]), 3), round(float(law.covariance()[0, 0]), 3)
    (-2.829, 0.594)
    """

    setting: ClassVar[str] = "SGD without momentum near a stationary point shared by all examples"
    exactness: ClassVar[str] = "exact mean and variance of log|w|; normal for many steps"
    citation: ClassVar[str] = "Ziyin, Li, Simon, Ueda (2022), arXiv:2107.11774"

    curvatures: Float[Any, " n"]
    probabilities: Float[Any, " n"]
    learning_rate: Float[Any, ""]
    steps: Float[Any, ""]
    weight_decay: Float[Any, ""]
    start: Float[Any, ""]
    step_mean: Float[Any, ""]
    step_spread: Float[Any, ""]

    def __init__(
        self,
        curvatures: Any,
        learning_rate: Any,
        steps: Any,
        *,
        probabilities: Any = None,
        weight_decay: Any = 0.0,
        start: Any = 1.0,
    ):
        self.curvatures = finite_array("curvatures", curvatures, ndim=1)
        n = self.curvatures.shape[0]
        if probabilities is None:
            self.probabilities = np.full(n, 1 / n)
        else:
            self.probabilities = non_negative("probabilities", probabilities)
            if not is_traced(probabilities) and (
                self.probabilities.shape != (n,) or abs(np.sum(self.probabilities) - 1) > 1e-9
            ):
                raise ValueError(
                    f"probabilities must have shape ({n},) and sum to 1, got {probabilities!r}"
                )
        self.learning_rate = positive("learning_rate", learning_rate)
        self.steps = positive("steps", steps)
        self.weight_decay = non_negative("weight_decay", weight_decay)
        self.start = positive("start", start)
        factors = self._factors()
        try:
            _require_spread(factors, self.probabilities)
            moments = _moments(factors, self.probabilities, self.steps, self.start)
        except ImproperLawError:
            nan = np.full((1, 1), np.nan)
            moments = nan[0, 0], nan[0, 0], nan[0], nan
        self.step_mean, self.step_spread, self.location, self.joint = moments

    @classmethod
    def of_batches(
        cls,
        curvatures: Any,
        learning_rate: Any,
        steps: Any,
        batch_size: int,
        sampling: str = "with_replacement",
        **options: Any,
    ) -> Self:
        """The law for batches of `batch_size` from examples with the given `curvatures`."""
        batches = batch_curvature(curvatures, batch_size, sampling)
        return cls(
            batches.values, learning_rate, steps, probabilities=batches.probabilities, **options
        )

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """A maximum that SGD collapses to, and one that a larger batch leaves."""
        return (
            cls([1.0, -1.2], 0.5, 100),
            cls.of_batches([1.0, -1.2], 0.5, 100, 4, weight_decay=0.1),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A batch that annihilates the weight."""
        return (cls([1.0, -1.2], 1.0, 100),)

    def growth_rate(self) -> Float[Any, ""]:
        """Λ per step; negative where SGD collapses onto the point."""
        self.require_proper()
        return self.step_mean

    def step_variance(self) -> Float[Any, ""]:
        """V per step."""
        self.require_proper()
        return self.step_spread

    def moment_growth_rate(self, order: Any) -> float:
        """log E|1 − ηλ − η mean_B h|^q per step, by which log E|w_k|^q grows, q = `order`.

        Also where a batch annihilates w, or all batches act alike.
        """
        power = positive("order", order)
        with np.errstate(divide="ignore"):
            return float(np.log(np.abs(self._factors()) ** power @ self.probabilities))

    def probability_below(self, fraction_of_start: Any) -> Float[Any, "..."]:
        """P(|w_k| < e|w₀|) for e = `fraction_of_start`."""
        level = np.log(positive("fraction_of_start", fraction_of_start) * self.start)
        return self.cdf(level[..., None])[..., 0]

    def model(self, obs: Float[Any, "n 1"] | None = None) -> None:
        """Site `params`, log|w_k|, and its push-forward `magnitude` |w_k|."""
        self.require_proper()
        normal = dist.Normal(self.location, jnp.sqrt(self.joint[0])).to_event(1)
        if obs is not None:
            with numpyro.plate("replica", obs.shape[0]):
                numpyro.sample("params", normal, obs=obs)
            return
        params = numpyro.sample("params", normal)
        numpyro.deterministic("magnitude", jnp.exp(params))

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless every factor is non-zero and they differ."""
        _require_spread(self._factors(), self.probabilities)

    def _factors(self) -> Float[Any, " n"]:
        return 1 - self.learning_rate * (self.weight_decay + self.curvatures)


def _require_spread(factors: Float[Any, " n"], probabilities: Float[Any, " n"]) -> None:
    if is_traced(factors, probabilities):
        return
    sizes = np.abs(factors)[probabilities > 0]
    if np.min(sizes) < 1e-12:
        raise ImproperLawError(
            "exact annihilation in one step: learning_rate*(h + weight_decay) = 1 has positive "
            "probability, so the growth rate is minus infinity"
        )
    if np.max(sizes) - np.min(sizes) < 1e-12 * np.max(sizes):
        raise ImproperLawError(
            "the walk does not spread: every batch has |1 - learning_rate*(h + weight_decay)| "
            f"= {sizes[0]:.6g}, variance 0 and must exceed 0"
        )


@formula
def _moments(factors: Any, probabilities: Any, steps: Any, start: Any) -> tuple[Any, ...]:
    """Λ, V, and mean `(1,)` and covariance `(1, 1)` of log|w_k|."""
    # Values that cannot occur may be zero: they weigh nothing.
    logs = jnp.log(jnp.where(probabilities > 0, jnp.abs(factors), 1.0))
    rate = logs @ probabilities
    variance = (logs - rate) ** 2 @ probabilities
    mean = jnp.log(start) + steps * rate
    return rate, variance, jnp.reshape(mean, (1,)), jnp.reshape(steps * variance, (1, 1))


def moment_threshold(
    curvatures: Any, order: Any, *, probabilities: Any = None, weight_decay: Any = 0.0
) -> float:
    """The learning rate up to which E|w_k|^q decays, q = `order` ≥ 1: E|1 − η(λ + h)|^q = 1.

    2 E h/E h² for q = 2; the higher the order, the lower. Zero where E h + λ ≤ 0: such moments grow
    at any learning rate. `curvatures` and `probabilities` as in `LogMultiplicativeWalk`.

    Source: derived.

    >>> round(moment_threshold([1.0, 2.0], order=2), 4)  # 2 E h/E h²
    1.2
    """
    h = np.asarray(finite_array("curvatures", curvatures, ndim=1), dtype=np.float64)
    weights = np.full(len(h), 1 / len(h)) if probabilities is None else np.asarray(probabilities)
    power = real("order", order, allowed="at least 1", valid=lambda q: q >= 1)
    rates = h + non_negative("weight_decay", weight_decay)
    if weights @ rates <= 0:
        return 0.0
    # Convex in η, 1 at η = 0 and falling there; above 1 where |1 − ηh|^q of one value alone is.
    top = np.max(rates[weights > 0])
    share = float(np.sum(weights[rates == top]))

    def excess(eta: float) -> float:
        return float(np.abs(1 - eta * rates) ** power @ weights) - 1

    low = 1 / top
    while excess(low) >= 0:
        low /= 2
    return float(brentq(excess, low, (1 + share ** (-1 / power)) / top * 1.001, xtol=1e-300))


def collapse_window(a: Any) -> tuple[float, float]:
    """Learning rates at which SGD collapses onto a maximum, for h ∈ {1, a−1} equally often.

    a/(a−1) < η < (a − √(a²−8a+8))/(2(a−1)) for a < 0, where E h = a/2 < 0 makes w = 0 a maximum;
    batch size 1, no weight decay. Source: derived, from Ziyin et al. (2022), arXiv:2107.11774.

    >>> low, high = collapse_window(-1.0)
    >>> round(low, 4), round(high, 4)
    (0.5, 1.2808)
    """
    value = float(real("a", a, allowed="negative", valid=lambda x: x < 0))
    root = np.sqrt(value**2 - 8 * value + 8)
    return value / (value - 1), float((value - root) / (2 * (value - 1)))


class LyapunovEstimate(NamedTuple):
    """A growth rate per step with its standard error."""

    rate: float
    standard_error: float


def momentum_growth_rate(
    curvatures: Any,
    learning_rate: Any,
    momentum: Any,
    *,
    probabilities: Any = None,
    steps: int = 2000,
    replicas: int = 1000,
    seed: int,
) -> LyapunovEstimate:
    """Λ of heavy-ball SGD: the top Lyapunov exponent of products of [[1−ηh, −ηβ], [h, β]].

    By a run that is renormalised at every step; with momentum Λ is not a function of η/(1−β)
    alone. `curvatures` and `probabilities` as in `LogMultiplicativeWalk`. Source: derived.

    >>> found = momentum_growth_rate([1.0], 0.5, 0.0, steps=10, replicas=10, seed=0)
    >>> round(float(found.rate), 4)  # ln(1 − ηh)
    -0.6931
    """
    h = np.asarray(finite_array("curvatures", curvatures, ndim=1), dtype=np.float64)
    eta, beta = positive("learning_rate", learning_rate), fraction("momentum", momentum)
    number = count("replicas", replicas, at_least=2)
    rng = np.random.default_rng(random_seed(seed))
    weight, buffer = np.ones(number), np.zeros(number)
    total = np.zeros(number)
    burn = 100
    for step in range(burn + count("steps", steps)):
        drawn = rng.choice(h, size=number, p=probabilities)
        buffer = beta * buffer + drawn * weight
        weight = weight - eta * buffer
        size = np.hypot(weight, buffer)
        weight, buffer = weight / size, buffer / size
        if step >= burn:
            total += np.log(size)
    rates = total / steps
    return LyapunovEstimate(float(rates.mean()), float(rates.std(ddof=1) / np.sqrt(number)))
