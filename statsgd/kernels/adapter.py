"""The one adapter that turns a pure Langevin step into a NumPyro kernel.

A kernel module holds two pure functions, `init(position, potential, parameters) -> State` and
`step(key, state, potential, parameters) -> (State, Info)`. Here they get what a NumPyro kernel
needs around them: a model to take the potential from, initial values, many chains, warm-up
adaptation of the step size, and the fields that ArviZ reads.
"""

import abc
import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key, PRNGKeyArray, PyTree
from numpyro.infer import init_to_uniform
from numpyro.infer.hmc_util import dual_averaging
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import initialize_model
from numpyro.util import identity, is_prng_key

from statsgd.arguments import fraction, positive

type Potential = Callable[[PyTree], Float[Any, ""]]

#: Every public kernel by name; `register` fills it.
KERNELS: dict[str, type["LangevinKernel"]] = {}


def register(kernel: type["LangevinKernel"]) -> type["LangevinKernel"]:
    """Add a kernel to `KERNELS`, over which tests and tables run."""
    KERNELS[kernel.__name__] = kernel
    return kernel


class CoreState(Protocol):
    """What every kernel carries from step to step, whatever else."""

    @property
    def position(self) -> PyTree:
        """Position in unconstrained space."""

    @property
    def potential(self) -> Float[Any, ""]:
        """−log density there."""


class Info(NamedTuple):
    """What one step reports."""

    accept_prob: Float[Any, ""]
    """Acceptance probability of the proposal; one for kernels without a test."""
    diverging: Bool[Any, ""]
    """Whether the proposal had a potential or gradient that is not finite."""


class KernelState(NamedTuple):
    """State under `numpyro.infer.MCMC`; fields with array values can be `extra_fields`."""

    i: Int[Any, ""]
    z: PyTree
    potential_energy: Float[Any, ""]
    accept_prob: Float[Any, ""]
    diverging: Bool[Any, ""]
    step_size: Float[Any, ""]
    core: Any
    adaptation: tuple
    num_warmup: Int[Any, ""]
    rng_key: Key[Any, "*chains"]


