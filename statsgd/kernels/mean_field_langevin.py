"""Mean-field Langevin dynamics: interacting particles under noisy gradient descent."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from statsgd.arguments import count, finite_array, fraction, one_of, positive, symmetric
from statsgd.kernels.adapter import LangevinKernel
from statsgd.kernels.kernel_state import Info, Potential
from statsgd.kernels.registry import register
from statsgd.kernels.tree import all_finite, random_like
from statsgd.laws import Law, MeanFieldLaw, QuadraticMeanField

type Evaluate = Callable[[PRNGKeyArray, PyTree], tuple[Float[Any, ""], PyTree]]


class MeanFieldFunctional(eqx.Module):
    """F(μ) = (1/n) Σ_j ℓ(E_μ h(x, z_j), z_j) + ½ E_μ xᵀΛx: a two-layer network of particles x.

    **Arguments:** `feature` h `(particle (d,), example) -> output` and `loss` ℓ `(output, example)
    -> scalar`, both of one example and differentiable; `examples`, a pytree with a leading axis of
    n; `weight_decay`, a number λ (Λ = λI) or a positive definite `(d, d)`; `particle_dimension` d.
    F is convex in μ if ℓ is in the output.

    Raises `ValueError` without weight decay: the law would not be normalisable.

    >>> from statsgd import laws
    >>> law = laws.mean_field.two_layer_mean_field([0.0, 1.0], [0.0, 1.0], 0.1, 0.05, 4)
    >>> MeanFieldFunctional.of(law).particle_dimension
    1
    """

    feature: Callable[[Any, Any], Any]
    loss: Callable[[Any, Any], Any]
    examples: PyTree
    weight_decay: Float[Any, "..."]
    particle_dimension: int = eqx.field(static=True)

    def __init__(
        self,
        feature: Callable[[Any, Any], Any],
        loss: Callable[[Any, Any], Any],
        examples: PyTree,
        weight_decay: Any,
        particle_dimension: int = 1,
    ):
        self.feature, self.loss = feature, loss
        self.examples = jax.tree.map(lambda leaf: finite_array("examples", leaf), examples)
        lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(self.examples)}
        if len(lengths) != 1 or lengths == {()} or lengths == {(0,)}:
            raise ValueError(f"examples must have one leading axis, got lengths {lengths}")
        self.particle_dimension = count("particle_dimension", particle_dimension)
        if np.ndim(weight_decay) == 2:
            self.weight_decay = symmetric(
                "weight_decay", weight_decay, dimension=particle_dimension, definite="positive"
            )
        elif np.ndim(weight_decay) == 0 and np.all(np.asarray(weight_decay) <= 0):
            raise ValueError(
                "proximal Gibbs law not normalisable: add weight_decay > 0, got "
                f"weight_decay = {float(weight_decay):g}"
            )
        else:
            self.weight_decay = positive("weight_decay", weight_decay)

    @classmethod
    def of(cls, law: Law) -> "MeanFieldFunctional":
        """The functional of a `MeanFieldLaw` or a `QuadraticMeanField`; else `ValueError`."""
        if isinstance(law, MeanFieldLaw):
            limit = law.limit
            examples = {
                "index": np.arange(len(limit.targets)),
                "target": limit.targets,
                "strength": np.full(len(limit.targets), limit.strength),
            }
            feature = _OneOfAll(limit.features)
            return cls(feature, _squared, examples, limit.weight_decay, limit.dimension)
        if isinstance(law, QuadraticMeanField):
            examples = {"features": law.features[None], "target": law.targets[None]}
            return cls(_linear, _squared, examples, law.decay, len(law.decay))
        raise ValueError(
            f"law must be a MeanFieldLaw or a QuadraticMeanField, got {type(law).__name__}"
        )

    @property
    def num_examples(self) -> int:
        """n."""
        return int(np.shape(jax.tree.leaves(self.examples)[0])[0])

    def particles(self, position: PyTree) -> Float[Any, "N d"]:
        """The one leaf of `position`, `(N, d)` or flattened, with one row a particle."""
        (leaf,) = jax.tree.leaves(position)
        return leaf.reshape(-1, self.particle_dimension)

    def value(
        self, particles: Float[Any, "N d"], indices: Int[Any, " S"] | None = None
    ) -> Float[Any, ""]:
        """F(μ_X), with the mean loss of the examples `indices` only if they are given."""
        examples = jax.tree.map(
            lambda leaf: jnp.asarray(leaf) if indices is None else jnp.asarray(leaf)[indices],
            self.examples,
        )

        def one(example):
            outputs = jax.vmap(lambda x: self.feature(x, example))(particles)
            return self.loss(jnp.mean(outputs, axis=0), example)

        decay = jnp.asarray(self.weight_decay, particles.dtype)
        drawn = particles @ decay if decay.ndim else decay * particles
        penalty = 0.5 * jnp.sum(particles * drawn) / len(particles)
        return jnp.mean(jax.vmap(one)(examples)) + penalty

    def potential(self, position: PyTree, indices: Int[Any, " S"] | None = None) -> Float[Any, ""]:
        """N F(μ_X), whose gradient at a particle is that of the first variation, ∇(δF/δμ)(X_i)."""
        particles = self.particles(position)
        return len(particles) * self.value(particles, indices)


class _OneOfAll(eqx.Module):
    """The feature of one example, from those of all."""

    features: Callable[[Any], Any]

    def __call__(self, x: Any, example: Any) -> Array:
        return jnp.atleast_1d(self.features(x))[example["index"].astype(int)]


def _linear(x: Any, example: Any) -> Array:
    return example["features"] @ x


def _squared(output: Any, example: Any) -> Array:
    return 0.5 * example.get("strength", 1.0) * jnp.sum((output - example["target"]) ** 2)


class GradientEstimate(eqx.Module):
    """How the gradient of N F is estimated; the numbers of the data are traced, the rest is not."""

    functional: MeanFieldFunctional | None
    kind: str = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)
    sampling: str = eqx.field(static=True)
    refresh_every: int = eqx.field(static=True)

    def on_batch(self, key: PRNGKeyArray, position: PyTree) -> tuple[Float[Any, ""], PyTree]:
        """N F and its gradient from one minibatch, shared by all particles."""
        assert self.functional is not None
        number, size = self.functional.num_examples, self.batch_size
        if self.sampling == "with_replacement":
            indices = jax.random.randint(key, (size,), 0, number)
        else:
            indices = jax.random.choice(key, number, (size,), replace=False)
        return jax.value_and_grad(self.functional.potential)(position, indices)


class State(NamedTuple):
    """All particles, with potential and gradient there, and the momentum buffer."""

    position: PyTree
    potential: Float[Any, ""]
    """U = N F(μ_X), or its estimate from the minibatch of the step."""
    gradient: PyTree
    momentum: PyTree


def step(
    key: PRNGKeyArray, state: State, evaluate: Evaluate, parameters: Mapping[str, Any]
) -> tuple[State, Info]:
    """m ← βm + v + √(2T(1−β)/h) ξ,  X ← X − hm,  v an estimate of ∇U: v_i = N ∂F/∂X_i.

    `evaluate(key, position)` gives U and v at the new position. With a preconditioner P,
    X ← X − hP^½m and P^½v for v. A step to where they are not finite is not taken, and flagged.
    """
    h, temperature, beta = (parameters[n] for n in ("step_size", "temperature", "momentum"))
    scales = parameters["preconditioner"]
    noise_key, batch_key = jax.random.split(key)
    spread = jnp.sqrt(2 * temperature * (1 - beta) / h)
    momentum = jax.tree.map(
        lambda m, v, n: beta * m + v + spread * n,
        state.momentum,
        scales.pull(state.gradient),
        random_like(noise_key, state.position),
    )
    move = scales.push(jax.tree.map(lambda m: -h * m, momentum))
    position = jax.tree.map(jnp.add, state.position, move)
    moved = State(position, *evaluate(batch_key, position), momentum)
    finite = all_finite((moved.potential, moved.gradient))
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, state)
    return kept, Info(jnp.where(finite, 1.0, 0.0).astype(state.potential.dtype), ~finite)


def variance_reduced(
    key: PRNGKeyArray,
    state: State,
    estimate: GradientEstimate,
    full: Callable[[PyTree], tuple[Float[Any, ""], PyTree]],
    parameters: Mapping[str, Any],
) -> tuple[State, Info]:
    """Steps with v = g_B(X) − g_B(X₀) + g(X₀) from the snapshot X₀ = `state` to the next."""

    def reduced(key, position):
        here, gradient = estimate.on_batch(key, position)
        there, reference = estimate.on_batch(key, state.position)
        change = jax.tree.map(lambda g, r, f: g - r + f, gradient, reference, state.gradient)
        return here - there + state.potential, change

    def one(i, carry):
        moving, info = carry
        moving, new = step(jax.random.fold_in(key, i), moving, reduced, parameters)
        accept_prob = jnp.minimum(info.accept_prob, new.accept_prob)
        return moving, Info(accept_prob, info.diverging | new.diverging)

    fine = Info(jnp.ones_like(state.potential), jnp.zeros((), bool))
    end, info = jax.lax.fori_loop(0, estimate.refresh_every, one, (state, fine))
    value, gradient = full(end.position)
    return end._replace(potential=value, gradient=gradient), info


@register
class MeanFieldLangevin(LangevinKernel):
    """Mean-field Langevin dynamics of N particles, with full, minibatch or SVRG gradients.

        X_i ← X_i − η v_i + √(2τη) ξ_i,    v_i = ∇(δF/δμ)(μ_X)(X_i) = N ∂F(μ_X)/∂X_i

    is the unadjusted Langevin step on U(X) = N F(μ_X) with `step_size` η and `temperature` τ, and
    leaves exp(−(N/τ) F(μ_X)) invariant up to O(η).

    **The learning-rate trap.** Gradient descent on the loss L(θ) = F(μ_X) moves particles by
    ∂L/∂X_i, N times less than v_i: its learning rate is Nη and its Gibbs temperature τ/N. On a law
    the potential is dimensionless, U = (N/τ)F: then `temperature=1` is the law itself and
    `step_size` is ητ. `on_law` and `functional` take η and τ themselves.

    **Arguments:** those of every kernel, and

    - `functional`: a `MeanFieldFunctional`, in place of `model` or `potential_fn` (which may be
      N F(μ_X) of any F; then gradients are full).
    - `gradient`: `"full"`; `"minibatch"`, one batch a step, the same for all particles; `"svrg"`,
      v = g_B(X) − g_B(X₀) + g(X₀) with a snapshot X₀ every `refresh_every` steps. Minibatch noise
      moves all particles together and does not fall with N; SVRG removes it while
      `refresh_every`·η·curvature ≪ 1.
    - `batch_size`, and `sampling`: `"with_replacement"` or `"without_replacement"`.
    - `refresh_every`: with SVRG one step of the kernel is this many steps of the particles, from
      one snapshot to the next, and costs one full gradient.
    - `momentum` β ≥ 0, heavy-ball; the injected noise is 2τ(1−β)/η in the buffer.

    `lp` is −U, an unbiased estimate with minibatches. Positions are one array `(N, d)`, or
    flattened. Raises `ValueError` for minibatches without a `functional`, or larger than the data.

    Source: Suzuki, Wu, Nitanda (2023), arXiv:2306.07221; the scaling with N and momentum derived.

    >>> from statsgd import laws
    >>> law = laws.mean_field.two_layer_mean_field([0.0, 1.0], [0.0, 1.0], 0.1, 0.05, 4)
    >>> MeanFieldLangevin.on_law(law, learning_rate=0.1)
    MeanFieldLangevin(step_size=0.1, temperature=0.05, momentum=0)
    """

    exactness: ClassVar[str] = "bias O(step size); minibatches add noise shared by all particles"
    citation: ClassVar[str] = "Suzuki, Wu, Nitanda (2023), arXiv:2306.07221"

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: Potential | None = None,
        *,
        functional: MeanFieldFunctional | None = None,
        gradient: str = "full",
        batch_size: int | None = None,
        sampling: str = "with_replacement",
        refresh_every: int | None = None,
        momentum: Any = 0.0,
        **settings: Any,
    ):
        super().__init__(model, potential_fn, **settings)
        one_of("gradient", gradient, ("full", "minibatch", "svrg"))
        one_of("sampling", sampling, ("with_replacement", "without_replacement"))
        self.parameters["momentum"] = fraction("momentum", momentum)
        if functional is None:
            if gradient != "full":
                raise ValueError(f"gradient={gradient!r} needs functional, got None")
        elif model is not None or potential_fn is not None:
            raise ValueError("functional takes the place of model and potential_fn, got both")
        elif not isinstance(functional, MeanFieldFunctional):
            raise ValueError(f"functional must be a MeanFieldFunctional, got {functional!r}")
        size = 1 if gradient == "full" else count("batch_size", batch_size)
        every = count("refresh_every", refresh_every) if gradient == "svrg" else 1
        if functional is not None and sampling == "without_replacement":
            most = functional.num_examples
            if size > most:
                raise ValueError(
                    f"batch_size must be at most the number of examples {most} without "
                    f"replacement, got {batch_size}"
                )
        self.parameters["estimate"] = GradientEstimate(functional, gradient, size, sampling, every)

    @classmethod
    def on_law(cls, law: Law, *, learning_rate: Any, **settings: Any) -> Self:
        """The dynamics with η = `learning_rate` whose law, as η → 0, is `law`.

        For `MeanFieldLaw` and `QuadraticMeanField`; the temperature is that of the law.
        """
        functional = MeanFieldFunctional.of(law)
        part: Any = law.limit if isinstance(law, MeanFieldLaw) else law
        return cls(
            functional=functional,
            step_size=learning_rate,
            temperature=part.temperature,
            **settings,
        )

    @staticmethod
    def core_init(position: PyTree, potential: Potential, parameters: Mapping[str, Any]) -> State:
        """At rest at `position`, with the full gradient."""
        still = jax.tree.map(jnp.zeros_like, position)
        return State(position, *jax.value_and_grad(potential)(position), still)

    def core_refresh(self, state: State, potential: Potential, parameters: Mapping) -> State:
        """`state` on another potential."""
        return self.core_init(state.position, potential, parameters)._replace(
            momentum=state.momentum
        )

    @staticmethod
    def core_step(
        key: PRNGKeyArray, state: State, potential: Potential, parameters: Mapping[str, Any]
    ) -> tuple[State, Info]:
        """One step, or with SVRG those from one snapshot to the next."""
        full = jax.value_and_grad(potential)
        estimate: GradientEstimate = parameters["estimate"]
        if estimate.kind == "svrg":
            return variance_reduced(key, state, estimate, full, parameters)
        if estimate.kind == "minibatch":
            return step(key, state, estimate.on_batch, parameters)
        return step(key, state, lambda _, position: full(position), parameters)

    def _potential(self, model_args, model_kwargs) -> Potential:
        functional = self.parameters["estimate"].functional
        if functional is None:
            return super()._potential(model_args, model_kwargs)
        return functional.potential
