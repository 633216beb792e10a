"""The local learning coefficient: how fast the volume of low loss around a point shrinks."""

import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from statsgd.arguments import count, is_traced, kinds_checked, non_negative, positive
from statsgd.dynamics.noise import Minibatch
from statsgd.estimate import Estimate, exact, sample_mean
from statsgd.kernels import MixingWarning, sgld
from statsgd.kernels.mixing import LARGEST_RHAT
from statsgd.kernels.preconditioner import as_preconditioner
from statsgd.kernels.stochastic_gradient import start
from statsgd.measures.curvature.localized import Localized, moving_parts
from statsgd.measures.curvature.probes import random_key
from statsgd.precision import as_numpy, in_double_precision
from statsgd.problems import EmpiricalRisk, Problem
from statsgd.problems.parameters import floating
from statsgd.problems.problem import SampledProblem


class LearningCoefficient(NamedTuple):
    """λ̂ with its errors, and what to judge the chains by."""

    value: Any
    """λ̂ = nβ (E L(w) − L(w*)) at the step size that was asked for."""
    standard_error: Any
    """Monte Carlo error of `value`, from the effective sample size and the baseline's error."""
    baseline: Any
    """L(w*)."""
    baseline_standard_error: Any
    """0 where all of the loss is evaluated."""
    effective_sample_size: Any
    """Independent draws that all chains together are worth."""
    rhat: Any
    """Spread of all chains over that within one: above 1.01 they have not mixed."""
    step_size_bias: Any
    """Twice the change from step size h/2 to h: the bias of `value` at leading order in h."""
    step_size_bias_standard_error: Any
    """Not a number, as the bias, where fewer than two chains at h/2 stayed finite."""
    chain_values: Any
    """λ̂ of each chain, shape `(chains,)`: not a number for those that diverged."""
    chain_losses: Any
    """Losses along each chain, shape `(chains, n)` with n ≤ 512: from where one diverged on not
    numbers."""
    chain_steps: Any
    """The steps after the burn-in at which these were looked at, shape `(n,)`."""
    diverged_chains: Any
    """Chains that left the finite numbers, which no other number but those above counts."""

    def doubts(self) -> list[str]:
        """What speaks against `value`, in words: chains that diverged or disagree, a large step.

        A bias counts where it is clear and above a quarter of the value.
        """
        found, chains = [], np.size(self.chain_values)
        if self.diverged_chains:
            found.append(f"{int(self.diverged_chains)} of {chains} chains diverged")
        if not np.isfinite(self.value):
            return found
        if not self.rhat <= LARGEST_RHAT:
            found.append(
                f"the chains have not mixed: R-hat of the loss is {self.rhat:.3f}, above "
                f"{LARGEST_RHAT}"
            )
        bias, error = self.step_size_bias, self.step_size_bias_standard_error
        if not np.isfinite(bias):
            found.append("the step size's bias is not known: chains at half of it diverged")
        if abs(bias) > max(_CLEAR * error, _LARGE * abs(self.value)):
            found.append(
                f"the step size is too large: its bias is {bias:.2g} ± {error:.1g} on "
                f"{self.value:.3g}"
            )
        return found


#: Standard errors from which on a bias is clear, and the share of the value that it may reach.
_CLEAR, _LARGE = 4.0, 0.25

#: Losses that are kept of each chain, at most.
_KEPT = 512


class DivergedChainsError(ValueError):
    """Fewer than two chains stayed finite: there is no estimate."""

    def __init__(self, message: str, found: LearningCoefficient):
        super().__init__(message)
        self.found = found
        """What there is: the losses of the chains up to where they diverged."""

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception's own way to another process forgets what is not in its message.
        return type(self), (*self.args, self.found)


