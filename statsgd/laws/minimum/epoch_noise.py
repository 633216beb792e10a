"""Stationary law of heavy-ball SGD whose data are reshuffled every epoch."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float, PyTree
from scipy.special import logsumexp, ndtr

from statsgd.arguments import count, fraction, is_traced, non_negative, positive, symmetric
from statsgd.dynamics.noise import Minibatch
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.gaussian import GaussianLaw, normal_log_density, square_root
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.minimum.heavy_ball import location_vector, require_stable_mean
from statsgd.laws.minimum.local_quadratic import local_quadratic
from statsgd.problems import EmpiricalRisk, Problem


@register
class EpochNoiseGaussian(GaussianLaw):
    """Stationary law of heavy-ball SGD on a quadratic under reshuffled epochs.

    Each epoch visits M batches once, so its M noise vectors sum to zero: they have covariance C
    each and −C/(M−1) between two of one epoch. With x = (θ−θ*, m), x ← Fx + Gξ, N = GCGᵀ and
    K_j = Σ_{i<j} Fⁱ, j steps after the start of an epoch

        Q_j = M/(M−1) [Σ_{i<j} Fⁱ N Fⁱᵀ − K_j N K_jᵀ/M],
        P_0 = F^M P_0 F^Mᵀ + Q_M,      P_j = F^j P_0 F^jᵀ + Q_j

    H and C need not commute. Steep modes, ηhM/(1−β) ≫ 1, fluctuate as under white noise; flat
    ones less, by s/3 (random step) or s²/12 (epoch end, β = 0), s = ηhM/(1−β).

    `phase` says when endpoints are read: an integer j, steps since the epoch began (0: whole
    epochs), or `"random"`: a uniformly random step, a mixture of M Gaussians whose covariance is
    the mean of the P_j. Moments are exact for constant noise at any learning rate; the law is
    Gaussian where noise is, or where an epoch sums many batches. Real data add curvature noise,
    which keeps flat directions above this law, and shift the mean by O(η): see
    `reshuffle_mean_shift`.

    **Arguments:** as `HeavyBallGaussian`, and `num_batches` M = N/S ≥ 2. C is the covariance of
    one batch without repeats, Σ₁(N−S)/(S(N−1)).

    Source: Kühn, Rosenow (2023), arXiv:2306.05300, for the noise correlation and the reduced
    variance; the exact law is derived.
    """

    setting: ClassVar[str] = "heavy-ball SGD, quadratic loss, constant noise, reshuffled epochs"
    exactness: ClassVar[str] = "exact first two moments at any learning rate and phase"
    citation: ClassVar[str] = "Kühn, Rosenow (2023), arXiv:2306.05300"
    has_discrete_sites: ClassVar[Any] = property(lambda self: self.phase == "random")

    noise_covariance: Float[Any, "d d"]
    num_batches: int = eqx.field(static=True)
    phase: int | str = eqx.field(static=True)
    #: P_j for every phase j `(M, 2d, 2d)` of a random phase, else one of them.
    phase_covariances: Float[Any, "k 2*d 2*d"]

    def __init__(
        self,
        hessian: Any,
        noise_covariance: Any,
        learning_rate: Any,
        num_batches: int,
        momentum: Any = 0.0,
        weight_decay: Any = 0.0,
        location: Any = None,
        phase: int | str = 0,
    ):
        self.hessian = symmetric("hessian", hessian)
        d = self.hessian.shape[0]
        self.noise_covariance = symmetric(
            "noise_covariance", noise_covariance, dimension=d, definite="semi"
        )
        self.learning_rate = positive("learning_rate", learning_rate)
        self.num_batches = count("num_batches", num_batches, at_least=2)
        self.momentum = fraction("momentum", momentum)
        self.weight_decay = non_negative("weight_decay", weight_decay)
        self.location = location_vector(location, d)
        self.phase = _phase(phase, self.num_batches)
        self.phase_covariances = self._phase_covariances()
        self.joint = self.phase_covariances.mean(0)

    @classmethod
    def from_sgd(
        cls,
        problem: Problem,
        sgd: SGD,
        at: PyTree | None = None,
        phase: int | str = 0,
    ) -> Self:
        """The law for `sgd` with `Minibatch(S, "reshuffle")` noise near a minimum of `problem`.

        Raises `ValueError` for other noise, if S does not divide N, and as `local_quadratic`.
        """
        if not (isinstance(sgd.noise, Minibatch) and sgd.noise.sampling == "reshuffle"):
            raise ValueError(
                f"the law needs Minibatch noise sampled by 'reshuffle', got {sgd.noise}"
            )
        if not isinstance(problem, EmpiricalRisk):
            raise ValueError(f"the law needs a data set to reshuffle, got {type(problem).__name__}")
        sgd.noise.check(problem)
        n, s = problem.num_examples, sgd.noise.batch_size
        # A single batch of a shuffled epoch is a batch without repeats.
        one_batch = Minibatch(s, "without_replacement")
        white = SGD(sgd.learning_rate, one_batch, sgd.momentum, sgd.weight_decay)
        local = local_quadratic(problem, white, at)
        return cls(
            local.hessian,
            local.noise_covariance,
            sgd.learning_rate,
            n // s,
            sgd.momentum,
            sgd.weight_decay,
            local.location,
            phase,
        )

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """One mode at the end of epochs, two that do not commute with the noise, a random step."""
        skew = [[1.0, 0.6], [0.6, 0.8]]
        return (
            cls([[1.0]], [[1.0]], 0.1, 10),
            cls(np.diag([2.0, 0.5]), skew, 0.3, 5, 0.5, 0.1, [0.5, -1.0], phase=2),
            cls([[0.2]], [[1.0]], 0.1, 20, 0.5, phase="random"),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A learning rate above the threshold, and a flat direction."""
        return cls([[2.0]], [[0.3]], 2.0, 4, 0.5), cls(np.diag([1.0, 0.0]), np.eye(2), 0.1, 4)

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless 0 < ηh < 2(1+β) in every mode."""
        if not is_traced(self.hessian, self.learning_rate, self.momentum, self.weight_decay):
            require_stable_mean(
                self.modes().curvatures, float(self.learning_rate), float(self.momentum)
            )

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Sites `params` and `momentum_buffer`; at a random phase also `phase`."""
        if self.phase != "random":
            GaussianLaw.model(self, obs)
            return
        self.require_proper()
        d, phases = self.dimension, jnp.asarray(self.phase_covariances)
        if obs is not None:
            flat = dist.ImproperUniform(dist.constraints.real_vector, (), (d,))
            with numpyro.plate("replica", obs.shape[0]):
                params = numpyro.sample("params", flat, obs=obs)
                numpyro.factor("stationary_law", self.log_density(params))
            return
        phase = numpyro.sample("phase", dist.Categorical(logits=jnp.zeros(self.num_batches)))
        z = numpyro.sample("z", dist.Normal(0, 1).expand([2 * d]).to_event(1))
        traced = is_traced(self.phase_covariances)
        roots = (
            jax.vmap(square_root)(phases)
            if traced
            else jnp.asarray(np.stack([square_root(p) for p in self.phase_covariances]))
        )
        state = roots[phase] @ z
        numpyro.deterministic("params", self.location + state[:d])
        numpyro.deterministic("momentum_buffer", state[d:])

    def log_density(
        self, params: Float[Any, "... d"], momentum_buffer: Float[Any, "... d"] | None = None
    ) -> Float[Any, "..."]:
        """Log density of `params`, or of the pair with the buffer m."""
        if self.phase != "random":
            return GaussianLaw.log_density(self, params, momentum_buffer)
        self.require_proper()
        traced = is_traced(params, momentum_buffer, self.phase_covariances)
        xp, total = (jnp, jax.nn.logsumexp) if traced else (np, logsumexp)
        state, size = params - self.location, self.dimension
        if momentum_buffer is not None:
            state, size = xp.concatenate([state, xp.asarray(momentum_buffer)], axis=-1), 2 * size
        covariances = self.phase_covariances[:, :size, :size]
        if traced:
            densities = jax.vmap(lambda c: normal_log_density(state, c))(jnp.asarray(covariances))
        else:
            densities = np.stack([normal_log_density(state, c) for c in covariances])
        return total(densities, axis=0) - np.log(self.num_batches)

    def cdf(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        """Marginal distribution function of each coordinate of θ."""
        self.require_proper()
        deviation = np.asarray(params, dtype=np.float64) - self.location
        variances = np.diagonal(self.phase_covariances, axis1=1, axis2=2)[:, : self.dimension]
        return np.mean([ndtr(deviation / np.sqrt(v)) for v in variances], axis=0)

    def _phase_covariances(self) -> Any:
        d = self.hessian.shape[0]
        try:
            self.require_proper()
        except ImproperLawError:
            return np.full((1, 2 * d, 2 * d), np.nan)
        return epoch_covariances(
            self.hessian,
            self.noise_covariance,
            self.learning_rate,
            self.momentum,
            self.weight_decay,
            self.num_batches,
            self.phase,
        )


def epoch_covariances(
    hessian: Any,
    noise_covariance: Any,
    learning_rate: Any,
    momentum: Any,
    weight_decay: Any,
    num_batches: int,
    phase: int | str,
) -> Float[Any, "k n n"]:
    """Covariance of (θ, m) at one phase, or at all M phases if `phase` is "random"."""
    traced = is_traced(hessian, noise_covariance, learning_rate, momentum, weight_decay)
    xp, loop = (jnp, jax.lax.scan) if traced else (np, _scan)
    d = hessian.shape[0]
    eye = xp.eye(d)
    stiffness = hessian + weight_decay * eye
    transition = xp.block(
        [
            [eye - learning_rate * stiffness, -learning_rate * momentum * eye],
            [stiffness, momentum * eye],
        ]
    )
    entry = xp.concatenate([-learning_rate * eye, eye])
    noise = entry @ noise_covariance @ entry.T

    def advance(carry, j):
        # Welford's update of the mean of the powers Fⁱ and of Σ (Fⁱ − mean) N (Fⁱ − mean)ᵀ: in
        # flat modes the plain sums cancel.
        power, mean, spread, _ = carry
        deviation = power - mean
        spread = spread + (j - 1) / j * deviation @ noise @ deviation.T
        mean = mean + deviation / j
        rest = j * (1 - j / num_batches) * mean @ noise @ mean.T
        gathered = num_batches / (num_batches - 1) * (spread + rest)
        carry = (transition @ power, mean, spread, gathered)
        return carry, (carry[0], gathered) if phase == "random" else None

    nothing = xp.zeros((2 * d, 2 * d))
    start = (xp.eye(2 * d), nothing, nothing, nothing)
    counts = xp.arange(1, num_batches + 1) * 1.0
    (power, _, _, gathered), phases = loop(advance, start, counts)
    # P = Σ (F^M)^k Q (F^M)^kᵀ: each round doubles the terms, 60 reach any spectral radius below 1.
    boundary = gathered
    for _ in range(60):
        boundary, power = boundary + power @ boundary @ power.T, power @ power
    if phase == "random":
        powers, noises = phases
        inner = powers[:-1] @ boundary @ xp.swapaxes(powers[:-1], 1, 2) + noises[:-1]
        return xp.concatenate([boundary[None], inner])
    if phase == 0:
        return boundary[None]
    (power, _, _, gathered), _ = loop(advance, start, counts[:phase])
    return (power @ boundary @ power.T + gathered)[None]


def _scan(advance: Any, carry: Any, counts: Any) -> tuple[Any, Any]:
    """`jax.lax.scan` on concrete numbers, in float64 and without a compilation."""
    outputs = []
    for j in counts:
        carry, output = advance(carry, j)
        outputs.append(output)
    if outputs[-1] is None:
        return carry, None
    return carry, tuple(np.stack(parts) for parts in zip(*outputs, strict=True))


def _phase(phase: int | str, num_batches: int) -> int | str:
    if isinstance(phase, str):
        if phase != "random":
            raise ValueError(f"phase must be 'random' or an integer, got {phase!r}")
        return phase
    steps = count("phase", phase, at_least=0)
    if steps >= num_batches:
        raise ValueError(f"phase must be below num_batches = {num_batches}, got {steps}")
    return steps
