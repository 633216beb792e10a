"""How far an unadjusted kernel is from its target, by halving the step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, PyTree

from statsgd.arguments import count, instance, random_seed
from statsgd.kernels.adapter import LangevinKernel
from statsgd.kernels.stochastic_gradient import StochasticGradientKernel
from statsgd.laws import Law


class StepSizeBias(NamedTuple):
    """Estimated bias of a kernel's stationary moments at `step_size` h."""

    step_size: float
    mean: Float[Any, " d"]
    """Estimated bias of the mean of each coordinate."""
    mean_error: Float[Any, " d"]
    """Its standard error."""
    covariance: Float[Any, "d d"]
    """Estimated bias of the covariance."""
    covariance_error: Float[Any, "d d"]
    order: float
    """Power of h seen in the moments whose bias is resolved; NaN if noise dominates."""
    order_error: float
    stated_order: int
    """Power of h that the estimate assumes."""
    noise_dominates: bool
    """Whether no moment moved by 4 standard errors when the step was halved."""
    divergent: int
    """Chains that made a diverging step."""

    def summary(self) -> str:
        """A few lines for reading."""
        lines = [f"step-halving bias at step_size {self.step_size:.4g}"]
        if self.divergent:
            lines.append(f"  {self.divergent} chains diverged: the numbers below mean little")
        if self.noise_dominates:
            lines.append(
                "  noise dominates: no bias is resolved; it is below about 4 standard errors. More "
                "draws or a larger step would show it"
            )
        else:
            lines.append(
                f"  order {self.order:.2f} ± {self.order_error:.2f}, stated {self.stated_order}"
            )
        for i, (bias, error) in enumerate(zip(self.mean, self.mean_error, strict=True)):
            variance, its = self.covariance[i, i], self.covariance_error[i, i]
            lines.append(
                f"  coordinate {i}: mean {bias:+.3g} ± {error:.2g}, "
                f"variance {variance:+.3g} ± {its:.2g}"
            )
        return "\n".join(lines)


def step_size_bias(
    target: Law | Callable | None,
    kernel: LangevinKernel,
    *,
    start: PyTree | None = None,
    warmup: int = 1000,
    draws: int = 4000,
    chains: int = 64,
    seed: int,
) -> StepSizeBias:
    """Bias of mean and covariance under an unadjusted `kernel`, with standard errors.

    Stationary moments m(h) are estimated at the kernel's step size h, h/2 and h/4, each over the
    same physical time, and extrapolated from the last two to h = 0 with p, the kernel's
    `bias_order`. The bias at h is then m(h) − m(h/2) + (m(h/2) − m(h/4))/(1 − 2^(−p)), and the
    order observed log₂{(m(h) − m(h/2))/(m(h/2) − m(h/4))}: where it is far from p, the step is too
    large for the estimate. What no halving can show is a bias common to all steps,
    such as a well that no chain has found.

    **Arguments:**

    - `target`: a law, whose `params` are looked at; or a potential −log p of a position, which is
      looked at flattened; then `start`, a position, must be given. A stochastic-gradient kernel
      with data of its own (`from_problem`, or a model) runs as it is, on its minibatches: the
      target then says nothing more and may be None, and the bias is that of noise and step.
    - `warmup`, `draws`: steps of each chain at h; at h/4 there are four times as many.
    - `chains`: independent chains, at least 8; the errors come from the spread between them.

    Raises `ValueError` for a kernel with an acceptance test, which has no such bias, and
    `ImproperLawError` for a law that does not exist.

    Source: derived; the halving is Richardson's.

    >>> import statsgd
    >>> law = statsgd.laws.GaussianLaw([0.0], [[1.0]])
    >>> bias = step_size_bias(law, statsgd.kernels.ULA(step_size=0.2), seed=0)
    >>> round(float(bias.covariance[0, 0]), 1)  # 1/(1 − h/2) − 1
    0.1
    """
    call = "step_size_bias(target, kernel, …)"
    instance("kernel", kernel, LangevinKernel, "one of statsgd.kernels", call=call)
    if kernel.optimal_acceptance is not None:
        raise ValueError(
            f"kernel must be one without acceptance test, got {type(kernel).__name__}, which is "
            "exact at any step size"
        )
    if kernel.warmup.shape is not None:
        raise ValueError(
            "adapt_preconditioner must be None, so that all step sizes are of one kernel, got "
            f"{kernel.warmup.shape!r}"
        )
    count("chains", chains, at_least=8)
    count("warmup", warmup, at_least=0)
    count("draws", draws, at_least=2)
    random_seed(seed)
    bound, positions = _bind(target, kernel, start, chains)
    moments, errors, diverged = [], [], 0
    step_size = kernel.parameters["step_size"]
    for halvings in range(3):
        key = jax.random.fold_in(jax.random.key(seed), halvings)
        parameters = kernel.parameters | {"step_size": step_size / 2**halvings}
        lengths = jnp.array([warmup, draws]) * 2**halvings
        sums = _run(bound, parameters, key, positions, lengths, chains)
        mean, covariance, bad = _moments(*(np.asarray(x, np.float64) for x in sums))
        diverged += bad
        values = np.concatenate([mean, covariance.reshape(chains, -1)], axis=1)
        moments.append(values.mean(axis=0))
        errors.append(values.std(axis=0, ddof=1) / np.sqrt(chains))
    first, second = moments[0] - moments[1], moments[1] - moments[2]
    first_error = np.hypot(errors[0], errors[1])
    resolved = np.abs(first) > 4 * first_error
    noisy = not np.any(resolved)
    factor = 1 / (1 - 2.0**-kernel.bias_order)
    bias = first + factor * second
    weights = np.array([1.0, factor - 1, -factor])
    error = np.sqrt(np.sum((weights[:, None] * np.array(errors)) ** 2, axis=0))
    d = mean.shape[1]
    order, order_error = _order(first, second, errors, resolved)
    return StepSizeBias(
        float(step_size),
        bias[:d],
        error[:d],
        bias[d:].reshape(d, d),
        error[d:].reshape(d, d),
        order,
        order_error,
        kernel.bias_order,
        noisy,
        diverged,
    )


