"""Itô diffusions: the limit of SGD for small learning rates, and any other."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

from statsgd.arguments import finite_array, is_traced, non_negative, one_of, positive, symmetric
from statsgd.dynamics.dynamics import Dynamics
from statsgd.dynamics.noise.gradient_noise import symmetric_root
from statsgd.problems import Problem
from statsgd.running.random_stream import normal

type Drift = Callable[[PyTree], PyTree]
type Root = Float[Any, "..."] | Callable[[PyTree], Float[Any, "..."]]

INCREMENTS = ("gaussian", "two_point")


class DiffusionState(NamedTuple):
    """State of one run."""

    params: PyTree
    step: Int[Any, ""]


class Diffusion(Dynamics):
    """The Itô diffusion dθ = b(θ) dt + √A(θ) dW, by the method of Euler and Maruyama:

        θ ← θ + h b(θ) + √h R(θ) n,      R Rᵀ = A

    Its weak order is 1, with Gaussian n or with independent signs (`increments="two_point"`), which
    cost a bit each. Signs are right for stationary laws and expectations at a time, wrong for
    statistics of paths at the scale of a step.

    **Arguments:**

    - `drift`: b, a function of the params that returns a pytree like them, params/time.
    - `covariance`: A, covariance per unit of time, params²/time: a number (isotropic), a `(d,)`
      array (diagonal), a `(d, d)` positive semi-definite matrix in flattened coordinates, or a
      function of the params that returns one of these.
    - `time_step`: h > 0.
    - `increments`: `"gaussian"` or `"two_point"`.
    - `root`: R in place of `covariance`, in the same forms; a matrix may be `(d, r)`.

    Raises `ValueError` for other arguments, or if not exactly one of `covariance` and `root` is
    given.

    Source: Kloeden and Platen (1992), *Numerical Solution of Stochastic Differential Equations*.

    >>> import numpy as np, statsgd
    >>> decay = Diffusion(lambda x: -x, covariance=2.0, time_step=0.01)
    >>> bowl = statsgd.problems.quadratic(np.eye(1))
    >>> tree = statsgd.simulate(bowl, decay, steps=500, replicas=4, seed=0, progress=False)
    >>> dict(tree["endpoints"].sizes)
    {'replica': 4, 'params_dim_0': 1}
    """

    drift: Drift
    covariance: Root | None
    time_step: Float[Any, ""]
    increments: str = eqx.field(static=True)
    root: Root | None

    def __init__(
        self,
        drift: Drift,
        covariance: Any = None,
        time_step: Any = 0.01,
        increments: str = "gaussian",
        root: Any = None,
    ):
        if not callable(drift):
            raise ValueError(f"drift must be a function of the params, got {drift!r}")
        self.drift = drift
        self.covariance, self.root = _covariance_or_root(covariance, root)
        self.time_step = positive("time_step", time_step)
        self.increments = one_of("increments", increments, INCREMENTS)

    def init(self, problem: Problem, params: PyTree) -> DiffusionState:
        """At `params`."""
        return DiffusionState(params, jnp.zeros((), jnp.int32))

    def step(self, key: PRNGKeyArray, problem: Problem, state: DiffusionState) -> DiffusionState:
        """One step of length h."""
        noise = _increment(self, key, problem, state)
        h = self.time_step
        params = jax.tree.map(
            lambda p, b, n: (p + h * b + jnp.sqrt(h) * n).astype(p.dtype),
            state.params,
            self.drift(state.params),
            noise,
        )
        return DiffusionState(params, state.step + 1)

    def check(self, problem: Problem, *, allow_unstable: bool = False) -> None:
        """Raise `ValueError` unless drift and covariance fit the params of `problem`."""
        _check_root(self, problem)
        shapes = jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(self.drift, problem.template))
        wanted = jax.tree.map(lambda leaf: leaf.shape, problem.template)
        if shapes != wanted:
            raise ValueError(f"drift must return a pytree like the params, {wanted}, got {shapes}")


class UnderdampedState(NamedTuple):
    """State of one run; the velocity is minus the momentum buffer."""

    params: PyTree
    momentum_buffer: PyTree
    step: Int[Any, ""]


class UnderdampedDiffusion(Dynamics):
    """A particle with friction: dθ = v dt, dv = F(θ) dt − ζ v dt + √A(θ) dW.

    The velocity is advanced first and moves the parameters, as in heavy-ball SGD (Euler, weak
    order 1). The state holds m = −v as `momentum_buffer`.

    **Arguments:** `force` F (params/time²), `friction` ζ ≥ 0 (1/time), `covariance` A
    (params²/time³), `time_step`, `increments` and `root` as in `Diffusion`.

    >>> import numpy as np, statsgd
    >>> particle = UnderdampedDiffusion(lambda x: -x, 1.0, covariance=2.0, time_step=0.01)
    >>> bowl = statsgd.problems.quadratic(np.eye(1))
    >>> tree = statsgd.simulate(bowl, particle, steps=500, replicas=4, seed=0, progress=False)
    >>> list(tree.children)
    ['run', 'endpoints', 'momentum_buffer']
    """

    force: Drift
    friction: Float[Any, ""]
    covariance: Root | None
    time_step: Float[Any, ""]
    increments: str = eqx.field(static=True)
    root: Root | None

    def __init__(
        self,
        force: Drift,
        friction: Any,
        covariance: Any = None,
        time_step: Any = 0.01,
        increments: str = "gaussian",
        root: Any = None,
    ):
        if not callable(force):
            raise ValueError(f"force must be a function of the params, got {force!r}")
        self.force = force
        self.friction = non_negative("friction", friction)
        self.covariance, self.root = _covariance_or_root(covariance, root)
        self.time_step = positive("time_step", time_step)
        self.increments = one_of("increments", increments, INCREMENTS)

    def init(self, problem: Problem, params: PyTree) -> UnderdampedState:
        """At rest."""
        return UnderdampedState(
            params, jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32)
        )

    def step(
        self, key: PRNGKeyArray, problem: Problem, state: UnderdampedState
    ) -> UnderdampedState:
        """One step of length h."""
        noise = _increment(self, key, problem, state)
        h = self.time_step
        buffer = jax.tree.map(
            lambda m, f, n: (m - h * (f + self.friction * m) - jnp.sqrt(h) * n).astype(m.dtype),
            state.momentum_buffer,
            self.force(state.params),
            noise,
        )
        params = jax.tree.map(lambda p, m: (p - h * m).astype(p.dtype), state.params, buffer)
        return UnderdampedState(params, buffer, state.step + 1)

    def check(self, problem: Problem, *, allow_unstable: bool = False) -> None:
        """Raise `ValueError` unless the covariance fits the params of `problem`."""
        _check_root(self, problem)


def _covariance_or_root(covariance: Any, root: Any) -> tuple[Any, Any]:
    if (covariance is None) == (root is None):
        raise ValueError("exactly one of covariance and root must be given")
    if root is not None:
        return None, root if callable(root) else finite_array("root", root)
    if callable(covariance) or is_traced(covariance):
        return covariance, None
    if np.ndim(covariance) == 2:
        values, vectors = np.linalg.eigh(symmetric("covariance", covariance, definite="semi"))
        return None, vectors * np.sqrt(np.clip(values, 0, None))  # once, not at every step
    return non_negative("covariance", covariance), None


def _root(dynamics: Diffusion | UnderdampedDiffusion, params: PyTree) -> Float[Any, "..."]:
    """R(θ): a number, a `(d,)` or a `(d, r)` array."""
    given = dynamics.covariance if dynamics.root is None else dynamics.root
    value = jnp.asarray(given(params) if callable(given) else given)
    if dynamics.root is not None:
        return value
    return symmetric_root(value) if value.ndim == 2 else jnp.sqrt(jnp.clip(value, 0, None))


def _increment(
    dynamics: Diffusion | UnderdampedDiffusion,
    key: PRNGKeyArray,
    problem: Problem,
    state: DiffusionState | UnderdampedState,
) -> PyTree:
    """R(θ) n as a pytree like the params, with n of mean zero and unit variance."""
    root = _root(dynamics, state.params)
    size = root.shape[1] if root.ndim == 2 else problem.dimension
    key = jax.random.fold_in(key, state.step)
    dtype = jnp.result_type(*jax.tree.leaves(state.params))
    if dynamics.increments == "gaussian":
        noise = normal(key, (size,), dtype)
    else:
        words = jax.random.bits(key, (-(-size // 32),), jnp.uint32)
        bits = (words[:, None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
        noise = (2 * bits.reshape(-1)[:size].astype(jnp.int32) - 1).astype(dtype)
    return problem.unflatten(root @ noise if root.ndim == 2 else root * noise)


def _check_root(dynamics: Diffusion | UnderdampedDiffusion, problem: Problem) -> None:
    shape = jax.eval_shape(lambda params: _root(dynamics, params), problem.template).shape
    d = problem.dimension
    if not (shape in ((), (d,)) or (len(shape) == 2 and shape[0] == d)):
        raise ValueError(
            f"covariance must be a number or have shape ({d},) or ({d}, {d}) for this problem, got "
            f"{shape}"
        )
