"""Balance: the charges of symmetries, how SGD changes them, and where their noise balances."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.arguments import count, finite_array, fraction, kinds_checked, non_negative, positive
from statsgd.dynamics.noise import GradientNoise
from statsgd.dynamics.noise.minibatch import Minibatch, centred_example_gradients
from statsgd.dynamics.sgd import SGD
from statsgd.estimate import Estimate
from statsgd.measures.balance.symmetries import Symmetry, check_symmetry
from statsgd.measures.motion.fluctuations import full_gradients
from statsgd.measures.runs.averages import jackknife, mean_over_clusters, mean_over_runs
from statsgd.precision import in_double_precision
from statsgd.problems import Problem
from statsgd.running import stream_key


class ChargeIdentity(NamedTuple):
    """Both sides of the exact identity of one step."""

    after: Float[Any, "..."]
    """θ'ᵀAθ' as it is."""
    predicted: Float[Any, "..."]
    """What the identity says."""
    discrepancy: Float[Any, "..."]
    """|after − predicted| over θ'ᵀ|A|θ'; rounding alone if the loss has the symmetry."""


class ChargeChange(NamedTuple):
    """Mean change of a charge in one step, as measured and as predicted at the same states."""

    measured: Estimate
    predicted: Estimate
    gap: Estimate
    """measured − predicted, whose mean is zero exactly: a martingale's steps."""


def charge_identity(
    symmetry: Symmetry,
    params: Float[Any, "... d"],
    momentum_buffer: Float[Any, "... d"],
    next_params: Float[Any, "... d"],
    next_buffer: Float[Any, "... d"],
    learning_rate: Any,
    momentum: Any = 0.0,
    weight_decay: Any = 0.0,
) -> ChargeIdentity:
    """The exact identity of one step of SGD from (θ, m) to (θ', m'), on both sides:

        q' = q − 2η(β θᵀAm + λq) + η² m'ᵀAm'

    and without momentum q' = (1−ηλ)²q + η²ĝᵀAĝ. It holds for any loss with the symmetry, batch,
    sampling and learning rate. What it rests on is that ĝ·Aθ = 0.

    Arrays have any leading axes. Raises `ValueError` for a generator that does not fit.

    Source: derived; the symmetry argument is that of Ziyin et al. (2024), arXiv:2402.07193.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.measures import rescaling_symmetry
    >>> from statsgd.problems import landscape
    >>> problem = landscape(lambda p: (p["u"] * p["w"] - 1.0) ** 2, {"u": 1.0, "w": 1.0})
    >>> rule = rescaling_symmetry(problem, ["u"], ["w"])
    >>> params, gradient = np.array([2.0, 1.0]), np.array([2.0, 4.0])
    >>> found = charge_identity(rule, params, 0 * params, params - 0.1 * gradient, gradient, 0.1)
    >>> round(float(found.after), 4), round(float(found.predicted), 4)
    (2.88, 2.88)
    """
    theta, m, later, buffer = (
        np.asarray(finite_array(name, array), dtype=np.float64)
        for name, array in (
            ("params", params),
            ("momentum_buffer", momentum_buffer),
            ("next_params", next_params),
            ("next_buffer", next_buffer),
        )
    )
    check_symmetry("symmetry", symmetry, theta.shape[-1])
    eta, beta = positive("learning_rate", learning_rate), fraction("momentum", momentum)
    decay = non_negative("weight_decay", weight_decay)
    q = symmetry.charge(theta)
    flux = beta * np.sum(theta * symmetry.apply(m), axis=-1) + decay * q
    predicted = q - 2 * eta * flux + eta**2 * symmetry.charge(buffer)
    after = symmetry.charge(later)
    scale = np.maximum(symmetry.size(later), np.finfo(float).tiny)
    return ChargeIdentity(after, predicted, np.abs(after - predicted) / scale)


