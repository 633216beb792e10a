"""What minibatches shared by all particles add to the variance of their mean."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from statsgd.arguments import count, finite_array, one_of, positive
from statsgd.laws.law import ImproperLawError


def shared_minibatch_variance(
    inputs: Any,
    targets: Any,
    decay: Any,
    temperature: Any,
    num_particles: int,
    learning_rate: Any,
    batch_size: int,
    sampling: str = "with_replacement",
) -> float:
    """Var X̄ when one minibatch a step is shared by all particles, on the mean of ½(z E x − y)².

        [2τη/N + (η²/S) Var_j(z_j²m* − z_jy_j)] / [1 − (1 − η(a+b))² − (η²/S) Var_j(z_j²)]

    b = mean z², m* = mean(zy)/(a+b); without replacement both variances times (n−S)/(n−1). The
    part of the gradient noise does not shrink with N; the cloud's variance is unchanged. Exact;
    Gaussian only if z² is constant.

    Raises `ImproperLawError` if the denominator is not positive. Source: *derived*.

    >>> round(shared_minibatch_variance([1.0, 2.0], [1.0, 0.0], 1.0, 0.1, 4, 0.1, batch_size=1), 4)
    0.0182
    """
    z = np.asarray(finite_array("inputs", inputs, ndim=1), dtype=np.float64)
    y = np.asarray(finite_array("targets", targets, ndim=1), dtype=np.float64)
    if z.shape != y.shape or len(z) == 0:
        raise ValueError(f"inputs and targets must have one shape (n,), got {z.shape}, {y.shape}")
    eta, factor = float(positive("learning_rate", learning_rate)), _factor(z, batch_size, sampling)
    curvature = float(positive("decay", decay)) + np.mean(z**2)
    center = np.mean(z * y) / curvature
    injected = _injected(temperature, eta, num_particles)
    noise = injected + eta**2 * factor * np.var(z**2 * center - z * y)
    denominator = 1 - (1 - eta * curvature) ** 2 - eta**2 * factor * np.var(z**2)
    if denominator <= 0:
        raise ImproperLawError(
            "minibatch curvature noise destabilises the mean: reduce learning_rate or enlarge "
            f"batch_size (1 - (1 - ηk)² - η²φ Var z² = {denominator:.6g} must be positive)"
        )
    return float(noise / denominator)


class ReducedVariance(NamedTuple):
    """Var X̄ under variance-reduced minibatches."""

    at_refresh: float
    """When a snapshot is taken."""
    average: float
    """At a random step."""


def variance_reduced_variance(
    inputs: Any,
    decay: Any,
    temperature: Any,
    num_particles: int,
    learning_rate: Any,
    batch_size: int,
    refresh_every: int,
    sampling: str = "with_replacement",
) -> ReducedVariance:
    """Var X̄ with SVRG gradients g_B(X) − g_B(X₀) + g(X₀), snapshot X₀ every m steps.

    As `shared_minibatch_variance`, whose additive part vanishes: targets do not matter. With
    e = X̄₀ − m*, κ = a+b, ρ = 1 − ηκ, the motion u = X̄ − X̄₀ has, k steps after the snapshot,

        E u = (ρᵏ−1) e,   E u² = α_k e² + β_k,   ρ₂ = ρ² + (η²/S) Var_j z_j²
        α_{k+1} = ρ₂ α_k − 2ηκρ(ρᵏ−1) + η²κ²,    β_{k+1} = ρ₂ β_k + 2τη/N
        Var X̄₀ = β_m/(2 − 2ρᵐ − α_m),           Var X̄_k = (2ρᵏ − 1 + α_k) Var X̄₀ + β_k

    exactly. Raises `ImproperLawError` if the denominator is not positive. Source: *derived*.

    >>> found = variance_reduced_variance([1.0, 2.0], 1.0, 0.1, 4, 0.1, 1, refresh_every=2)
    >>> round(float(found.at_refresh), 4), round(float(found.average), 4)
    (0.0088, 0.0088)
    """
    z = np.asarray(finite_array("inputs", inputs, ndim=1), dtype=np.float64)
    eta, factor = float(positive("learning_rate", learning_rate)), _factor(z, batch_size, sampling)
    reach = eta * float(positive("decay", decay) + np.mean(z**2))
    injected = _injected(temperature, eta, num_particles)
    second = (1 - reach) ** 2 + eta**2 * factor * np.var(z**2)
    alpha, beta = 0.0, 0.0
    phases = []
    for k in range(count("refresh_every", refresh_every) + 1):
        power = (1 - reach) ** k
        phases.append((2 * power - 1 + alpha, beta))
        alpha = second * alpha - 2 * reach * (1 - reach) * (power - 1) + reach**2
        beta = second * beta + injected
    gain, noise = phases.pop()
    if not gain < 1:
        raise ImproperLawError(
            "minibatch curvature noise destabilises the mean: reduce learning_rate or "
            f"refresh_every (1 - (2ρᵐ - 1 + α_m) = {1 - gain:.6g} must be positive)"
        )
    start = noise / (1 - gain)
    return ReducedVariance(
        float(start), float(np.mean([share * start + rest for share, rest in phases]))
    )


def _factor(inputs: Float[Any, " n"], batch_size: int, sampling: str) -> float:
    """Variance of a batch's mean over that of one example."""
    one_of("sampling", sampling, ("with_replacement", "without_replacement"))
    n, size = len(inputs), count("batch_size", batch_size)
    return (1 if sampling == "with_replacement" else (n - size) / max(n - 1, 1)) / size


def _injected(temperature: Any, learning_rate: float, num_particles: int) -> float:
    """2τη/N, the noise that a step adds to X̄."""
    tau, number = float(positive("temperature", temperature)), count("num_particles", num_particles)
    return 2 * tau * learning_rate / number