class LangevinKernel(MCMCKernel):
    """A Langevin-type kernel on a NumPyro model or a potential.

    **Arguments** (all kernels):

    - `model`: a NumPyro model; or `potential_fn`: −log density of a pytree, in which case
      `init_params` must be given to `MCMC.run`. Leave both out to use the kernel with
      `statsgd.sample`, which binds it to a law.
    - `step_size`: h > 0, unit of time: one step moves by about √(2h) where the potential is flat.
    - `temperature`: T > 0; the kernel leaves exp(−U/T) invariant. T = 1 is the law itself.
    - `adapt_step_size`: tune h during warm-up to `target_accept_prob` by dual averaging.
    - `init_strategy`: a NumPyro initialisation strategy.

    Numbers are traced: other values do not recompile.
    """

    #: Acceptance that adaptation aims at; None for kernels without an acceptance test.
    optimal_acceptance: ClassVar[float | None]
    #: Fields of the core state that do not go along when chains exchange their positions.
    anchored: ClassVar[frozenset[str]] = frozenset({"momentum"})
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
        adapt_step_size: bool = True,
        target_accept_prob: float | None = None,
        init_strategy: Callable = init_to_uniform,
    ):
        if model is not None and potential_fn is not None:
            raise ValueError("only one of model and potential_fn may be given, got both")
        self._model = model
        self._potential_fn = potential_fn
        self.parameters: dict[str, Any] = {
            "step_size": positive("step_size", step_size),
            "temperature": positive("temperature", temperature),
        }
        target = self.optimal_acceptance if target_accept_prob is None else target_accept_prob
        self.adapts = bool(adapt_step_size) and target is not None
        self.target_accept_prob = (
            0.0 if target is None else float(fraction("target_accept_prob", target))
        )
        self._init_strategy = init_strategy
        self._forget()

    @classmethod
    def example(
        cls, model: Callable | None = None, potential_fn: Potential | None = None, **settings: Any
    ) -> "LangevinKernel":
        """An ordinary instance on a target; the test battery runs over them."""
        return cls(model, potential_fn, **settings)

    @staticmethod
    @abc.abstractmethod
    def core_init(position: PyTree, potential: Potential, parameters: Mapping[str, Any]) -> Any:
        """The pure initial state at `position`."""

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
            found = self._read_model(start_keys, model_args, model_kwargs)
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
            return self._advance(state, potential)
        return jax.vmap(lambda one: self._advance(one, potential))(state)

    def postprocess_fn(self, model_args: tuple, model_kwargs: dict | None) -> Callable:
        """The map from one draw in unconstrained space to the model's sites."""
        if self._model is None:
            return identity
        _, postprocess_gen = self._closures(model_args, model_kwargs)
        return postprocess_gen(*model_args, **(model_kwargs or {}))

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
        return type(self), self.adapts, self.target_accept_prob, self._init_strategy

    def report(self, state: KernelState) -> dict[str, Any]:
        """What `sample_stats` records of every draw, under ArviZ's names."""
        return {
            "lp": -state.potential_energy,
            "acceptance_rate": state.accept_prob,
            "step_size": state.step_size,
            "diverging": state.diverging,
        }

    def bind(
        self, model: Callable | None, parameters: Mapping[str, Any] | None = None
    ) -> "LangevinKernel":
        """A copy of this kernel on another model, with other `parameters` if given."""
        bound = copy.copy(self)
        bound._model, bound._potential_fn = model, None
        bound.parameters = dict(self.parameters if parameters is None else parameters)
        bound._forget()
        return bound

    def __getstate__(self) -> dict[str, Any]:
        # Closures over a traced model do not pickle; they are read again when needed.
        return self.__dict__ | {"_model_closures": None}

    def _forget(self) -> None:
        self._model_closures: tuple[Callable, Callable] | None = None

    def _read_model(self, rng_key, model_args, model_kwargs) -> PyTree:
        """Trace the model for its potential; returns valid starting positions."""
        info = initialize_model(
            rng_key,
            self._model,
            dynamic_args=True,
            init_strategy=self._init_strategy,
            model_args=model_args,
            model_kwargs=model_kwargs,
        )
        self._model_closures = info.potential_fn, info.postprocess_fn
        return info.param_info.z

    def _closures(self, model_args, model_kwargs) -> tuple[Callable, Callable]:
        if self._model_closures is None:
            self._read_model(jax.random.key(0), model_args, model_kwargs)
        assert self._model_closures is not None
        return self._model_closures

    def _potential(self, model_args, model_kwargs) -> Potential:
        if self._model is not None:
            potential_gen, _ = self._closures(model_args, model_kwargs)
            return potential_gen(*model_args, **(model_kwargs or {}))
        if self._potential_fn is None:
            raise ValueError("the kernel has no target: give it model or potential_fn")
        return self._potential_fn

    def _start(self, key, position, potential, num_warmup) -> KernelState:
        core = self.core_init(position, potential, self.parameters)
        step_size = jnp.asarray(self.parameters["step_size"], core.potential.dtype)
        # Dual averaging of log h explores above ten times the first guess.
        adaptation = dual_averaging()[0](jnp.log(10 * step_size))
        return KernelState(
            jnp.zeros((), jnp.int32),
            position,
            core.potential,
            jnp.ones_like(core.potential),
            jnp.zeros((), bool),
            step_size,
            core,
            adaptation,
            num_warmup,
            key,
        )

    def _refresh(self, state: KernelState, potential: Potential) -> KernelState:
        parameters = self.parameters | {"step_size": state.step_size}
        core = self.core_init(state.z, potential, parameters)
        return state._replace(core=core, potential_energy=core.potential)

    def _advance(self, state: KernelState, potential: Potential) -> KernelState:
        next_key, key = jax.random.split(state.rng_key)
        parameters = self.parameters | {"step_size": state.step_size}
        core, info = self.core_step(key, state.core, potential, parameters)
        adaptation, step_size = state.adaptation, state.step_size
        if self.adapts:
            warming = state.i < state.num_warmup
            moved = dual_averaging()[1](self.target_accept_prob - info.accept_prob, adaptation)
            adaptation = jax.tree.map(
                lambda new, old: jnp.where(warming, new, old), moved, adaptation
            )
            # The last warm-up step hands over to the average of all of them.
            last = state.i + 1 >= state.num_warmup
            tuned = jnp.exp(jnp.where(last, adaptation[1], adaptation[0]))
            step_size = jnp.where(warming, tuned, step_size).astype(step_size.dtype)
        return KernelState(
            state.i + 1,
            core.position,
            core.potential,
            info.accept_prob,
            info.diverging,
            step_size,
            core,
            adaptation,
            state.num_warmup,
            next_key,
        )