@kinds_checked
def local_learning_coefficient(
    problem: Problem,
    params: PyTree,
    *,
    step_size: float,
    steps: int,
    burn_in: int,
    inverse_temperature: float | None = None,
    localization: float = 1.0,
    noise: Minibatch | None = None,
    loss_examples: int | None = None,
    thinning: int = 1,
    chains: int = 8,
    restricted_to: Any = None,
    box_radius: float | None = None,
    seed: Any = 0,
    double: bool = True,
) -> LearningCoefficient:
    """λ̂ = nβ (E L(w) − L(w*)) over draws w ∝ exp(−nβ L(w) − (γ/2)|w − w*|²) around w* = `params`.

    The volume of {L < L(w*) + s} around a minimum falls like s^λ (−log s)^(m−1). λ is d/2 where
    the Hessian has full rank, and less where the minimum is degenerate: it measures flatness to
    all orders. At finite nβ the estimate departs from λ: by terms of order 1/(nβ), by
    −(m−1)/log(nβ) and more where the multiplicity m is above 1, and by the localization. A point
    that is no local minimum can give a negative number.

    The chains are those of `kernels.SGLD`, with stochastic gradients if asked for:

        w ← w − h [nβ ĝ(w) + γ (w − w*)] + √(2h) ξ,

    whose stationary law differs by O(h) from the one wanted; a second ensemble of chains with step
    size h/2, run for the same time, says by how much.

    **Arguments:**

    - `step_size` h, stable while h(nβ h_max + γ) < 2 (params² per unit of log density; √(2h)
      scales the noise: the ε of published code is 2h); `steps` kept of each chain, every
      `thinning`-th, after `burn_in` discarded ones, which start at w*.
    - `inverse_temperature` nβ (1/loss), by default N/log N with the number of examples; a problem
      without a data set must be given it.
    - `localization` γ ≥ 0 (1/params²), which keeps chains near w*.
    - `noise`, the minibatches of ĝ, such as `noise.Minibatch(64)`; the full gradient by default.
    - `loss_examples`: None evaluates the whole loss at each kept step. A number evaluates that many
      fresh random examples; then L(w*) has an error too, which is in the standard error.
    - `chains`, at least 2.
    - `restricted_to`: the parameters that move, a name or several as in `Problem.names`, or truth
      values (or arrays of them) like `params` or its outer part. The others stay at w*, and λ̂ is
      the coefficient of the loss as a function of those that move, at most half their number.
    - `box_radius` r keeps chains in the box |wᵢ − w*ᵢ| ≤ r, whose faces reflect them, so that they
      cannot leave for another minimum. λ̂ is then of draws from the same density within the box:
      unchanged where it is narrow against r, less along directions that would go beyond. Of one
      with curvature a alone, the ½ becomes ½[1 − 2zφ(z)/(2Φ(z) − 1)], z = r√(nβa + γ).
    - `double`: False runs chains in the precision of `params`, which for large networks takes half
      the time; losses are then rounded to about nβ L(w*)·10⁻⁷ of λ̂.

    Chains that leave the finite numbers are counted and left out. Raises `DivergedChainsError`, a
    `ValueError`, where fewer than two are left (traced: NaN), and `ValueError` for noise that is
    not white or not of minibatches. A `MixingWarning` says what the result's `doubts` say.

    Source: Lau, Furman, Wang, Murfet, Wei (2023), arXiv:2308.12108; Watanabe (2013), for β = 1/log
    n; Wang, Hoogland, van Wingerden, Furman, Murfet (2024), arXiv:2410.02984, for parts. Step
    halving, the box and the standard errors are derived.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> found = local_learning_coefficient(
    ...     quadratic(np.eye(2)), np.zeros(2), step_size=0.001, steps=2000, burn_in=500,
    ...     inverse_temperature=100.0, seed=0,
    ... )
    >>> round(float(found.value), 1)  # d/2
    1.0
    """
    h = positive("step_size", step_size)
    gamma = non_negative("localization", localization)
    strength = _inverse_temperature(problem, inverse_temperature)
    every, number = count("thinning", thinning), count("chains", chains, at_least=2)
    records = count("steps", steps) // every
    count("steps // thinning", records, at_least=4)
    discarded = count("burn_in", burn_in, at_least=0)
    if noise is not None:
        if not isinstance(noise, Minibatch):
            raise ValueError(f"noise must be of minibatches, got {noise}")
        noise.check(problem)
        if not noise.white:
            raise ValueError(f"noise must be white, got {noise}")
    if loss_examples is not None:
        count("loss_examples", loss_examples)
        if not isinstance(problem, SampledProblem):
            raise ValueError(
                "loss_examples must be None for a problem without examples, got "
                f"{loss_examples} for {type(problem).__name__}"
            )
    radius = None if box_radius is None else positive("box_radius", box_radius)
    centre = floating(problem.parameters(params))
    moving = moving_parts(problem, centre, restricted_to)
    target = Localized(problem, noise, centre, strength, gamma, moving, radius)
    ask = (h, np.array([discarded, every]), records, number, loss_examples, random_key(seed))
    if double or is_traced(target, ask):
        found = in_double_precision(_coefficient, target, *ask)
    else:
        found = jax.tree.map(as_numpy, _in_precision_of_params(target, *ask))
    if not is_traced(found):
        if not np.isfinite(found.value):
            raise DivergedChainsError(
                f"step_size must keep at least two chains finite, got {step_size} with "
                f"{int(found.diverged_chains)} of {number} chains diverged",
                found,
            )
        for doubt in found.doubts():
            warnings.warn(doubt, MixingWarning, stacklevel=2)
    return found