@kinds_checked
def check_charge_identity(
    problem: Problem, sgd: SGD, symmetry: Symmetry, params: PyTree, *, steps: int = 8, seed: int = 0
) -> ChargeIdentity:
    """`charge_identity` along a few steps of `sgd` from `params`, computed in float64.

    Discrepancies above about 1e-12 mean that the loss does not have the symmetry (or that the
    noise, injected from outside, does not share it). Source: derived.

    >>> from statsgd import noise
    >>> from statsgd.measures import rescaling_symmetry
    >>> from statsgd.problems import landscape
    >>> problem = landscape(lambda p: (p["u"] * p["w"] - 1.0) ** 2, {"u": 2.0, "w": 1.0})
    >>> rule, sgd = rescaling_symmetry(problem, ["u"], ["w"]), SGD(0.1, noise.Isotropic(0.0))
    >>> found = check_charge_identity(problem, sgd, rule, {"u": 2.0, "w": 1.0})
    >>> float(abs(found.discrepancy).max()) < 1e-12
    True
    """
    number = count("steps", steps)
    theta = np.asarray(problem.flatten(params), dtype=np.float64)
    check_symmetry("symmetry", symmetry, len(theta))
    sgd.require_heavy_ball()
    sgd.noise.check(problem)
    points, buffers = in_double_precision(_steps, problem, sgd, theta, stream_key(seed), number)
    points = np.concatenate([theta[None], points])
    buffers = np.concatenate([np.zeros((1, len(theta))), buffers])
    return charge_identity(
        symmetry,
        points[:-1],
        buffers[:-1],
        points[1:],
        buffers[1:],
        sgd.learning_rate,
        sgd.momentum,
        sgd.weight_decay,
    )


def _steps(
    problem: Problem, sgd: SGD, flat: Float[Any, " d"], key: PRNGKeyArray, number: int
) -> tuple[Float[Any, "number d"], Float[Any, "number d"]]:
    """Parameters and momentum buffers after each of `number` steps."""

    def move(state: Any, _: Any) -> tuple[Any, Any]:
        moved = sgd.step(key, problem, state)
        return moved, (problem.flatten(moved.params), problem.flatten(moved.momentum_buffer))

    begin = sgd.init(problem, problem.unflatten(flat))
    return jax.lax.scan(move, begin, None, length=number)[1]


def charge_decay_rate(
    charges: Float[Any, "replica record"], times: Float[Any, " record"]
) -> Estimate:
    """Rate r at which |q| decays as exp(−rt): minus the slope of ln|q| on t, replica by replica.

    With times t = ηk/(1−β) it is to be held against `predicted_charge_change`, or −dq/dt/q of
    `laws.balance.balance_rate`; for a scalar pair T Var[dℓ/d(uw)] + 2λ. Error over replicas.

    Raises `ValueError` for fewer than two records or replicas, and for charges that vanish or
    change sign: they do not decay exponentially.

    Source: Ziyin, Li, Ueda (2023), arXiv:2308.06671.

    Numbers are float64.

    >>> import numpy as np
    >>> times = np.arange(5.0)
    >>> charges = np.array([[1.0], [2.0]]) * np.exp(-0.5 * times)
    >>> round(float(charge_decay_rate(charges, times).value), 4)
    0.5
    """
    q = np.asarray(finite_array("charges", charges, ndim=2), dtype=np.float64)
    t = np.asarray(finite_array("times", times, ndim=1), dtype=np.float64)
    if t.shape != q.shape[1:] or len(t) < 2 or np.ptp(t) == 0:
        raise ValueError(f"times must be {q.shape[1]} different numbers, got shape {t.shape}")
    turned = np.any(q * np.sign(q[:, :1]) <= 0, axis=1)
    if turned.any():
        raise ValueError(
            f"charges must keep their sign for a decay rate, got {int(turned.sum())} replicas of "
            f"{len(q)} whose charge vanishes or turns"
        )
    centred = t - t.mean()
    return mean_over_clusters(-(np.log(np.abs(q)) @ centred) / (centred @ centred))