def _bind(target: Any, kernel: LangevinKernel, start: Any, chains: int) -> tuple[Any, Any]:
    positions = None
    if start is not None:
        positions = jax.tree.map(
            lambda leaf: jnp.broadcast_to(jnp.asarray(leaf, float), (chains, *jnp.shape(leaf))),
            start,
        )
    if isinstance(kernel, StochasticGradientKernel) and kernel.has_data:
        return kernel, positions
    if isinstance(target, Law):
        target.require_proper()
        return kernel.bind(target.chain_model), None
    if not callable(target):
        raise ValueError(f"target must be a law or a potential function, got {target!r}")
    if start is None:
        raise ValueError("start must be given with a potential function, got None")
    return kernel.bind(None, potential_fn=target), positions


@eqx.filter_jit
def _run(template, parameters, key, positions, lengths, chains):
    """Per chain: shift, number, Σ(x − shift), Σ(x − shift)(x − shift)ᵀ, whether any diverged."""
    kernel = template.bind(template.model, parameters, potential_fn=template.potential_fn)
    state = kernel.init(jax.random.split(key, chains), lengths[0], positions, (), {})
    constrain = kernel.postprocess_fn((), {})

    def observe(state):
        def one(position):
            sites = constrain(position)
            of_law = kernel.model is not None and "params" in sites
            return ravel_pytree(sites["params"] if of_law else sites)[0]

        return jax.vmap(one)(state.z)

    state = jax.lax.fori_loop(0, lengths[0], lambda _, state: kernel.sample(state, (), {}), state)
    shift = jnp.mean(observe(state), axis=0)

    def advance(_, carry):
        state, total, squares, diverged = carry
        state = kernel.sample(state, (), {})
        x = observe(state) - shift
        squares += x[:, :, None] * x[:, None, :]
        return state, total + x, squares, diverged | state.diverging

    empty = jnp.zeros_like(observe(state))
    squares = empty[:, :, None] * empty[:, None, :]
    carry = state, empty, squares, jnp.zeros(chains, bool)
    _, total, squares, diverged = jax.lax.fori_loop(0, lengths[1], advance, carry)
    return shift, total / lengths[1], squares / lengths[1], diverged


def _moments(shift, first, second, diverged) -> tuple[Any, Any, int]:
    """Each chain's mean, and its covariance about the mean of all chains."""
    overall = first.mean(axis=0)
    covariance = second - first[:, :, None] * overall - overall[:, None] * first[:, None, :]
    return shift + first, covariance + np.outer(overall, overall), int(diverged.sum())


def _order(first, second, errors, resolved) -> tuple[float, float]:
    """log₂(A/B) with A, B the resolved differences, weighed by how clear they are."""
    noise = errors[0] ** 2 + errors[1] ** 2
    weights = np.where(resolved, first / np.where(noise > 0, noise, np.inf), 0.0)
    a, b = weights @ first, weights @ second
    if not (a > 0 and b > 0):
        return float("nan"), float("nan")
    # A = m₀ − m₁ and B = m₁ − m₂ of the weighted moment, moments held to be independent.
    slopes = np.array([1 / a, -1 / a - 1 / b, 1 / b])
    spread = [np.sqrt(np.sum((weights * error) ** 2)) for error in errors]
    return float(np.log2(a / b)), float(np.linalg.norm(slopes * spread) / np.log(2))