def _coefficient(
    target: Localized,
    step_size: Any,
    lengths: Int[Any, "2"],
    records: int,
    chains: int,
    loss_examples: int | None,
    key: PRNGKeyArray,
) -> LearningCoefficient:
    problem, strength, begin = target.problem, target.inverse_temperature, target.begin
    # Without minibatches the kernel is to see a potential that is not stochastic.
    potential = target.__call__ if target.noise is None else target
    scales, (discarded, every) = as_preconditioner("preconditioner", 1.0), lengths

    def loss_at(key: PRNGKeyArray, w: PyTree) -> Float[Array, ""]:
        if loss_examples is None:
            return problem.loss(w)
        return _loss_of_some(problem, w, key, loss_examples)

    def chain(key: PRNGKeyArray, slower: Any) -> Float[Array, " records"]:
        settings = {
            "step_size": step_size / slower,
            "temperature": 1.0,
            "preconditioner": scales,
        }

        def step(_: Any, carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            state, index, left = carry
            shake = jax.random.fold_in(key, index)
            state, info = sgld.step(shake, state, potential, settings)
            return state, index + 1, left | info.diverging

        def record(carry: tuple[Any, Any, Any], look: PRNGKeyArray) -> tuple[Any, Any]:
            carry = jax.lax.fori_loop(0, every * slower, step, carry)
            loss = loss_at(look, target.params(carry[0].position))
            return carry, jnp.where(carry[2], jnp.nan, loss)

        order, looks = (jax.random.fold_in(key, 2**31 + i) for i in range(2))
        state = sgld.State(begin, start(begin, potential, settings, order=order))
        carry = (state, jnp.uint32(0), jnp.zeros((), bool))
        carry = jax.lax.fori_loop(0, discarded * slower, step, carry)
        return jax.lax.scan(record, carry, jax.random.split(looks, records))[1]

    def ensemble(setting: tuple[Any, Any]) -> Float[Array, "chains records"]:
        slower, key = setting
        return jax.vmap(lambda one: chain(one, slower))(jax.random.split(key, chains))

    # Both step sizes through one compiled loop, whose number of rounds is traced.
    keys = jax.random.split(jax.random.fold_in(key, 0), 2)
    losses = jax.lax.map(ensemble, (jnp.array([1, 2]), keys))
    baseline = _baseline(loss_at, target.centre, jax.random.fold_in(key, 1), records, loss_examples)
    finite = jnp.all(jnp.isfinite(losses), axis=2)
    # One chain alone has neither an error nor an R-hat.
    enough = jnp.sum(finite, axis=1) > 1
    means, sizes, rhats, spreads = (
        jnp.where(enough, number, jnp.nan) for number in jax.vmap(_mixing)(losses, finite)
    )
    by_chain = jnp.where(finite[0], jnp.mean(losses[0], axis=1), jnp.nan)
    errors = spreads / jnp.sqrt(sizes)
    apart = -(-records // _KEPT)
    return LearningCoefficient(
        strength * (means[0] - baseline.value),
        strength * jnp.hypot(errors[0], baseline.standard_error),
        baseline.value,
        baseline.standard_error,
        sizes[0],
        rhats[0],
        2 * strength * (means[0] - means[1]),
        2 * strength * jnp.hypot(errors[0], errors[1]),
        strength * (by_chain - baseline.value),
        losses[0, :, ::apart],
        every * jnp.arange(1, records + 1, apart),
        jnp.sum(~finite[0]),
    )


_in_precision_of_params = eqx.filter_jit(_coefficient)


def effective_sample_size(draws: Float[Any, "chains n"]) -> Any:
    """Independent draws that correlated chains are worth, for a mean over all of them.

    Geyer's initial monotone sequence of autocorrelations, over several chains. JAX can trace it.
    Source: Vehtari, Gelman, Simpson, Carpenter, Bürkner (2021), arXiv:1903.08008.
    """
    return in_double_precision(_mixing, draws, np.ones(len(draws), bool))[1]


def _mixing(draws: Float[Array, "chains n"], used: Bool[Array, " chains"]) -> tuple[Any, ...]:
    """Mean, effective sample size, R-hat and standard deviation of the chains that are `used`."""
    n, chains = draws.shape[1], jnp.sum(used)
    draws = jnp.where(used[:, None], draws, 0.0)
    means = jnp.mean(draws, axis=1)
    mean = jnp.sum(means) / chains
    centred = draws - means[:, None]
    spectrum = jnp.fft.rfft(centred, 2 * n, axis=1)
    products = jnp.fft.irfft(jnp.abs(spectrum) ** 2, 2 * n, axis=1)[:, :n]
    autocovariance = jnp.sum(products, axis=0) / (n * chains)
    within = autocovariance[0] * n / (n - 1)
    off = jnp.sum(jnp.where(used, (means - mean) ** 2, 0.0))
    total = autocovariance[0] + off / jnp.maximum(chains - 1, 1)
    correlation = (1 - (within - autocovariance) / total).at[0].set(1.0)
    pairs = correlation[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    kept = jnp.cumprod(pairs > 0)
    monotone = jax.lax.cummin(jnp.where(kept, pairs, 0.0))
    # Antithetic chains are worth more than as many independent draws, but not without end.
    length = jnp.maximum(2 * jnp.sum(monotone) - 1, 1 / jnp.log10(chains * n))
    return mean, chains * n / length, jnp.sqrt(total / within), jnp.sqrt(total)


def _inverse_temperature(problem: Any, given: float | None) -> Any:
    if given is not None:
        return positive("inverse_temperature", given)
    examples = problem.num_examples if isinstance(problem, EmpiricalRisk) else None
    if examples is None or examples < 3:
        raise ValueError(
            "inverse_temperature must be given without a data set of at least 3 examples, got None"
        )
    return np.asarray(examples / np.log(examples))


def _baseline(
    loss_at: Any, centre: Any, key: PRNGKeyArray, records: int, loss_examples: int | None
) -> Estimate:
    if loss_examples is None:
        return exact(loss_at(key, centre))
    keys = jax.random.split(key, records)
    return sample_mean(jax.lax.map(lambda look: loss_at(look, centre), keys))


def _loss_of_some(problem: Any, params: PyTree, key: PRNGKeyArray, number: int) -> Float[Array, ""]:
    if isinstance(problem, EmpiricalRisk):
        batch = Minibatch(number).batch(key, jnp.zeros((), jnp.int32), problem)
    else:
        batch = problem.draw_examples(key, number)
    return problem.batch_loss(params, batch)
