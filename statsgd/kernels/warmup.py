"""What a kernel learns during warm-up: its step size and its preconditioner."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Bool, Float, Int, PyTree
from numpyro.infer.hmc_util import dual_averaging, welford_covariance

from statsgd.kernels.preconditioner import Preconditioner, from_covariance

#: The covariance is collected from the first to the last of these fractions of the warm-up, and
#: at the end of each window becomes the preconditioner; the rest is for the step size alone.
_WINDOWS = (0.08, 0.12, 0.18, 0.3, 0.5, 0.9)
#: Draws below which a window teaches nothing.
_ENOUGH = 10


class Adaptation(NamedTuple):
    """What has been learnt so far."""

    averaging: tuple
    """Dual averaging of the log step size."""
    moments: tuple
    """Welford's mean, sum of squares and count of the window; empty without adaptation."""
    preconditioner: Preconditioner | None
    """The preconditioner in use; None if it is not adapted."""


@dataclasses.dataclass(frozen=True)
class Warmup:
    """How a kernel adapts.

    **Arguments:** `target_accept_prob`, None to leave the step size alone; `shape`, `"diagonal"` or
    `"dense"`, or None to leave the preconditioner alone.
    """

    target_accept_prob: float | None
    shape: str | None

    def start(
        self, step_size: Float[Any, ""], position: PyTree, preconditioner: Preconditioner
    ) -> Adaptation:
        """Before the first step."""
        # Dual averaging of log h explores above ten times the first guess.
        averaging = dual_averaging()[0](jnp.log(10 * step_size))
        if self.shape is None:
            return Adaptation(averaging, (), None)
        vector, _ = ravel_pytree(position)
        form = (vector.size,) if self.shape == "diagonal" else (vector.size, vector.size)

        def spread(factor):
            factor = jnp.asarray(factor, vector.dtype)
            if len(form) == 1:
                if factor.ndim == 2:
                    raise ValueError(
                        "adapt_preconditioner must be 'dense' where preconditioner is a matrix, "
                        "got 'diagonal'"
                    )
                return jnp.broadcast_to(factor, form)
            if factor.ndim == 2:
                return factor
            return jnp.diag(jnp.broadcast_to(factor, form[:1]))

        moments = self._welford[0](vector.size)
        return Adaptation(averaging, moments, jax.tree.map(spread, preconditioner))

    def learn(
        self,
        adaptation: Adaptation,
        step_size: Float[Any, ""],
        step: Int[Any, ""],
        num_warmup: Int[Any, ""],
        accept_prob: Float[Any, ""],
        position: PyTree,
    ) -> tuple[Adaptation, Float[Any, ""]]:
        """Take the outcome of step number `step` (from zero) into account."""
        if self.target_accept_prob is not None:
            warming = step < num_warmup
            moved = dual_averaging()[1](self.target_accept_prob - accept_prob, adaptation.averaging)
            averaging = _where(warming, moved, adaptation.averaging)
            # The last warm-up step hands over to the average of all of them.
            tuned = jnp.exp(jnp.where(step + 1 >= num_warmup, averaging[1], averaging[0]))
            tiny = jnp.finfo(step_size.dtype)
            tuned = jnp.clip(tuned, tiny.tiny, tiny.max).astype(step_size.dtype)
            step_size = jnp.where(warming, tuned, step_size)
            adaptation = adaptation._replace(averaging=averaging)
        if self.shape is not None:
            ends = _window_ends(num_warmup)
            inside = (step >= ends[0]) & (step < ends[-1])
            grown = self._welford[1](position, adaptation.moments)
            adaptation = adaptation._replace(moments=_where(inside, grown, adaptation.moments))
        return adaptation, step_size

    def window_ends_with(self, step: Int[Any, "*c"], num_warmup: Int[Any, "*c"]) -> Bool[Any, ""]:
        """Whether step number `step` is the last of a window, for any chain."""
        return jnp.any(step[..., None] + 1 == _window_ends(num_warmup)[..., 1:])

    def refit(
        self, adaptation: Adaptation, step_size: Float[Any, ""], temperature: Float[Any, ""]
    ) -> tuple[Adaptation, Float[Any, ""]]:
        """The covariance of the window becomes the preconditioner, and a new window begins."""
        _, squares, number = adaptation.moments
        old: Any = adaptation.preconditioner
        # P is the covariance the target has at temperature one, whatever the temperature.
        covariance = squares / (jnp.maximum(number - 1, 1) * temperature)
        # Shrunk as in Stan, but towards what was in use, so that units do not matter.
        previous = old.root**2 if self.shape == "diagonal" else old.root @ old.root.T
        weight = number / (number + 5)
        learnt = from_covariance(weight * covariance + 1e-3 * (1 - weight) * previous)
        usable = (number >= _ENOUGH) & jnp.all(jnp.isfinite(learnt.inverse_root))
        learnt = _where(usable, learnt, old)
        moments = self._welford[0](adaptation.moments[0].size)
        averaging = adaptation.averaging
        if self.target_accept_prob is not None:
            # In the new coordinates the target has scale one, and so has the step.
            fresh = dual_averaging()[0](jnp.log(10 * jnp.ones_like(step_size)))
            averaging = _where(usable, fresh, averaging)
            step_size = jnp.where(usable, jnp.ones_like(step_size), step_size)
        return Adaptation(averaging, moments, learnt), step_size

    @property
    def _welford(self) -> tuple:
        return welford_covariance(diagonal=self.shape == "diagonal")


def _window_ends(num_warmup: Int[Any, "*c"]) -> Int[Any, "*c windows"]:
    return jnp.floor(num_warmup[..., None] * jnp.array(_WINDOWS)).astype(jnp.int32)


def _where(condition: Any, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(
        lambda a, b: jnp.where(condition, a, b).astype(jnp.result_type(b)), new, old
    )
