"""Optimisers of optax as dynamics."""

import traceback
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

from statsgd.arguments import real
from statsgd.dynamics.dynamics import Dynamics
from statsgd.dynamics.noise import GradientNoise
from statsgd.problems import Problem


class OptaxState(NamedTuple):
    """State of one run."""

    params: PyTree
    optimiser_state: PyTree
    step: Int[Any, ""]


class OptaxDynamics(Dynamics):
    """Any `optax.GradientTransformation` fed with stochastic gradients.

        OptaxDynamics(optax.adam(1e-3), noise)
        OptaxDynamics(optax.adam, noise, learning_rate=1e-3, b2=0.99)
        OptaxDynamics(optax.sgd(optax.cosine_decay_schedule(0.1, 1000)), noise)

    Schedules count the steps of the whole run, also of one that continues an ensemble; clipping
    and accumulation (`optax.MultiSteps`) are part of the optimiser. A schedule whose learning rate
    is zero for half of a run is refused.

    In the second form the optimiser is built inside the step from numbers that are traced: other
    numbers do not recompile, and `grid` takes axes such as `hyperparameters.learning_rate`.

    **Arguments:** `transformation`, a gradient transformation or a function that returns one;
    `noise`, a gradient noise; `hyperparameters`, the numbers to call that function with. Random
    keys that an optimiser holds become each replica's own, folded from its stream.

    Raises `ValueError` for arguments that are not these.

    >>> import optax, statsgd
    >>> adam = OptaxDynamics(optax.adam, statsgd.noise.Isotropic(1.0), learning_rate=1e-3, b2=0.99)
    >>> statsgd.grid(adam, {"hyperparameters.learning_rate": [1e-3, 1e-2]}).cells
    2
    """

    transformation: Any
    noise: GradientNoise
    hyperparameters: dict[str, Float[Any, ""]]

    def __init__(
        self,
        transformation: Any,
        noise: GradientNoise,
        hyperparameters: dict[str, Any] | None = None,
        **more: Any,
    ):
        if not isinstance(noise, GradientNoise):
            raise ValueError(f"noise must be one of statsgd.noise, got {noise!r}")
        numbers = {**(hyperparameters or {}), **more}
        built = _is_transformation(transformation)
        if built and numbers:
            raise ValueError(
                "hyperparameters must go with a function that builds a transformation, such as "
                f"optax.adam, got {sorted(numbers)} with a built one"
            )
        if not built and not callable(transformation):
            raise ValueError(
                "transformation must be an optax.GradientTransformation or a function that returns "
                f"one, got {transformation!r}"
            )
        self.transformation = transformation
        self.noise = noise
        self.hyperparameters = {
            name: real(name, value, allowed="a finite number", valid=np.isfinite)
            for name, value in numbers.items()
        }

    def optimiser(self) -> Any:
        """The gradient transformation."""
        if _is_transformation(self.transformation):
            return self.transformation
        return self.transformation(**self.hyperparameters)

    def init(self, problem: Problem, params: PyTree) -> OptaxState:
        """With the optimiser's own initial state."""
        return OptaxState(params, self.optimiser().init(params), jnp.zeros((), jnp.int32))

    def step(self, key: PRNGKeyArray, problem: Problem, state: OptaxState) -> OptaxState:
        """One update."""
        gradient = self.noise.at_step(key, state.step, problem, state.params)
        updates, after = self.optimiser().update(gradient, state.optimiser_state, state.params)
        params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), state.params, updates)
        # Numbers of 64 bits must not widen what the loop carries.
        after = jax.tree.map(
            lambda new, old: jnp.asarray(new, jnp.asarray(old).dtype), after, state.optimiser_state
        )
        return OptaxState(params, after, state.step + 1)

    def check(self, problem: Problem, *, allow_unstable: bool = False) -> None:
        """Raise `ValueError` if the noise does not fit, or no transformation comes out.

        And for one that needs more than gradients and params (a line search, which evaluates the
        loss; two copies of the params), or whose updates do not fit them.
        """
        self.noise.check(problem)
        if not _is_transformation(self.optimiser()):
            raise ValueError(
                "transformation must return an optax.GradientTransformation, got "
                f"{self.optimiser()!r}"
            )
        state = self._state(problem)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            if leaf.dtype == jnp.uint32 and leaf.shape[-1:] == (2,):
                raise ValueError(
                    "transformation must hold its random keys as jax.random.key(…), got numbers "
                    f"of jax.random.PRNGKey in its state{jax.tree_util.keystr(path)}: every "
                    "replica needs keys of its own"
                )

    def check_steps(self, problem: Problem, first: int, last: int) -> None:
        """Raise `ValueError` if a schedule leaves half the steps from `first` to `last` unmoved.

        Where steps are accumulated, whose schedules count something else, nothing is looked at.
        """
        state = self.optimiser().init(jax.tree.map(jnp.ones_like, problem.template))
        schedules = [part for part in _parts(state) if _counts_steps(part)]
        if any(hasattr(part, "mini_step") for part in _parts(state)) or not schedules:
            return
        half = first + (last - first) // 2
        if self._moves(problem, state, half) or self._moves(problem, state, last - 1):
            return
        low, high = -1, half
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._moves(problem, state, middle) else (low, middle)
        raise ValueError(
            f"the schedule of the optimiser ends before the run: its updates are zero from step "
            f"{high} on, and steps go from {first} to {last}"
        )

    def _moves(self, problem: Problem, state: PyTree, step: int) -> bool:
        """Whether a gradient moves any parameter at `step`."""

        def at_step(part: Any) -> Any:
            return (
                part._replace(count=jnp.asarray(step, part.count.dtype))
                if _counts_steps(part)
                else part
            )

        there = jax.tree.map(at_step, state, is_leaf=_counts_steps)
        params = jax.tree.map(jnp.ones_like, problem.template)
        updates, _ = self.optimiser().update(params, there, params)
        return any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(updates))

    def _state(self, problem: Problem) -> PyTree:
        """Shapes of the optimiser's state. Raises `ValueError` unless one update comes out."""
        params = problem.template
        try:
            state = jax.eval_shape(self.optimiser().init, params)
            updates, after = jax.eval_shape(self.optimiser().update, params, state, params)
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                "transformation must need gradients and params alone, but "
                f"{_innermost(error)} says: {str(error).splitlines()[0]}"
            ) from error
        for what, one, other in (("updates", updates, params), ("a state", after, state)):
            structures: list[Any] = [jax.tree.structure(tree) for tree in (one, other)]
            shapes = [[leaf.shape for leaf in jax.tree.leaves(tree)] for tree in (one, other)]
            if structures[0] != structures[1] or shapes[0] != shapes[1]:
                raise ValueError(f"transformation must return {what} like what it was given")
        return state


def _innermost(error: Exception) -> str:
    """The function of optax in which an error arose."""
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    of_optax = [code for code in frames if "optax" in Path(code.co_filename).parts]
    return of_optax[-1].co_qualname.split(".")[0] if of_optax else "it"


def _parts(state: PyTree) -> list[Any]:
    """All tuples with named fields in an optimiser's state."""
    found: list[Any] = []

    def collect(part: Any) -> bool:
        if hasattr(part, "_fields"):
            found.append(part)
        return False

    jax.tree.leaves(state, is_leaf=collect)
    return found


def _counts_steps(part: Any) -> bool:
    """Whether this part of a state counts the steps of a schedule."""
    return type(part).__name__ in ("ScaleByScheduleState", "WrappedScheduleState")


def _is_transformation(value: Any) -> bool:
    return hasattr(value, "init") and hasattr(value, "update")
