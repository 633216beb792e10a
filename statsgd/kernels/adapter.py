"""The one adapter that turns a pure Langevin step into a NumPyro kernel.

A kernel module holds two pure functions, `init(position, potential, parameters) -> State` and
`step(key, state, potential, parameters) -> (State, Info)`. Here they get what a NumPyro kernel
needs around them: a model to take the potential from, initial values, many chains, warm-up
adaptation of step size and preconditioner, and the fields that ArviZ reads.
"""

import abc
import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key, PRNGKeyArray, PyTree
from numpyro.distributions import biject_to
from numpyro.infer import init_to_uniform, init_to_value
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import initialize_model, transform_fn
from numpyro.util import identity, is_prng_key

from statsgd.arguments import fraction, instance, one_of, positive, single
from statsgd.display import html, number
from statsgd.kernels.kernel_state import Info, KernelState, Potential
from statsgd.kernels.preconditioner import as_preconditioner
from statsgd.kernels.warmup import Warmup

_START = 2**20  # names the branch of a chain's key that its start may use


class LangevinKernel(MCMCKernel):
    """A Langevin-type kernel on a NumPyro model or a potential.

    **Arguments** (all kernels):

    - `model`: a NumPyro model; or `potential_fn`: −log density of a pytree, in which case
      `init_params` must be given to `MCMC.run`. Leave both out to use the kernel with
      `statsgd.sample`, which binds it to a law.
    - `step_size`: h > 0, unit of time: one step moves by about √(2h) where the potential is flat.
    - `temperature`: T > 0; the kernel leaves exp(−U/T) invariant. T = 1 is the law itself.
    - `preconditioner`: P, a positive number, a diagonal `(d,)` or a positive definite `(d, d)`, on
      flattened positions: drift −P∇U, noise of covariance P; inverse mass where there is a
      velocity. It does not change what is left invariant.
    - `adapt_step_size`: tune h during warm-up to `target_accept_prob` by dual averaging.
    - `adapt_preconditioner`: None, `"diagonal"` or `"dense"`: P becomes the covariance seen in
      windows of the warm-up, divided by T; then h is in units of the target's own scale.
    - `init_strategy`: a NumPyro initialisation strategy.

    Numbers are traced: other values do not recompile.
    """

    #: Acceptance that adaptation aims at; None for kernels without an acceptance test.
    optimal_acceptance: ClassVar[float | None] = None
    #: Fields of the core state that do not go along when chains exchange their positions.
    anchored: ClassVar[frozenset[str]] = frozenset({"momentum", "velocity"})
    #: Power of the step size in the bias of kernels without an acceptance test.
    bias_order: ClassVar[int] = 1
    #: What the kernel leaves invariant, how exactly, and where it comes from.
    exactness: ClassVar[str]
    citation: ClassVar[str]

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Potential | None = None,
        *,
        step_size: Any = 0.1,
        temperature: Any = 1.0,
        preconditioner: Any = 1.0,
        adapt_step_size: bool = True,
        adapt_preconditioner: str | None = None,
        target_accept_prob: float | None = None,
        init_strategy: Callable = init_to_uniform,
    ):
        if model is not None and potential_fn is not None:
            raise ValueError("only one of model and potential_fn may be given, got both")
        call = f"{type(self).__name__}(step_size=…)"
        for name, given in (("model", model), ("potential_fn", potential_fn)):
            if given is not None:  # a number that comes first would pass for a model
                instance(name, given, Callable, "a function", call=call)
        self._model = model
        self._potential_fn = potential_fn
        self.parameters: dict[str, Any] = {
            "step_size": single("step_size", positive("step_size", step_size)),
            "temperature": single("temperature", positive("temperature", temperature)),
            "preconditioner": as_preconditioner("preconditioner", preconditioner),
        }
        target = self.optimal_acceptance if target_accept_prob is None else target_accept_prob
        self.adapts = bool(adapt_step_size) and target is not None
        self.target_accept_prob = (
            0.0 if target is None else float(fraction("target_accept_prob", target))
        )
        if adapt_preconditioner is not None:
            one_of("adapt_preconditioner", adapt_preconditioner, ("diagonal", "dense"))
        self.warmup = Warmup(self.target_accept_prob if self.adapts else None, adapt_preconditioner)
        self._init_strategy = init_strategy
        self._forget()

    def __repr__(self) -> str:
        told = (
            f"{name}={number(value)}"
            for name, value in self.parameters.items()
            if eqx.is_array_like(value) and not np.ndim(value)
        )
        return f"{type(self).__name__}({', '.join(told)})"

    def _repr_html_(self) -> str:
        return html(self)

    @staticmethod
    @abc.abstractmethod
    def core_init(position: PyTree, potential: Potential, parameters: Mapping[str, Any]) -> Any:
        """The pure initial state at `position`; it has the fields of `CoreState`."""

    def core_start(
        self, key: PRNGKeyArray, position: PyTree, potential: Potential, parameters: Mapping
    ) -> Any:
        """`core_init`, for kernels that begin at random in more than the position."""
        return self.core_init(position, potential, parameters)

    def core_refresh(self, state: Any, potential: Potential, parameters: Mapping[str, Any]) -> Any:
        """`state` on another potential; kernels with more than a position keep the rest."""
        return self.core_init(state.position, potential, parameters)

    @staticmethod
    @abc.abstractmethod
    def core_step(
        key: PRNGKeyArray, state: Any, potential: Potential, parameters: Mapping[str, Any]
    ) -> tuple[Any, Info]:
        """One pure step."""

    # What numpyro.infer.MCMC asks for.

    @property
    def model(self) -> Callable | None:
        """The NumPyro model, None for a kernel on a potential."""
        return self._model

    @property
    def potential_fn(self) -> Potential | None:
        """The potential, None for a kernel on a model."""
        return self._potential_fn

    @property
    def sample_field(self) -> str:
        """The state field that holds the draw."""
        return "z"

    @property
    def default_fields(self) -> tuple[str, ...]:
        """The fields that MCMC collects unasked."""
        return ("z", "diverging")

    def get_diagnostics_str(self, state: KernelState) -> str:
        """Step size and acceptance, for the progress bar."""
        return f"step size {state.step_size:.2e}, acc. prob. {state.accept_prob:.2f}"

    def init(
        self,
        rng_key: Key[Any, "*chains"],
        num_warmup: Any,
        init_params: PyTree | None,
        model_args: tuple,
        model_kwargs: dict | None,
    ) -> KernelState:
        """Initial state of one chain, or of a batch of chains for a batch of keys."""
        single = is_prng_key(rng_key)
        keys = jax.vmap(jax.random.split)(rng_key[None] if single else rng_key)
        chain_keys, start_keys = keys[:, 0], keys[:, 1]
        if single:
            chain_keys, start_keys = chain_keys[0], start_keys[0]
        if self._model is not None:
            strategy = self._init_strategy
            if init_params is not None and GIBBS_SITES_KWARG in (model_kwargs or {}):
                # Inside Gibbs initial values are constrained.
                strategy, init_params = init_to_value(values=init_params), None
            found = self._read_model(start_keys, model_args, model_kwargs, strategy)
            init_params = found if init_params is None else init_params
        elif init_params is None:
            raise ValueError("init_params must be given with potential_fn, got None")
        potential = self._potential(model_args, model_kwargs)

        def start(key, position):
            return self._start(key, position, potential, jnp.asarray(num_warmup))

        if single:
            return start(chain_keys, init_params)
        return jax.vmap(start)(chain_keys, init_params)

    def sample(self, state: KernelState, model_args: tuple, model_kwargs: dict | None):
        """One step of one chain, or of every chain of a batch."""
        potential = self._potential(model_args, model_kwargs)
        if is_prng_key(state.rng_key):
            return self._refit(state, self._advance(state, potential))
        return self._refit(state, jax.vmap(lambda one: self._advance(one, potential))(state))

    def postprocess_fn(self, model_args: tuple, model_kwargs: dict | None) -> Callable:
        """The map from one draw in unconstrained space to the model's sites."""
        if self._model is None:
            return identity
        _, postprocess_gen, _ = self._closures(model_args, model_kwargs)
        return postprocess_gen(*model_args, **(model_kwargs or {}))

    def get_constrain_fn(self, model_args: tuple, model_kwargs: dict | None) -> Callable:
        """As `postprocess_fn`, by transforms alone: Gibbs asks for it without sibling values."""
        if self._model is None:
            return identity
        return functools.partial(transform_fn, self._closures(model_args, model_kwargs)[2])

    def refresh(
        self, state: KernelState, model_args: tuple, model_kwargs: dict | None
    ) -> KernelState:
        """Recompute what the state caches of the potential, after its arguments changed."""
        potential = self._potential(model_args, model_kwargs)
        if is_prng_key(state.rng_key):
            return self._refresh(state, potential)
        return jax.vmap(lambda one: self._refresh(one, potential))(state)

    def wrap_model(self, wrapper: Callable) -> "LangevinKernel":
        """A copy of this kernel on `wrapper(self.model)`."""
        if self._model is None:
            raise ValueError("wrap_model needs a kernel on a model, got one on potential_fn")
        return self.bind(wrapper(self._model))

    # What statsgd.sample asks for.

    @property
    def structure(self) -> tuple:
        """All that the compiled program depends on besides `parameters` and the model; hashable."""
        return type(self), self.warmup, self._init_strategy

    def report(self, state: KernelState) -> dict[str, Any]:
        """What `sample_stats` records of every draw, under ArviZ's names."""
        return {
            "lp": -state.potential_energy,
            "acceptance_rate": state.accept_prob,
            "step_size": state.step_size,
            "diverging": state.diverging,
        }

    def bind(
        self,
        model: Callable | None,
        parameters: Mapping[str, Any] | None = None,
        potential_fn: Potential | None = None,
    ) -> "LangevinKernel":
        """A copy of this kernel on another target, with other `parameters` if given."""
        bound = copy.copy(self)
        bound._model, bound._potential_fn = model, potential_fn
        bound.parameters = dict(self.parameters if parameters is None else parameters)
        bound._forget()
        return bound

    def __getstate__(self) -> dict[str, Any]:
        # Closures over a traced model do not pickle; they are read again when needed.
        return self.__dict__ | {"_model_closures": None}

    def _forget(self) -> None:
        self._model_closures: tuple[Callable, Callable, dict] | None = None

    def _read_model(self, rng_key, model_args, model_kwargs, init_strategy) -> PyTree:
        """Trace the model for its potential; returns valid starting positions."""
        info = initialize_model(
            rng_key,
            self._model,
            dynamic_args=True,
            init_strategy=init_strategy,
            model_args=model_args,
            model_kwargs=model_kwargs,
        )
        transforms = {
            name: biject_to(site["fn"].support)
            for name, site in info.model_trace.items()
            if site["type"] == "sample" and name in info.param_info.z
        }
        self._model_closures = info.potential_fn, info.postprocess_fn, transforms
        return info.param_info.z

    def _closures(self, model_args, model_kwargs) -> tuple[Callable, Callable, dict]:
        if self._model_closures is None:
            self._read_model(jax.random.key(0), model_args, model_kwargs, self._init_strategy)
        assert self._model_closures is not None
        return self._model_closures

    def _potential(self, model_args, model_kwargs) -> Potential:
        if self._model is not None:
            potential_gen, _, _ = self._closures(model_args, model_kwargs)
            return potential_gen(*model_args, **(model_kwargs or {}))
        if self._potential_fn is None:
            raise ValueError("the kernel has no target: give it model or potential_fn")
        return self._potential_fn

    def _start(self, key, position, potential, num_warmup) -> KernelState:
        # The chain's key goes on as it is: a kernel's own start takes a branch of it.
        core = self.core_start(
            jax.random.fold_in(key, _START), position, potential, self.parameters
        )
        dtype = core.potential.dtype
        step_size = jnp.asarray(self.parameters["step_size"], dtype)
        return KernelState(
            i=jnp.zeros((), jnp.int32),
            z=core.position,
            potential_energy=core.potential,
            energy=_energy(core),
            accept_prob=jnp.ones((), dtype),
            diverging=jnp.zeros((), bool),
            step_size=step_size,
            core=core,
            adaptation=self.warmup.start(step_size, position, self.parameters["preconditioner"]),
            num_warmup=num_warmup,
            rng_key=key,
        )

    def _current(self, state: KernelState) -> dict[str, Any]:
        """Parameters with what was learnt, in the precision of the potential."""
        parameters = self.parameters | {"step_size": state.step_size}
        if state.adaptation.preconditioner is not None:
            parameters["preconditioner"] = state.adaptation.preconditioner
        return jax.tree.map(lambda leaf: _in_precision(leaf, state.step_size.dtype), parameters)

    def _refresh(self, state: KernelState, potential: Potential) -> KernelState:
        core = self.core_refresh(state.core, potential, self._current(state))
        return state._replace(core=core, potential_energy=core.potential, energy=_energy(core))

    def _advance(self, state: KernelState, potential: Potential) -> KernelState:
        next_key, key = jax.random.split(state.rng_key)
        core, info = self.core_step(key, state.core, potential, self._current(state))
        adaptation, step_size = self.warmup.learn(
            state.adaptation,
            state.step_size,
            state.i,
            state.num_warmup,
            info.accept_prob,
            core.position,
        )
        return KernelState(
            i=state.i + 1,
            z=core.position,
            potential_energy=core.potential,
            energy=_energy(core),
            accept_prob=info.accept_prob,
            diverging=info.diverging,
            step_size=step_size,
            core=core,
            adaptation=adaptation,
            num_warmup=state.num_warmup,
            rng_key=next_key,
        )

    def _refit(self, before: KernelState, state: KernelState) -> KernelState:
        """At the end of a window, the preconditioner that was learnt in it."""
        if self.warmup.shape is None:
            return state

        def fit(adaptation, step_size):
            return self.warmup.refit(adaptation, step_size, self.parameters["temperature"])

        # Outside the map over chains: there a condition would cost a factorisation every step.
        adaptation, step_size = jax.lax.cond(
            self.warmup.window_ends_with(before.i, before.num_warmup),
            fit if is_prng_key(state.rng_key) else jax.vmap(fit),
            lambda *unchanged: unchanged,
            state.adaptation,
            state.step_size,
        )
        return state._replace(adaptation=adaptation, step_size=step_size)


def _energy(core: Any) -> Float[Any, ""]:
    return getattr(core, "energy", core.potential)


def _in_precision(leaf: Any, dtype: Any) -> Any:
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic | float):
        return leaf
    return jnp.asarray(leaf, dtype) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf
