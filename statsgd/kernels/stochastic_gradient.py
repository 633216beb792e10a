"""What the kernels share whose gradient comes from minibatches."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, PRNGKeyArray, PyTree
from numpyro.handlers import seed, substitute
from numpyro.util import is_prng_key

from statsgd.arguments import count, finite_array, non_negative, one_of
from statsgd.dynamics.noise import Minibatch
from statsgd.kernels.adapter import LangevinKernel
from statsgd.kernels.kernel_state import Info, KernelState, Potential
from statsgd.kernels.stochastic_potential import (
    PlatePotential,
    RiskPotential,
    StochasticPotential,
    WholePlates,
)
from statsgd.kernels.tree import all_finite, choose
from statsgd.problems import EmpiricalRisk, Problem

REDUCTIONS = ("control_variate", "svrg")


class Reference(NamedTuple):
    """A point with the exact potential and gradient there."""

    position: PyTree
    potential: Float[Any, ""]
    gradient: PyTree


class GradientEstimate(NamedTuple):
    """Potential and gradient at a chain's position, from the minibatch of its step."""

    potential: Float[Any, ""]
    gradient: PyTree
    step: Int[Any, ""]
    order: Any
    """Key of the chain's order of the data."""
    reference: Reference | None
    """Where the control variate is, if any."""


def reference_at(position: PyTree, potential: Potential) -> Reference:
    """The reference at `position`, from all the data."""
    return Reference(position, *jax.value_and_grad(potential)(position))


def evaluate(
    position: PyTree,
    potential: Potential,
    order: Any,
    step: Int[Any, ""],
    reference: Reference | None = None,
) -> tuple[Float[Any, ""], PyTree]:
    """Estimates of U and ∇U from the minibatch of `step`; exact where U is not stochastic.

    With a reference r they are Û_b(θ) − Û_b(r) + U(r) and its gradient: as unbiased, and without
    variance at r.
    """
    if not isinstance(potential, StochasticPotential):
        return jax.value_and_grad(potential)(position)
    batch = potential.batch(order, step)
    value, gradient = jax.value_and_grad(potential.on_batch)(position, batch)
    if reference is None:
        return value, gradient
    there, back = jax.value_and_grad(potential.on_batch)(reference.position, batch)
    gradient = jax.tree.map(lambda g, b, r: g - b + r, gradient, back, reference.gradient)
    return value - there + reference.potential, gradient


def start(
    position: PyTree,
    potential: Potential,
    parameters: Mapping[str, Any],
    order: Any = None,
    snapshot: bool = False,
) -> GradientEstimate:
    """The estimate of step 0. The reference is `parameters["at"]`, if there, else the snapshot.

    `order` is a key, by default a fixed one.
    """
    order = jax.random.key(0) if order is None else order
    at = parameters.get("at", position if snapshot else None)
    reference = None
    if at is not None and isinstance(potential, StochasticPotential):
        like = jax.tree.map(lambda a, x: jnp.asarray(a, jnp.result_type(x)), at, position)
        reference = reference_at(like, potential)
    first = jnp.zeros((), jnp.int32)
    return GradientEstimate(
        *evaluate(position, potential, order, first, reference), first, order, reference
    )


def follow(estimate: GradientEstimate, position: PyTree, potential: Potential) -> GradientEstimate:
    """The estimate of the next step, at `position`."""
    step, order, reference = estimate.step + 1, estimate.order, estimate.reference
    value, gradient = evaluate(position, potential, order, step, reference)
    return GradientEstimate(value, gradient, step, order, reference)


def settle(moved: Any, state: Any, stayed: Any = None) -> tuple[Any, Info]:
    """`moved` where it is finite, else `stayed` (by default `state`), flagged.

    A refused step does not use up its minibatch.
    """
    finite = all_finite((moved.position, moved.estimate.potential, moved.estimate.gradient))
    stayed = state if stayed is None else stayed

    def without_order(one):
        return one._replace(estimate=one.estimate._replace(order=None))

    kept = choose(finite, without_order(moved), without_order(stayed))
    kept = kept._replace(estimate=kept.estimate._replace(order=state.estimate.order))
    return kept, Info(jnp.ones_like(state.potential), ~finite)


