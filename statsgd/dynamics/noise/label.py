"""Label noise: targets perturbed anew at every use."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

from statsgd.arguments import positive
from statsgd.dynamics.noise.gradient_noise import GradientNoise, register
from statsgd.dynamics.noise.minibatch import Minibatch, all_examples
from statsgd.problems import PopulationRisk, Problem
from statsgd.running.random_stream import normal


@register
class LabelNoise(GradientNoise):
    """Minibatch gradient with fresh Gaussian noise on the targets at every use.

    The problem's examples are pairs `(inputs, targets)` with floating targets, of any shape. Where
    the gradient of an example is affine in its target (squared error with any model), E ĝ = ∇L and

        C = C_minibatch + (σ²/S) E[J Jᵀ],      J = ∂(example gradient)/∂target,  (d, targets)

    the first term being that of the data without label noise. Elsewhere this is the leading order
    in σ. A full batch of noisy labels is `sampling="without_replacement"` with S = N.

    **Arguments:** `standard_deviation` σ > 0 (unit of the targets), `batch_size` S and `sampling`
    as in `Minibatch`; shuffled epochs give noise that is not white.

    Source: Blanc, Gupta, Valiant, Valiant (2020), arXiv:1904.09080, for the setting.

    >>> LabelNoise(0.5, batch_size=4)
    LabelNoise(standard_deviation=0.5, batch_size=4 examples)
    """

    standard_deviation: Float[Any, ""]
    batch_size: int = eqx.field(static=True)
    sampling: str = eqx.field(static=True)

    def __init__(
        self, standard_deviation: Any, batch_size: int, sampling: str = "with_replacement"
    ):
        self.standard_deviation = positive("standard_deviation", standard_deviation)
        minibatch = Minibatch(batch_size, sampling)
        self.batch_size, self.sampling = minibatch.batch_size, minibatch.sampling

    @property
    def minibatch(self) -> Minibatch:
        """The noise of the data alone."""
        return Minibatch(self.batch_size, self.sampling)

    @property
    def white(self) -> bool:
        """As the minibatch: false for shuffled epochs."""
        return self.minibatch.white

    def check(self, problem: Problem) -> None:
        """Raise `ValueError` unless the examples are `(inputs, targets)` that can be sampled so."""
        self.minibatch.check(problem)
        if not self.minibatch.knows_examples(problem):
            raise ValueError(
                "LabelNoise must act on losses of single examples that take no key, got "
                f"{type(problem).__name__} of another loss"
            )
        example = example_template(problem)
        if not (isinstance(example, tuple | list) and len(example) == 2):
            raise ValueError(
                "examples must be pairs (inputs, targets) for LabelNoise, got the structure "
                f"{jax.tree.structure(example)}"
            )
        target = example[1]
        if not (hasattr(target, "dtype") and jnp.issubdtype(target.dtype, jnp.floating)):
            raise ValueError(f"targets must be one floating array for LabelNoise, got {target}")

    def draw(self, key: PRNGKeyArray, problem: Any, params: PyTree) -> PyTree:
        """Mean gradient over one minibatch with noisy targets."""
        return self.at_step(key, jnp.zeros((), jnp.int32), problem, params)

    def at_step(
        self, key: PRNGKeyArray, step: Int[Any, ""], problem: Any, params: PyTree
    ) -> PyTree:
        """Mean gradient over the minibatch of step `step`, its targets perturbed."""
        batch_key, label_key = jax.random.split(key)
        inputs, targets = self.minibatch.batch(batch_key, step, problem)
        noise = normal(jax.random.fold_in(label_key, step), targets.shape, targets.dtype)
        noisy = (targets + self.standard_deviation * noise).astype(targets.dtype)
        return problem.batch_gradient(params, (inputs, noisy))

    def covariance(self, problem: Any, params: PyTree) -> Float[Any, "d d"]:
        """C(θ) as stated above; memory N × d × (size of a target)."""

        def sensitivity(example: PyTree) -> Float[Any, "t d"]:
            inputs, target = example

            def gradient(noisy):
                return problem.flatten(jax.grad(problem.example_loss)(params, (inputs, noisy)))

            return jnp.moveaxis(jax.jacfwd(gradient)(target), 0, -1).reshape(-1, problem.dimension)

        rows = jax.vmap(sensitivity)(all_examples(problem))
        labels = jnp.einsum("nti,ntj->ij", rows, rows) / rows.shape[0]
        scale = jnp.asarray(self.standard_deviation) ** 2 / self.batch_size
        return self.minibatch.covariance(problem, params) + scale * labels


def example_template(problem: Any) -> PyTree:
    """Shapes and dtypes of one example."""
    if isinstance(problem, PopulationRisk):
        return jax.eval_shape(problem.draw_example, jax.random.key(0))
    return jax.eval_shape(lambda: jax.tree.map(lambda leaf: leaf[0], all_examples(problem)))
