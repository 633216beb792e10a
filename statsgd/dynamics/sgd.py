"""Heavy-ball stochastic gradient descent."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

from statsgd.arguments import fraction, is_traced, non_negative, positive
from statsgd.dynamics.diffusion import Diffusion, UnderdampedDiffusion
from statsgd.dynamics.dynamics import Dynamics
from statsgd.dynamics.limit import diffusion_limit
from statsgd.dynamics.noise import GradientNoise
from statsgd.problems import LinearRegression, Problem


class SGDState(NamedTuple):
    """State of one run."""

    params: PyTree
    momentum_buffer: PyTree
    step: Int[Any, ""]


class SGD(Dynamics):
    """Heavy-ball SGD with constant learning rate, as PyTorch's with dampening 0:

        m ← β m + ĝ(θ) + λ θ
        θ ← θ − η m            (m₀ = 0)

    Weight decay is a gradient term (L2), so it passes through the momentum buffer. The velocity is
    v = −m. All numbers are traced: a change of them does not recompile.

    **Arguments:** `learning_rate` η > 0 (time per step), `noise` a gradient-noise model,
    `momentum` β in [0, 1), `weight_decay` λ ≥ 0 (1/time).

    Raises `ValueError` for values outside these ranges.
    """

    learning_rate: Float[Any, ""]
    noise: GradientNoise
    momentum: Float[Any, ""]
    weight_decay: Float[Any, ""]

    def __init__(
        self,
        learning_rate: Any,
        noise: GradientNoise,
        momentum: Any = 0.0,
        weight_decay: Any = 0.0,
    ):
        if not isinstance(noise, GradientNoise):
            raise ValueError(f"noise must be one of statsgd.noise, got {noise!r}")
        self.learning_rate = positive("learning_rate", learning_rate)
        self.noise = noise
        self.momentum = fraction("momentum", momentum)
        self.weight_decay = non_negative("weight_decay", weight_decay)

    def init(self, problem: Problem, params: PyTree) -> SGDState:
        """At rest: zero momentum buffer."""
        return SGDState(params, jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32))

    def step(self, key: PRNGKeyArray, problem: Problem, state: SGDState) -> SGDState:
        """One update."""
        gradient = self.noise.at_step(key, state.step, problem, state.params)
        buffer = jax.tree.map(
            lambda m, g, p: (self.momentum * m + g + self.weight_decay * p).astype(p.dtype),
            state.momentum_buffer,
            gradient,
            state.params,
        )
        params = jax.tree.map(
            lambda p, m: (p - self.learning_rate * m).astype(p.dtype), state.params, buffer
        )
        return SGDState(params, buffer, state.step + 1)

    def diffusion_limit(
        self, problem: Problem, time_step: Any = None, increments: str = "gaussian"
    ) -> Diffusion | UnderdampedDiffusion:
        """The SDE that this SGD on `problem` is taken for when its learning rate is small.

        Without momentum dθ = −(∇L + λθ) dt + √(ηC) dW. With momentum the underdamped system

            dθ = v dt,   dv = −a(∇L + λθ) dt − a(1−β) v dt + √(4C/(η(1+β)²)) dW

        with a = 2/(η(1+β)) and the same fields of the state, `momentum_buffer` = −v. One step of
        SGD is a time η; `time_step` is that of the numerical scheme, η/10 by default.

        Raises `ValueError` if the noise does not fit, or is not white: an SDE has no memory.
        """
        self.noise.check(problem)
        if not self.noise.white:
            raise ValueError(
                "sampling must give noise that is independent from step to step for a diffusion "
                f"limit, got {getattr(self.noise, 'sampling', type(self.noise).__name__)!r}"
            )
        return diffusion_limit(
            problem,
            self.noise,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            time_step=self.learning_rate / 10 if time_step is None else time_step,
            increments=increments,
        )

    def check(self, problem: Problem, *, allow_unstable: bool = False) -> None:
        """Raise `ValueError` if the noise does not fit, or the mean of the run diverges.

        The mean of heavy-ball SGD on a quadratic is stable iff η(h + λ) < 2(1 + β) for every
        Hessian eigenvalue h. This is checked where the Hessian is known in advance, that is for
        linear regression; the noise itself may need a smaller η still (see
        `laws.LinearRegressionGaussian`).
        """
        self.noise.check(problem)
        if allow_unstable or not isinstance(problem, LinearRegression) or is_traced(self):
            return
        sharpest = float(np.linalg.eigvalsh(problem.hessian_matrix())[-1])
        reach = np.max(self.learning_rate * (sharpest + self.weight_decay) / (1 + self.momentum))
        if reach >= 2:
            limit = 2 * (1 + self.momentum) / (sharpest + self.weight_decay)
            raise ValueError(
                f"learning_rate must be below 2(1+momentum)/(h_max+weight_decay) = "
                f"{float(np.min(limit)):.6g} for this problem (h_max = {sharpest:.6g}), got "
                f"{self.learning_rate.tolist()}; pass allow_unstable=True to run it all the same"
            )