class StochasticGradientKernel(LangevinKernel):
    """Kernels whose gradient may come from a minibatch of the data; all are unadjusted.

    The target is one of

    - a NumPyro model with `numpyro.plate(name, N, subsample_size=S)`: every step draws the indices
      of such plates anew, and NumPyro scales their log likelihood by N/S. Unknowns must be outside
      these plates;
    - a problem with data, through `from_problem`;
    - any other model or potential, whose gradient is exact.

    **Arguments:** as `LangevinKernel`, and

    - `sampling`: how a model's plates are drawn, as in `noise.Minibatch`.
    - `variance_reduction`: None; `"control_variate"`, ∇Û_b(θ) − ∇Û_b(r) + ∇U(r) with r = `at`, best
      a mode; `"svrg"`, the same with r the chain's own position every `refresh_every` steps of the
      kernel, each at the cost of a full gradient. Both are unbiased.
    - `at`: a position in unconstrained space, for `"control_variate"`.

    `lp` is minus the estimate of U from the step's minibatch, unbiased. A step to where potential
    or gradient are not finite is not made, and flagged `diverging`; the other chains go on.

    Raises `ValueError` for a batch of no examples, or larger than the data without replacement, or
    that does not divide the data when shuffled.
    """

    def __init__(
        self,
        *model: Any,
        sampling: str = "without_replacement",
        variance_reduction: str | None = None,
        at: PyTree | None = None,
        refresh_every: int = 100,
        **options: Any,
    ):
        super().__init__(*model, **options)
        self.sampling = one_of("sampling", sampling, Minibatch.SAMPLING[:-1])
        if variance_reduction is not None:
            one_of("variance_reduction", variance_reduction, REDUCTIONS)
        if (at is None) == (variance_reduction == "control_variate"):
            raise ValueError(
                "at must be given with variance_reduction='control_variate' and only then, got "
                f"variance_reduction={variance_reduction!r} and at={at!r}"
            )
        if at is not None:
            self.parameters["at"] = jax.tree.map(lambda leaf: finite_array("at", leaf), at)
        period = count("refresh_every", refresh_every)
        self.refresh_every = period if variance_reduction == "svrg" else None

    @classmethod
    def from_problem(
        cls,
        problem: Problem,
        noise: Minibatch,
        *,
        weight_decay: Any = 0.0,
        log_prior: Callable[[PyTree], Float[Any, ""]] | None = None,
        **options: Any,
    ) -> Self:
        """The kernel on the posterior whose minus log likelihood is the problem's total loss.

            U(θ) = N (L(θ) + λ|θ|²/2) − ln π(θ)

        with L the mean loss over the N examples, so that N L = −Σ ln p(y_n|θ) when a loss is an
        example's minus log likelihood. A step estimates L by the mean over a minibatch, that is
        the sum over it times N/S. The kernel leaves exp(−U/T) invariant, up to its bias;
        `step_size` multiplies ∇U, so that SGD of learning rate η has η = N·`step_size`.

        **Arguments:** `noise`, the minibatches and how they are drawn; `weight_decay` λ ≥ 0, here
        a Gaussian prior of variance 1/(Nλ); `log_prior`, ln π of params, up to a constant;
        `options` as in the constructor. Positions are params pytrees of `problem`; chains start at
        `problem.initial_params` unless `init_params` is given.

        Raises `ValueError` unless `problem` has a data set that `noise` can draw from.
        """
        if not isinstance(noise, Minibatch):
            raise ValueError(f"noise must be a Minibatch, got {noise!r}")
        if not isinstance(problem, EmpiricalRisk):
            raise ValueError(
                f"problem must be an empirical_risk, which has a number of examples, got "
                f"{type(problem).__name__}"
            )
        noise.check(problem)
        noise.require_equal_batches(problem.num_examples)
        kernel = cls(None, None, **cls._sampling_options(noise), **options)
        prior = None if log_prior is None else jax.tree_util.Partial(log_prior)
        decay = non_negative("weight_decay", weight_decay)
        kernel.parameters["target"] = RiskPotential(problem, noise, decay, prior)
        return kernel

    @classmethod
    def _sampling_options(cls, noise: Minibatch) -> dict[str, Any]:
        return {"sampling": noise.sampling}

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs) -> KernelState:
        """Initial state; a kernel on a problem starts at the problem's initial parameters."""
        if init_params is None and self._risk is not None:
            draw = self._risk.problem.initial_params
            init_params = draw(rng_key) if is_prng_key(rng_key) else jax.vmap(draw)(rng_key)
        return super().init(rng_key, num_warmup, init_params, model_args, model_kwargs)

    def sample(self, state: KernelState, model_args: tuple, model_kwargs: dict | None):
        """One step of one chain or of a batch of chains, and a new snapshot where one is due."""
        moved = super().sample(state, model_args, model_kwargs)
        if self.refresh_every is None or moved.core.estimate.reference is None:
            return moved
        potential = self._potential(model_args, model_kwargs)

        def renew(position):
            return reference_at(position, potential)

        estimate = moved.core.estimate
        # Outside the map over chains: within it every step would cost a full gradient.
        reference = jax.lax.cond(
            jnp.any(moved.i % self.refresh_every == 0),
            lambda position, old: (
                renew(position) if is_prng_key(moved.rng_key) else jax.vmap(renew)(position)
            ),
            lambda position, old: old,
            moved.core.position,
            estimate.reference,
        )
        core = moved.core._replace(estimate=estimate._replace(reference=reference))
        return moved._replace(core=core)

    def core_start(
        self, key: PRNGKeyArray, position: PyTree, potential: Potential, parameters: Mapping
    ) -> Any:
        """`core_init` with an order of the data of the chain's own."""
        state = self.core_init(position, potential, parameters)
        snapshot = self.refresh_every is not None
        return state._replace(estimate=start(position, potential, parameters, key, snapshot))

    def core_refresh(self, state: Any, potential: Potential, parameters: Mapping[str, Any]) -> Any:
        """`state` on another potential, at the same place in its data."""
        step, order, reference = state.estimate[2:]
        if reference is not None:
            reference = reference_at(reference.position, potential)
        value, gradient = evaluate(state.position, potential, order, step, reference)
        return state._replace(estimate=GradientEstimate(value, gradient, step, order, reference))

    @property
    def structure(self) -> tuple:
        """All that the compiled program depends on besides numbers."""
        return *super().structure, self.sampling, self.refresh_every

    @property
    def has_data(self) -> bool:
        """Whether the kernel comes with a target of its own, such as a problem or a model."""
        return self._risk is not None or self._model is not None

    @property
    def _risk(self) -> RiskPotential | None:
        unbound = self._model is None and self._potential_fn is None
        return self.parameters.get("target") if unbound else None

    def _potential(self, model_args: tuple, model_kwargs: dict | None) -> Potential:
        if self._risk is not None:
            return self._risk
        exact = super()._potential(model_args, model_kwargs)
        if self._model is None:
            return exact
        noises, sizes = self._plates(model_args, model_kwargs)
        if not sizes:
            return exact
        return PlatePotential(self._model, model_args, model_kwargs or {}, noises, sizes)

    def _plates(
        self, model_args: tuple, model_kwargs: dict | None
    ) -> tuple[dict[str, Minibatch], dict[str, int]]:
        """How each subsampled plate is drawn, and its size."""
        assert self._model is not None
        whole = WholePlates(self._model)
        # As NumPyro does when it reads a model: improper laws cannot be drawn from.
        run = substitute(seed(whole, rng_seed=0), substitute_fn=self._init_strategy)
        # For its plates alone: nothing is computed.
        jax.eval_shape(lambda: (run(*model_args, **(model_kwargs or {})), None)[1])
        noises, sizes = {}, {}
        for name, (size, part) in whole.sizes.items():
            noises[name], sizes[name] = Minibatch(part, self.sampling), size
            noises[name].check_number(size)
        return noises, sizes

    def _read_model(self, rng_key, model_args, model_kwargs, init_strategy) -> PyTree:
        noises, _ = self._plates(model_args, model_kwargs)
        if not noises:
            return super()._read_model(rng_key, model_args, model_kwargs, init_strategy)
        # NumPyro reads the model on one batch: neither sites nor transforms depend on which.
        first = {name: jnp.arange(noise.batch_size) for name, noise in noises.items()}
        fixed = LangevinKernel.bind(self, substitute(self._model, data=first))
        found = LangevinKernel._read_model(fixed, rng_key, model_args, model_kwargs, init_strategy)
        self._model_closures = fixed._model_closures
        return found
