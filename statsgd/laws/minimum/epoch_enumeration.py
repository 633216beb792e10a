"""Exact moments of reshuffled SGD on a small regression, from all orders of the data."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float

from statsgd.arguments import is_traced
from statsgd.dynamics.noise import Minibatch
from statsgd.dynamics.sgd import SGD
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.minimum.epoch_noise import epoch_phase
from statsgd.laws.minimum.gaussian import MinimumGaussian
from statsgd.problems import LinearRegression, Problem, linear_regression

_MOST_STEPS = 50_000  # from one set of seen examples to a larger one
_MOST_ENTRIES = 20_000_000  # of the maps of second moments kept at a time


@register
class ReshuffledRegressionGaussian(MinimumGaussian):
    """The Gaussian with the exact first two moments of reshuffled SGD on a small least squares.

    With x = θ − μ and z = (x, m, 1) a step on a batch b is z ← A_b z, and an epoch its product over
    a random order of the data, independent of z. So E zzᵀ at epoch ends is the fixed point of
    E (A_bM…A_b1) ⊗ (A_bM…A_b1), and j steps later the same mean over the first j batches. The mean
    over orders runs over sets of examples seen: of U, that over the last batch of

        G(U) = mean over b ⊂ U of (A_b ⊗ A_b) G(U∖b),        G(∅) = 1

    which is the sum over all N!/(S!)^M orders in 2^N terms. Noise that grows away from the minimum,
    curvature that differs between examples and the shift of the mean are all in it: what is left
    out of `EpochNoiseGaussian`, `reshuffle_mean_shift` and `reshuffle_effective_loss` can be read
    off. Moments exist iff that mean contracts second moments.

    `phase` is as in `EpochNoiseGaussian`; at a `"random"` one moments are those of the mixture.
    Moments are exact at any learning rate; the law itself is a mixture over orders, not Gaussian.

    Source: *derived*.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> problem = problems.linear_regression(np.ones((4, 1)), np.array([1.0, 2.0, 3.0, 4.0]))
    >>> sgd = SGD(0.1, noise.Minibatch(1, "reshuffle"))
    >>> law = ReshuffledRegressionGaussian.from_sgd(problem, sgd, phase="random")
    >>> law.covariance().round(4)
    array([[0.0104]])
    """

    setting: ClassVar[str] = "heavy-ball SGD, linear regression, reshuffled epochs, few examples"
    exactness: ClassVar[str] = "exact first two moments at any learning rate; not Gaussian"
    citation: ClassVar[str] = "derived"

    buffer_mean: Float[Any, " d"]
    contraction: Float[Any, ""]
    """Spectral radius of the epoch's map of second moments."""

    @classmethod
    def from_sgd(cls, problem: Problem, sgd: SGD, phase: int | str = 0) -> Self:
        """The law for `sgd` with `Minibatch(S, "reshuffle")` noise on `linear_regression`.

        Raises `ValueError` for other problems and noise, if S does not divide N, and for more
        examples or parameters than can be enumerated (N = 12 at S = 1, d = 2 are few enough).
        """
        sgd.require_heavy_ball()
        if not isinstance(problem, LinearRegression):
            raise ValueError(
                f"the law speaks about linear_regression problems, got {type(problem).__name__}"
            )
        noise = sgd.noise
        if not (isinstance(noise, Minibatch) and noise.sampling == "reshuffle"):
            raise ValueError(f"the law needs Minibatch noise sampled by 'reshuffle', got {noise}")
        noise.check(problem)
        noise.require_equal_batches(problem.num_examples)
        n, d = problem.num_examples, problem.dimension
        moment = epoch_phase(phase, n // noise.batch_size)
        location = problem.minimiser(float(sgd.weight_decay))
        maps = _epoch_maps(_example_steps(problem, sgd, location), noise.batch_size)
        mean, joint, radius = _moments(maps, moment)
        return cls(
            location + mean[:d],
            joint,
            problem.hessian_matrix(),
            sgd.learning_rate,
            sgd.momentum,
            sgd.weight_decay,
            mean[d:],
            np.float64(radius),
        )

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """Six examples in two dimensions, at epoch ends and at a random step."""
        sgd = SGD(0.1, Minibatch(2, "reshuffle"), momentum=0.5, weight_decay=0.1)
        yield cls.from_sgd(_six_examples(), sgd)
        yield cls.from_sgd(_six_examples(), sgd, "random")

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A learning rate at which second moments grow from epoch to epoch."""
        return (cls.from_sgd(_six_examples(), SGD(2.0, Minibatch(2, "reshuffle"))),)

    def _buffer_mean(self) -> Float[Any, " d"]:
        return self.buffer_mean

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless an epoch contracts second moments."""
        if not is_traced(self.contraction) and not self.contraction < 1:
            raise ImproperLawError(
                f"an epoch at learning_rate = {float(self.learning_rate):.6g} multiplies second "
                f"moments by {float(self.contraction):.6g} ≥ 1: no stationary law"
            )


def _six_examples() -> LinearRegression:
    inputs = [[1.0, 0], [0, 1], [1, 1], [2, -1], [-1, 0.5], [0.5, 2]]
    return linear_regression(inputs, [1.0, -1, 0.5, 2, 0, -1.5])


def _example_steps(
    problem: LinearRegression, sgd: SGD, location: Float[Any, " d"]
) -> Float[Any, "N n n"]:
    """A_i of (θ − location, m, 1) for the gradient of one example; a batch has their mean."""
    eta, beta, decay = (float(x) for x in (sgd.learning_rate, sgd.momentum, sgd.weight_decay))
    x, y = (np.asarray(part, np.float64) for part in (problem.inputs, problem.targets))
    n, d = x.shape
    gradient = np.zeros((n, d, 2 * d + 1))
    gradient[:, :, :d] = x[:, :, None] * x[:, None] + decay * np.eye(d)
    gradient[:, :, -1] = (x @ location - y)[:, None] * x + decay * location
    buffer = gradient + beta * np.eye(2 * d + 1)[d : 2 * d]
    steps = np.broadcast_to(np.eye(2 * d + 1), (n, 2 * d + 1, 2 * d + 1)).copy()
    steps[:, :d] -= eta * buffer
    steps[:, d : 2 * d] = buffer
    return steps


def _epoch_maps(steps: Float[Any, "N n n"], batch_size: int) -> list[Float[Any, "n2 n2"]]:
    """The mean map of zzᵀ over the first j batches of a random order, for j = 0 … M."""
    number, n = steps.shape[:2]
    sizes = range(0, number + 1, batch_size)
    terms = sum(math.comb(number, k) * math.comb(k, batch_size) for k in sizes)
    entries = max(math.comb(number, k) for k in sizes) * n**4
    if terms > _MOST_STEPS or entries > _MOST_ENTRIES:
        raise ValueError(
            f"{number} examples in batches of {batch_size} with {n // 2} parameters are more than "
            f"can be enumerated: {terms} steps of at most {_MOST_STEPS}, or {entries} numbers of "
            f"at most {_MOST_ENTRIES}"
        )
    # Maps act as (n, n) ← their last axis, so that A ⊗ A is A on both sides.
    seen = {frozenset[int](): np.eye(n * n).reshape(n, n, n * n)}
    maps = [np.eye(n * n)]
    for size in sizes[1:]:
        larger = {}
        for chosen in itertools.combinations(range(number), size):
            total = np.zeros((n, n, n * n))
            for last in itertools.combinations(chosen, batch_size):
                a = steps[list(last)].mean(0)
                total += np.einsum("ij,kl,jlm->ikm", a, a, seen[frozenset(chosen) - set(last)])
            larger[frozenset(chosen)] = total / math.comb(size, batch_size)
        seen = larger
        maps.append(np.mean(list(seen.values()), axis=0).reshape(n * n, n * n))
    return maps


def _moments(maps: list[Any], phase: int | str) -> tuple[Any, Any, float]:
    """Mean and covariance of (x, m) at a phase, and the contraction of an epoch."""
    whole = maps[-1]
    n = math.isqrt(len(whole))
    pairs = np.arange(n * n).reshape(n, n)
    inner, others = pairs[:-1, :-1].ravel(), np.arange(n * n - 1)
    radius = float(np.max(np.abs(np.linalg.eigvals(whole[np.ix_(inner, inner)]))))
    if not radius < 1:
        return np.full(n - 1, np.nan), np.full((n - 1, n - 1), np.nan), radius
    still = np.eye(len(others)) - whole[np.ix_(others, others)]
    ends = np.append(np.linalg.solve(still, whole[others, -1]), 1.0)
    chosen = maps[:-1] if phase == "random" else [maps[int(phase)]]
    second = np.mean([step @ ends for step in chosen], axis=0).reshape(n, n)
    mean = second[:-1, -1]
    covariance = second[:-1, :-1] - np.outer(mean, mean)
    return mean, (covariance + covariance.T) / 2, radius
