"""The law of SGD in the leading modes around a checkpoint of a network of any size."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import numpy as np
import xarray as xr
from jaxtyping import Float, PyTree

from statsgd.arguments import (
    count,
    finite_array,
    fraction,
    location_vector,
    positive,
    random_seed,
    single,
    step_count,
    symmetric,
)
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.gaussian import NormalLaw
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.minimum.epoch_noise import epoch_phase
from statsgd.laws.minimum.heavy_ball import HeavyBallGaussian, require_stable_mean
from statsgd.laws.minimum.mode_chain import (
    Epoch,
    block_covariance,
    independent_response,
    mean_state,
    ramped_covariance,
    response,
    stationary_independent_response,
    stationary_response,
    transitions,
)
from statsgd.laws.networks.checkpoint import at_checkpoint
from statsgd.laws.networks.mode_projection import projected
from statsgd.laws.networks.pilot import Pilot, pilot_of
from statsgd.problems import Problem
from statsgd.problems.eigenpairs import Eigenpairs


@register
class ModeLaw(NormalLaw):
    """Law of heavy-ball SGD along k modes around a checkpoint θ₀, after some steps or for ever.

    Its parameters are x = Vᵀ(θ − θ₀) for orthonormal eigenvectors V of the Hessian at θ₀. Where
    the force is linear and the noise constant, each mode is the chain

        z = (x, m),   z ← F z + G(g + ξ),   F = [[1−ηh, −ηβ], [h, β]],   G = (−η, 1)

    with curvature h (that of L plus weight decay), gradient g = vᵀ(∇L + λθ₀) and noise of
    covariance VᵀCV. Replicas that leave θ₀ together have, after K `steps`, exactly

        mean Fᴷ(0, m₀) + Σ_{n<K} Fⁿ G g,     covariance C_ij Σ_{n<K} F_iⁿ GGᵀ F_jⁿᵀ

    of two modes i, j, and under reshuffled epochs the sums of `EpochNoiseGaussian` from rest. This
    asks for no minimum: g ≠ 0 is part of it, and where h ≤ 0 variances grow. Only the stationary
    law, `steps=None`, needs 0 < ηh < 2(1+β). Moments are those of the linear chain at any learning
    rate; the law is normal where the noise is, or where the chain adds many kicks. Around a network
    noise and curvature change with the displacement, which `noise_at_end` carries to first order:
    the noise of a step is C + (C̄ − C) q, where q is the excess loss of the modes at that step over
    that after `noise_steps`, as the law with constant noise has them.

    **Arguments:** `curvatures` h `(k,)`, decay included, loss/params²; `noise_covariance` VᵀCV
    `(k, k)`; η, β as in `SGD`; `steps` K; `gradient` g and `momentum_buffer` m₀ `(k,)`, zero by
    default; `num_batches` M of a reshuffled epoch, which a run begins with, or an `Epoch` where
    batches differ in size, examples are left out or one order is repeated, and for the stationary
    law the `phase` in it; `independent_noise` `(k, k)`, what of the noise every batch of an epoch
    has for itself, as that of dropout, zero by default; `noise_at_end` VᵀC̄V `(k, k)`, which under
    epochs and in the stationary law is the noise of all steps (`independent_noise` is part of it
    then), and the `noise_steps` it takes to get there, by default `steps`; `modes` V `(d, k)` and
    `checkpoint` θ₀ `(d,)`, which `project` needs; `residuals`, `noise_error` and `pilot`, what
    `from_checkpoint` found.

    Raises `ValueError` for other shapes. Source: *derived*; Liu, Ziyin, Ueda (2021),
    arXiv:2012.03636, for the stationary chain.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> problem = problems.linear_regression(np.diag([2.0, 1.0, 0.5]), np.ones(3))
    >>> sgd = SGD(0.1, noise.Minibatch(1))
    >>> law = ModeLaw.from_checkpoint(problem, sgd, np.ones(3), modes=2)
    >>> law.curvatures.round(4)
    array([1.3333, 0.3333])
    """

    setting: ClassVar[str] = "heavy-ball SGD around a checkpoint: linear force, constant noise"
    exactness: ClassVar[str] = "exact first two moments of the linear chain after any steps"
    citation: ClassVar[str] = "derived; Liu, Ziyin, Ueda (2021), arXiv:2012.03636"

    curvatures: Float[Any, " k"]
    noise_covariance: Float[Any, "k k"]
    learning_rate: Float[Any, ""]
    momentum: Float[Any, ""]
    steps: int | None = eqx.field(static=True)
    gradient: Float[Any, " k"]
    momentum_buffer: Float[Any, " k"]
    epoch: Epoch | None = eqx.field(static=True)
    phase: int = eqx.field(static=True)
    independent_noise: Float[Any, "k k"] | None
    """What of VᵀCV is no choice of examples, under epochs."""
    noise_at_end: Float[Any, "k k"] | None
    noise_steps: int | None = eqx.field(static=True)
    buffer_location: Float[Any, " k"]
    """Mean of the momentum buffer along the modes."""
    modes: Float[Any, "d k"] | None
    """V, orthonormal columns."""
    checkpoint: Float[Any, " d"] | None
    """θ₀, flat."""
    residuals: Float[Any, " k"] | None
    """|Hv − ρv|/|ρ| of each mode, ρ = h − λ the eigenvalue of the Hessian of L."""
    noise_error: Float[Any, "k k"] | None
    """Standard error of VᵀCV where that is by Monte Carlo; None where it is exact."""
    pilot: Pilot | None
    """What a few replicas found at their endpoints."""

    def __init__(
        self,
        curvatures: Any,
        noise_covariance: Any,
        learning_rate: Any,
        momentum: Any = 0.0,
        steps: int | None = None,
        *,
        gradient: Any = None,
        momentum_buffer: Any = None,
        num_batches: int | Epoch | None = None,
        phase: int = 0,
        independent_noise: Any = None,
        noise_at_end: Any = None,
        noise_steps: int | None = None,
        modes: Any = None,
        checkpoint: Any = None,
        residuals: Any = None,
        noise_error: Any = None,
        pilot: Pilot | None = None,
    ):
        self.curvatures = np.asarray(finite_array("curvatures", curvatures, ndim=1), np.float64)
        k = len(self.curvatures)
        self.noise_covariance = symmetric(
            "noise_covariance", noise_covariance, dimension=k, definite="semi"
        )
        self.learning_rate = single("learning_rate", positive("learning_rate", learning_rate))
        self.momentum = single("momentum", fraction("momentum", momentum))
        self.steps = None if steps is None else step_count("steps", steps, at_least=0)
        self.gradient = location_vector(gradient, k, name="gradient")
        self.momentum_buffer = location_vector(momentum_buffer, k, name="momentum_buffer")
        self.epoch = num_batches if isinstance(num_batches, Epoch) else None
        if num_batches is not None and self.epoch is None:
            self.epoch = Epoch.of(count("num_batches", num_batches))
        self.phase = count("phase", phase, at_least=0)
        if self.phase:
            epoch_phase(self.phase, self.num_batches or 1)
        self.independent_noise = None
        if independent_noise is not None:
            if self.epoch is None:
                raise ValueError("independent_noise must go with num_batches: all white noise is")
            self.independent_noise = symmetric("independent_noise", independent_noise, dimension=k)
        self.noise_at_end = None
        if noise_at_end is not None:
            self.noise_at_end = symmetric(
                "noise_at_end", noise_at_end, dimension=k, definite="semi"
            )
        self.noise_steps = None if noise_steps is None else step_count("noise_steps", noise_steps)
        self.modes, self.checkpoint = modes, checkpoint
        if modes is not None:
            self.modes = np.asarray(finite_array("modes", modes, ndim=2), np.float64)
            self.checkpoint = location_vector(checkpoint, len(self.modes), name="checkpoint")
            if self.modes.shape[1] != k:
                raise ValueError(f"modes must have {k} columns, got shape {self.modes.shape}")
        self.residuals = None
        if residuals is not None:
            self.residuals = location_vector(residuals, k, name="residuals")
        self.noise_error = None
        if noise_error is not None:
            self.noise_error = symmetric("noise_error", noise_error, dimension=k)
        self.pilot = pilot
        mean, self.joint = self._stationary() if steps is None else self._transient(steps)
        self.location, self.buffer_location = mean.T

    @classmethod
    def from_checkpoint(
        cls,
        problem: Problem,
        sgd: SGD,
        params: PyTree,
        modes: int | Eigenpairs = 32,
        steps: int | None = None,
        *,
        momentum_buffer: PyTree | None = None,
        phase: int = 0,
        pilot: int | xr.DataTree | None = None,
        seed: int = 0,
    ) -> Self:
        """The law for replicas of `sgd` that leave `params` together and take `steps` steps.

        Everything is measured at the checkpoint: the leading eigenpairs of the Hessian of L by
        products, the slopes of every example's loss along them, the gradient there. The noise of
        random losses and of a `batch_risk` is measured on draws, and has a `noise_error`.

        **Arguments:** `params`, the checkpoint; `modes`, how many, those of the largest curvatures,
        or eigenpairs that are known already, such as `measures.top_eigenpairs` gives; `steps`, None
        for the stationary law; `momentum_buffer`, a pytree like `params` that replicas start with,
        by default zero as `simulate` starts them; `phase`, for the stationary law under reshuffled
        epochs; `pilot`, how many replicas of `seed` to run for `corrected`, 4 to 8 say, or an
        ensemble of `simulate` that left the checkpoint, whose endpoints are taken.

        Raises `ValueError` for SGD that is not heavy-ball SGD, for noise that does not fit the
        problem, for shuffled batches of a `batch_risk`, for more modes than parameters, and where
        the loss is not finite at `params`.
        """
        if steps is not None:
            step_count("steps", steps, at_least=0)
        random_seed(seed)
        found = at_checkpoint(problem, sgd, params, modes, momentum_buffer)
        looked = None
        if pilot is not None:
            looked = pilot_of(problem, sgd, params, found, pilot, steps, seed)
        return cls(
            learning_rate=sgd.learning_rate,
            momentum=sgd.momentum,
            steps=steps,
            phase=phase,
            pilot=looked,
            num_batches=found.epoch,
            **{name: part for name, part in found._asdict().items() if name != "epoch"},
        )

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """From rest over a saddle, stationary, growing noise from a buffer, inside epochs."""
        skew = [[1.0, 0.6], [0.6, 0.8]]
        yield cls([2.0, -0.1], skew, 0.1, 0.9, 20, gradient=[0.3, 0.1])
        yield cls([2.0, 0.5], skew, 0.3, 0.5, gradient=[0.2, 0.0])
        yield cls(
            [2.0, 0.0],
            np.eye(2),
            0.1,
            0.5,
            9,
            momentum_buffer=[1.0, 0.5],
            noise_at_end=2 * np.eye(2),
        )
        yield cls([2.0, 0.5], skew, 0.1, 0.9, 13, num_batches=5)
        yield cls([2.0, 0.5], skew, 0.1, 0.9, num_batches=5, phase=2)
        epoch = Epoch(5, 4.6, 0.6, repeated=True)
        yield cls(
            [2.0, 0.5], skew, 0.1, 0.9, 13, num_batches=epoch, independent_noise=0.2 * np.eye(2)
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """For ever where a curvature is negative, zero, or too large for the learning rate."""
        return (
            cls([2.0, -0.1], np.eye(2), 0.1, 0.9),
            cls([0.0], [[1.0]], 0.1, 0.9),
            cls([2.0], [[1.0]], 2.0, 0.9),
            cls([2.0], [[1.0]], 100.0, 0.9, 10_000),
        )

    @property
    def num_batches(self) -> int | None:
        """Steps of an epoch; None for white noise."""
        return None if self.epoch is None else self.epoch.num_batches

    def after(self, steps: int | None) -> Self:
        """The same law after another number of steps, or for ever."""
        return self._with(steps=steps)

    def heavy_ball(self) -> HeavyBallGaussian:
        """The stationary law of the modes as a `HeavyBallGaussian`, under white noise.

        What that is asked for is known of the modes: `minimum.PhaseSpaceTransition.of` it has
        autocorrelations, `minimum.phase_plane_area` and `minimum.stochastic_area` currents,
        `minimum.mean_squared_displacement` and `minimum.local_displacement` how far and how fast it
        moves. Raises `ImproperLawError` where it does not exist, `ValueError` under epochs.
        """
        if self.epoch is not None:
            raise ValueError(f"noise must be white here, got epochs of {self.num_batches} batches")
        self.after(None).require_proper()
        location = -self.gradient / self.curvatures
        return HeavyBallGaussian(
            np.diag(self.curvatures),
            self._settled_noise(),
            self.learning_rate,
            self.momentum,
            location=location,
        )

    def displacement(self, steps: Sequence[int]) -> Float[Any, "steps k"]:
        """E x² of every mode (params²) after each of `steps` from the checkpoint, mean included."""
        laws = [self.after(number) for number in steps]
        k = self.dimension
        return np.stack([law.location**2 + law.joint.diagonal()[:k] for law in laws])

    @property
    def corrected(self) -> Self:
        """This law with the curvatures of its pilot, and noise that grows to the pilot's.

        It has the errors of the pilot's few replicas: see `corrected_without_each`. Raises
        `ValueError` for a law without a pilot.
        """
        return self._corrected_by(self._required_pilot())

    def corrected_without_each(self) -> list[Self]:
        """`corrected` with each of the pilot's replicas left out in turn.

        Whatever follows from `corrected` has the jackknife's error √((n−1) Var), where Var is its
        variance over these n laws. Raises `ValueError` for a law without a pilot.
        """
        pilot = self._required_pilot()
        return [
            self._corrected_by(pilot.without(index)) for index in range(len(pilot.endpoint_noises))
        ]

    def _required_pilot(self) -> Pilot:
        if self.pilot is None:
            raise ValueError("pilot must be given to from_checkpoint for a corrected law")
        return self.pilot

    def _corrected_by(self, pilot: Pilot) -> Self:
        return self._with(
            curvatures=pilot.curvatures,
            independent_noise=pilot.independent_noise,
            noise_at_end=pilot.noise_covariance,
            noise_steps=pilot.steps,
        )

    def project(self, ensemble: xr.DataTree | Float[Any, "... d"]) -> Any:
        """x = Vᵀ(θ − θ₀) of an ensemble's parameters, and Vᵀm of its momentum buffers.

        A `DataTree` of `simulate` keeps its groups, with one variable `params` `(…, k)` in place of
        the parameters' leaves: it is what `compare` holds against this law. Flat parameters
        `(…, d)` give `(…, k)`. Raises `ValueError` for a law without `modes`, and for others.
        """
        if self.modes is None or self.checkpoint is None:
            raise ValueError("modes and checkpoint must be given to a ModeLaw that projects")
        return projected(ensemble, self.modes, self.checkpoint)

    def directions(self) -> Float[Any, "k k"]:
        """The modes themselves."""
        return np.eye(self.dimension)

    def require_proper(self) -> None:
        """Raise `ImproperLawError` for a law for ever without one, and where moments overflow."""
        if self.steps is None:
            require_stable_mean(self.curvatures, float(self.learning_rate), float(self.momentum))
        elif not np.all(np.isfinite(self.joint)):
            raise ImproperLawError(
                f"the variance after steps = {self.steps} is beyond the largest number: the modes "
                f"of curvatures {self.curvatures.min():.6g} to {self.curvatures.max():.6g} grow at "
                f"learning_rate = {float(self.learning_rate):.6g}"
            )

    def _evaluated(self) -> Self:
        def others(law: Self) -> Any:
            return law.modes, law.checkpoint, law.residuals, law.noise_error, law.pilot

        return eqx.tree_at(others, self, (None,) * 5, is_leaf=lambda leaf: leaf is None)

    def _buffer_mean(self) -> Float[Any, " k"]:
        return self.buffer_location

    def _with(self, **changes: Any) -> Self:
        """This law with other arguments."""
        names = (
            "curvatures", "noise_covariance", "learning_rate", "momentum", "steps", "gradient",
            "momentum_buffer", "phase", "independent_noise", "noise_at_end", "noise_steps", "modes",
            "checkpoint", "residuals", "noise_error", "pilot",
        )  # fmt: skip
        same = {name: getattr(self, name) for name in names} | {"num_batches": self.epoch}
        return type(self)(**(same | changes))

    def _transient(self, steps: int) -> tuple[Any, Any]:
        """Mean `(k, 2)` and covariance `(2k, 2k)` after `steps`."""
        eta = self.learning_rate
        of_one = transitions(self.curvatures, eta, self.momentum)
        start = np.stack([np.zeros_like(self.momentum_buffer), self.momentum_buffer], axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = mean_state(of_one, eta, self.gradient, start, steps)
            if self.noise_at_end is not None and self.epoch is None:
                noises = self.noise_covariance, self.noise_at_end
                ask = (eta, self.momentum, noises, steps, self.noise_steps or steps)
                return mean, ramped_covariance(self.curvatures, *ask)
            sides = of_one[:, None], of_one[None]
            pairs = response(*sides, eta, steps, self.epoch)
            if self.epoch is None or self.independent_noise is None:
                return mean, block_covariance(pairs, self._settled_noise())
            apart = independent_response(*sides, eta, steps, self.epoch)
            return mean, self._in_two_parts(pairs, apart, self.independent_noise)

    def _stationary(self) -> tuple[Any, Any]:
        """Mean `(k, 2)` and covariance `(2k, 2k)` for ever, or NaN."""
        k, rest = len(self.curvatures), (self.epoch, self.phase)
        try:
            self.require_proper()
        except ImproperLawError:
            return np.full((k, 2), np.nan), np.full((2 * k, 2 * k), np.nan)
        chain = self.curvatures, self.learning_rate, self.momentum
        pairs = stationary_response(*chain, *rest)
        mean = np.stack([-self.gradient / self.curvatures, np.zeros(k)], axis=1)
        if self.epoch is None or self.independent_noise is None:
            return mean, block_covariance(pairs, self._settled_noise())
        apart = stationary_independent_response(*chain, self.epoch, self.phase)
        return mean, self._in_two_parts(pairs, apart, self.independent_noise)

    def _in_two_parts(self, pairs: Any, apart: Any, own: Any) -> Any:
        """`(2k, 2k)`, from responses to choices of examples, and to each batch's `own` noise."""
        return block_covariance(pairs, self._settled_noise() - own) + block_covariance(apart, own)

    def _settled_noise(self) -> Float[Any, "k k"]:
        return self.noise_covariance if self.noise_at_end is None else self.noise_at_end
