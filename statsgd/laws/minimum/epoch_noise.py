"""Stationary law of heavy-ball SGD whose data are reshuffled every epoch."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import ndtri
from jaxtyping import Float, PyTree

from statsgd.arguments import count, finite_array, is_traced, symmetric
from statsgd.dynamics.noise import Minibatch
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.gaussian import (
    GaussianLaw,
    normal_cdf,
    normal_log_density,
    require_positive_definite,
    square_root,
)
from statsgd.laws.bases.potential import density_model
from statsgd.laws.law import register
from statsgd.laws.minimum.gaussian import ConstantNoiseGaussian
from statsgd.laws.minimum.heavy_ball import require_settled_chain
from statsgd.laws.minimum.local_quadratic import local_quadratic
from statsgd.laws.minimum.mode_chain import Epoch, block_covariance, response, transitions
from statsgd.precision import formula
from statsgd.problems import EmpiricalRisk, Problem


@register
class EpochNoiseGaussian(ConstantNoiseGaussian):
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
    which keeps flat directions above this law: O(η³) in covariances, which is O(η) of them inside
    an epoch and with momentum, but a share that stays at epoch ends without (a quarter on the six
    examples of `ReshuffledRegressionGaussian`, which is exact). They shift the mean by O(η): see
    `reshuffle_mean_shift`, right up to O(η²).

    **Arguments:** as `HeavyBallGaussian`, and `num_batches` M = N/S. C is the covariance of one
    batch without repeats, Σ₁(N−S)/(S(N−1)): zero for a single one, whose epochs do not fluctuate.

    Source: Kühn, Rosenow (2023), arXiv:2306.05300, for the noise correlation and the reduced
    variance; the exact law is derived.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> problem = problems.linear_regression(np.ones((4, 1)), np.array([1.0, 2.0, 3.0, 4.0]))
    >>> law = EpochNoiseGaussian.from_sgd(problem, SGD(0.1, noise.Minibatch(1, "reshuffle")))
    >>> law.covariance().round(4)
    array([[0.0012]])
    """

    setting: ClassVar[str] = "heavy-ball SGD, quadratic loss, constant noise, reshuffled epochs"
    exactness: ClassVar[str] = "exact first two moments at any learning rate and phase"
    citation: ClassVar[str] = "Kühn, Rosenow (2023), arXiv:2306.05300"

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
        super().__init__(hessian, noise_covariance, learning_rate, momentum, weight_decay, location)
        noisy = not is_traced(self.noise_covariance) and np.any(self.noise_covariance)
        self.num_batches = count("num_batches", num_batches, at_least=2 if noisy else 1)
        self.phase = epoch_phase(phase, self.num_batches)
        self.phase_covariances = self._where_proper(epoch_covariances, self.num_batches, self.phase)
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
        sgd.require_heavy_ball()
        if not (isinstance(sgd.noise, Minibatch) and sgd.noise.sampling == "reshuffle"):
            raise ValueError(
                f"the law needs Minibatch noise sampled by 'reshuffle', got {sgd.noise}"
            )
        if not isinstance(problem, EmpiricalRisk):
            raise ValueError(f"the law needs a data set to reshuffle, got {type(problem).__name__}")
        sgd.noise.check(problem)
        sgd.noise.require_equal_batches(problem.num_examples)
        n, s = problem.num_examples, sgd.noise.batch_size
        # A single batch of a shuffled epoch is a batch without repeats.
        one_batch = Minibatch(s, "without_replacement")
        white = SGD(sgd.learning_rate, one_batch, sgd.momentum, sgd.weight_decay)
        local = local_quadratic(problem, white, at)
        return cls._near(local, sgd, num_batches=n // s, phase=phase)

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

    @property
    def has_discrete_sites(self) -> bool:
        """Whether the phase is drawn."""
        return self.phase == "random"

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless 0 < ηh < 2(1+β) in every mode."""
        require_settled_chain(self)

    def after(self, steps: int, *, mean: Any = None, covariance: Any = None) -> GaussianLaw:
        """The law of the parameters after `steps` from the beginning of an epoch.

        Whether or not it settles: after e epochs and j steps, P_j with the P_0 of e epochs. `mean`
        and `covariance` of the start are as in `HeavyBallGaussian.after`.
        """
        d = self.dimension
        centre, spread = self.state_after(steps, mean=mean, covariance=covariance)
        return GaussianLaw(centre[:d], spread[:d, :d])

    def state_after(
        self, steps: int, *, mean: Any = None, covariance: Any = None
    ) -> tuple[Float[Any, " size"], Float[Any, "size size"]]:
        """Mean and covariance of (θ, m), as in `after`."""
        number, d = count("steps", steps, at_least=0), self.dimension
        centre = finite_array("mean", self.location if mean is None else mean, ndim=1)
        if len(centre) not in (d, 2 * d):
            raise ValueError(f"mean must have shape ({d},) or ({2 * d},), got {centre.shape}")
        spread = np.zeros((len(centre),) * 2)
        if covariance is not None:
            spread = symmetric("covariance", covariance, dimension=len(centre), definite="semi")
        rest, (h, q) = (0, 2 * d - len(centre)), self.modes()
        centre, spread = np.pad(centre, rest), np.pad(spread, (rest, rest))
        of_one, turn = transitions(h, self.learning_rate, self.momentum), np.kron(np.eye(2), q)
        left, right = of_one[:, None], of_one[None]
        epoch = Epoch.of(self.num_batches)
        kicks = response(left, right, self.learning_rate, number, epoch)
        # Each block of Fⁿ is diagonal in the modes.
        power = np.linalg.matrix_power(of_one, number)
        whole = np.block([[q * power[:, a, b] @ q.T for b in (0, 1)] for a in (0, 1)])
        minimum = np.pad(self.location, (0, d))
        noise = block_covariance(kicks, q.T @ self.noise_covariance @ q)
        return (
            minimum + whole @ (centre - minimum),
            whole @ spread @ whole.T + turn @ noise @ turn.T,
        )

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Sites `params` and `momentum_buffer`; at a random phase also `phase`."""
        if self.phase != "random":
            ConstantNoiseGaussian.model(self, obs)
            return
        self.require_proper()
        if obs is not None:
            density_model(self, dist.constraints.real_vector, obs)
            return
        d = self.dimension
        phase = numpyro.sample("phase", dist.Categorical(logits=jnp.zeros(self.num_batches)))
        z = numpyro.sample("z", dist.Normal(0, 1).expand([2 * d]).to_event(1))
        state = jnp.asarray(square_root(self.phase_covariances))[phase] @ z
        numpyro.deterministic("params", self.location + state[:d])
        numpyro.deterministic("momentum_buffer", state[d:])

    def _require_density(self, variables: tuple[str, ...]) -> None:
        """Raise `ImproperLawError` where the covariance is singular at some phase."""
        require_positive_definite(self._phase_covariances(variables))

    def _phase_covariances(self, variables: tuple[str, ...]) -> Float[Any, "k size size"]:
        size = self.dimension * len(variables)
        return self.phase_covariances[:, :size, :size]

    def _log_density(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        return _mixture(params - self.location, self._phase_covariances(("params",)))

    def _joint_log_density(
        self, params: Float[Any, " d"], momentum_buffer: Float[Any, " d"]
    ) -> Float[Any, ""]:
        state = jnp.concatenate([params - self.location, momentum_buffer])
        return _mixture(state, self.phase_covariances)

    def _cdf(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        return _mixture_cdf(params - self.location, self._spreads())

    def _quantile(self, probability: Float[Any, "..."]) -> Float[Any, "... d"]:
        return self.location + _mixture_quantile(probability, self._spreads())

    def _spreads(self) -> Float[Any, "k d"]:
        """Standard deviation of every parameter at every phase."""
        return self.phase_covariances.diagonal(axis1=1, axis2=2)[:, : self.dimension] ** 0.5


def _mixture(state: Float[Any, " size"], covariances: Float[Any, "k size size"]) -> Any:
    densities = jax.vmap(normal_log_density, (None, 0))(state, jnp.asarray(covariances))
    return jax.nn.logsumexp(densities) - jnp.log(len(covariances))


@formula
def _mixture_cdf(deviation: Any, spreads: Any) -> Any:
    return jnp.mean(normal_cdf(jnp.asarray(deviation)[..., None, :], spreads), axis=-2)


@formula
def _mixture_quantile(probability: Any, spreads: Any) -> Any:
    # By bisection between the quantiles of the narrowest and of the widest phase.
    probability = jnp.asarray(probability)[..., None]
    ends = [ndtri(probability) * width for width in (spreads.min(0), spreads.max(0))]

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        below = _mixture_cdf(middle, spreads) < probability
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, 60, halve, (jnp.minimum(*ends), jnp.maximum(*ends)))
    return (low + high) / 2


@formula
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
    eye = jnp.eye(hessian.shape[0])
    stiffness = hessian + weight_decay * eye
    transition = jnp.block(
        [
            [eye - learning_rate * stiffness, -learning_rate * momentum * eye],
            [stiffness, momentum * eye],
        ]
    )
    entry = jnp.concatenate([-learning_rate * eye, eye])
    kicks = entry @ noise_covariance @ entry.T
    return phase_covariances(transition, kicks, num_batches, phase)


@formula
def phase_covariances(
    transition: Any, noise: Any, num_batches: int, phase: int | str
) -> Float[Any, "k n n"]:
    """The same for any chain z ← Az + kick; `noise`, the covariance of one kick of an epoch."""

    def advance(carry, j):
        # Welford's update of the mean of the powers Fⁱ and of Σ (Fⁱ − mean) N (Fⁱ − mean)ᵀ: in
        # flat modes the plain sums cancel.
        power, mean, spread, _ = carry
        deviation = power - mean
        spread = spread + (j - 1) / j * deviation @ noise @ deviation.T
        mean = mean + deviation / j
        rest = j * (1 - j / num_batches) * mean @ noise @ mean.T
        gathered = num_batches / others * (spread + rest)
        carry = (transition @ power, mean, spread, gathered)
        return carry, (carry[0], gathered) if phase == "random" else None

    nothing = jnp.zeros_like(transition)
    others = max(num_batches - 1, 1)  # without any others there is no noise
    start = (jnp.eye(len(transition)), nothing, nothing, nothing)
    counts = jnp.arange(1, num_batches + 1) * 1.0
    (power, _, _, gathered), phases = jax.lax.scan(advance, start, counts)

    def double(_, carry):
        boundary, power = carry
        return boundary + power @ boundary @ power.T, power @ power

    # P = Σ (F^M)^k Q (F^M)^kᵀ: each round doubles the terms, 60 reach any spectral radius below 1.
    boundary, _ = jax.lax.fori_loop(0, 60, double, (gathered, power))
    if phase == "random":
        powers, noises = phases
        inner = powers[:-1] @ boundary @ jnp.swapaxes(powers[:-1], 1, 2) + noises[:-1]
        return jnp.concatenate([boundary[None], inner])
    if phase == 0:
        return boundary[None]
    (power, _, _, gathered), _ = jax.lax.scan(advance, start, counts[:phase])
    return (power @ boundary @ power.T + gathered)[None]


def epoch_phase(phase: int | str, num_batches: int) -> int | str:
    """`phase`, if it is "random" or a number of steps below those of an epoch."""
    if isinstance(phase, str):
        if phase != "random":
            raise ValueError(f"phase must be 'random' or an integer, got {phase!r}")
        return phase
    steps = count("phase", phase, at_least=0)
    if steps >= num_batches:
        raise ValueError(f"phase must be below num_batches = {num_batches}, got {steps}")
    return steps