@kinds_checked
def predicted_charge_change(
    problem: Problem, sgd: SGD, symmetry: Symmetry, params: Float[Any, "n d"]
) -> Float[Any, " n"]:
    """Mean change of the charge in one step of `sgd` from each of `params`.

    Without momentum exactly ((1−ηλ)² − 1)q + η²(tr AC + ∇LᵀA∇L). With momentum that of the law of
    balance, η' (η' tr AC − 2λq) with η' = η/(1−β): to leading order in η, once the buffer has
    settled.

    Raises `ValueError` for noise that is correlated in time.

    Source: Ziyin, Li, Ueda (2023), arXiv:2308.06671; the discrete form is derived.

    >>> import numpy as np
    >>> from statsgd import noise
    >>> from statsgd.measures import rescaling_symmetry
    >>> from statsgd.problems import landscape
    >>> problem = landscape(lambda p: (p["u"] * p["w"] - 1.0) ** 2, {"u": 1.0, "w": 1.0})
    >>> rule, sgd = rescaling_symmetry(problem, ["u"], ["w"]), SGD(0.1, noise.Isotropic(0.0))
    >>> predicted_charge_change(problem, sgd, rule, np.array([[2.0, 1.0]])).round(4)
    array([-0.12])
    """
    theta = _points(params)
    sgd.require_heavy_ball()
    eta, beta, decay = (float(x) for x in (sgd.learning_rate, sgd.momentum, sgd.weight_decay))
    up, down = noise_sides(problem, sgd.noise, symmetry, theta)
    q = np.asarray(symmetry.charge(theta))
    if beta:
        eta = eta / (1 - beta)
        return eta * (eta * (up - down) - 2 * decay * q)
    force = symmetry.charge(full_gradients(problem, theta[:, None])[:, 0])
    return ((1 - eta * decay) ** 2 - 1) * q + eta**2 * (up - down + force)


@kinds_checked
def charge_change(
    problem: Problem, sgd: SGD, symmetry: Symmetry, params: Float[Any, "replica step d"]
) -> ChargeChange:
    """Mean change of the charge in a step, over replicas and consecutive steps, and what it should
    be at these states.

    Without momentum the gap has mean zero exactly, stationary or not. Its error is over replicas,
    or over stretches of a few runs. Raises as `predicted_charge_change`, and for fewer than two
    steps.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd import noise
    >>> from statsgd.measures import rescaling_symmetry
    >>> from statsgd.problems import landscape
    >>> problem = landscape(lambda p: (p["u"] * p["w"] - 1.0) ** 2, {"u": 1.0, "w": 1.0})
    >>> here = np.random.default_rng(0).normal(size=(8, 1, 2))  # (u, w) of eight replicas
    >>> slope = 2 * (here[..., :1] * here[..., 1:] - 1.0) * here[..., ::-1]
    >>> run = np.concatenate([here, here - 0.1 * slope], axis=1)
    >>> rule, sgd = rescaling_symmetry(problem, ["u"], ["w"]), SGD(0.1, noise.Isotropic(0.0))
    >>> found = charge_change(problem, sgd, rule, run)
    >>> abs(float(found.gap.value)) < 1e-9
    True
    """
    theta = np.asarray(finite_array("params", params, ndim=3), dtype=np.float64)
    if theta.shape[1] < 2:
        raise ValueError(f"params must have at least two steps, got shape {theta.shape}")
    moved = np.diff(symmetry.charge(theta), axis=1)
    earlier = theta[:, :-1].reshape(-1, theta.shape[2])
    predicted = predicted_charge_change(problem, sgd, symmetry, earlier).reshape(moved.shape)
    return ChargeChange(*(mean_over_runs(x) for x in (moved, predicted, moved - predicted)))


