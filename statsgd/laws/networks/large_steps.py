"""Large steps in a diagonal network: what they do to each coordinate, exactly and in the limit."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import non_negative, positive
from statsgd.dynamics.diffusion import Diffusion
from statsgd.problems import HadamardRegression


class DiagonalNetLargeStep(NamedTuple):
    """Single-example SGD, x·(u∘v) fitted to y with loss ½r², at any learning rate η.

    With the residual r of the example used, each coordinate obeys exactly

        (u ± v)' = (u ± v)(1 ∓ η r x),      u'² − v'² = (u² − v²)(1 − η²r²x²)

    so that |u² − v²| shrinks by a known product, and a coordinate without signal decays at the
    rate E ln|1 ∓ η r x| ≈ −½η²E[r²x²] per step: learning rates so large that the loss stays at a
    level ℒ (mean r² = 2ℒ) remove coordinates, and what is left is sparse.

    **Arguments:** a `hadamard_regression` problem, η > 0.

    Source: Andriushchenko et al. (2023), arXiv:2210.05337, for the claim and the model; the
    identity and the constant of the diffusion are derived.
    """

    problem: HadamardRegression
    learning_rate: float

    @staticmethod
    def charges(params: PyTree) -> Float[Any, "... d"]:
        """u² − v² of each coordinate, zero where the layers are balanced."""
        return params["u"] ** 2 - params["v"] ** 2

    def residuals(self, params: PyTree) -> Float[Any, " N"]:
        """r = x·(u∘v) − y of every example."""
        return self.problem.inputs @ self.problem.coefficients(params) - self.problem.targets

    def charge_factor(self, params: PyTree) -> Float[Any, "N d"]:
        """1 − η²r²x² : by what the charges are multiplied in a step with each of the examples."""
        pull = self.learning_rate * self.residuals(params)[:, None] * self.problem.inputs
        return (1 - pull) * (1 + pull)

    def shrink_rate(self, loss_level: float) -> Float[Any, " d"]:
        """Mean growth per step of ln|u ± v| without signal, residuals being ±√(2ℒ): negative."""
        level = float(non_negative("loss_level", loss_level))
        x = np.asarray(self.problem.inputs, dtype=np.float64)
        factor = np.abs(1 - 2 * level * (self.learning_rate * x) ** 2)
        with np.errstate(divide="ignore"):  # a factor of zero ends the coordinate: rate −inf
            return 0.5 * np.mean(np.log(factor), axis=0)

    def diffusion(self, loss_level: float, time_step: Any = None) -> Diffusion:
        """The SDE of the phase in which the loss stays at ℒ: each residual's square is 2ℒ.

        dθ = −∇L dt + √(2ηℒ/N) Jᵀ dB with the Jacobian J of the N outputs, B of N dimensions:
        multiplicative noise v∘(Xᵀ dB) in u and u∘(Xᵀ dB) in v, for the mean loss ½⟨r²⟩.
        """
        level = float(positive("loss_level", loss_level))
        eta = float(self.learning_rate)
        return Diffusion(
            _Descent(self.problem),
            time_step=eta if time_step is None else time_step,
            root=_OutputNoise(self.problem, np.sqrt(2 * eta * level / self.problem.num_examples)),
        )


class _Descent(eqx.Module):
    problem: HadamardRegression

    def __call__(self, params: PyTree) -> PyTree:
        return jax.tree.map(jnp.negative, self.problem.gradient(params))


class _OutputNoise(eqx.Module):
    problem: HadamardRegression
    strength: Any

    def __call__(self, params: PyTree) -> Float[Any, "both N"]:
        x = jnp.asarray(self.problem.inputs).T.astype(params["u"].dtype)
        both = jnp.concatenate([params["v"][:, None] * x, params["u"][:, None] * x])
        return (self.strength * both).astype(x.dtype)