def noise_sides(
    problem: Problem, noise: GradientNoise, symmetry: Symmetry, params: Float[Any, "n d"]
) -> tuple[Float[Any, " n"], Float[Any, " n"]]:
    """Gradient noise in the positive and negative eigenspace of A, tr A₊C and tr A₋C, at points.

    Raises `ValueError` for noise that is correlated in time or does not fit the problem.
    """
    theta = _points(params)
    check_symmetry("symmetry", symmetry, theta.shape[1])
    noise.check(problem)
    noise.require_variance()
    if not noise.white:
        raise ValueError(
            "noise must be independent from step to step for a law of balance, got "
            f"{getattr(noise, 'sampling', type(noise).__name__)!r}"
        )
    if symmetry.diagonal:
        weights, basis = symmetry.generator, None
    else:
        weights, basis = np.linalg.eigh(symmetry.generator)

    spread = in_double_precision(_variances, problem, noise, theta, basis)
    return spread @ np.clip(weights, 0, None), spread @ np.clip(-weights, 0, None)


def _variances(
    problem: Problem, noise: GradientNoise, points: Float[Any, "n d"], basis: Any
) -> Float[Any, "n d"]:
    """Variances of the noise along the columns of `basis`, by default the coordinates."""

    def at(flat: Float[Any, " d"]) -> Float[Any, " d"]:
        params = problem.unflatten(flat)
        if isinstance(noise, Minibatch) and noise.knows_examples(problem):
            rows = centred_example_gradients(problem, params)
            rows = rows if basis is None else rows @ basis
            return noise.variance_factor(problem) * jnp.mean(rows**2, axis=0)
        covariance = noise.covariance(problem, params)
        return jnp.diagonal(covariance if basis is None else basis.T @ covariance @ basis)

    return jax.lax.map(at, points)


@kinds_checked
def noise_equilibrium_residual(
    problem: Problem, sgd: SGD, symmetry: Symmetry, params: Float[Any, "n d"]
) -> Estimate:
    """How far endpoints `params` are from the noise equilibrium, relative: 0 in the long run.

        (⟨tr A₊C⟩ − ⟨tr A₋C⟩ − (2λ/η')⟨q⟩)/½(⟨tr A₊C⟩ + ⟨tr A₋C⟩),   η' = η/(1−β)

    between −2 and 2 without weight decay. It is noise that is balanced, in general not norms. A
    ratio of means over independent endpoints, with the jackknife's error; O(η) off zero for finite
    learning rates.

    Raises `ValueError` as `noise_sides`, and where both sides are without noise.

    Source: Ziyin et al. (2024), arXiv:2402.07193.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd import noise
    >>> from statsgd.measures import rescaling_symmetry
    >>> from statsgd.problems import landscape
    >>> problem = landscape(lambda p: (p["u"] * p["w"] - 1.0) ** 2, {"u": 1.0, "w": 1.0})
    >>> rule, sgd = rescaling_symmetry(problem, ["u"], ["w"]), SGD(0.1, noise.HessianScaled(1.0))
    >>> residual = noise_equilibrium_residual(problem, sgd, rule, np.ones((8, 2)))
    >>> round(float(residual.value), 6)  # u and w are balanced
    0.0
    """
    theta = _points(params)
    up, down = noise_sides(problem, sgd.noise, symmetry, theta)
    if not np.mean(up + down) > 0:
        raise ValueError("params must have gradient noise along the symmetry, got none")
    sgd.require_heavy_ball()
    rate = float(sgd.learning_rate) / (1 - float(sgd.momentum))
    pull = 2 * float(sgd.weight_decay) / rate * np.asarray(symmetry.charge(theta))
    columns = np.stack([up, down, pull], axis=1)
    return jackknife(lambda mean: 2 * (mean[0] - mean[1] - mean[2]) / (mean[0] + mean[1]), columns)


def _points(params: Any) -> Float[Any, "n d"]:
    return np.asarray(finite_array("params", params, ndim=2), dtype=np.float64)
