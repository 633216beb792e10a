"""Heavy-ball stochastic gradient descent."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

from statsgd.arguments import (
    fraction,
    instance,
    is_traced,
    non_negative,
    positive,
    real,
    setting,
    single,
)
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
    """Heavy-ball SGD with constant learning rate, as `torch.optim.SGD`:

        g = ĝ(θ) + λ θ
        m ← β m + (1−q) g
        θ ← (1−ηω) θ − η m            (m₀ = 0), with `nesterov` − η (g + β m)

    Weight decay λ is a gradient term (L2), so it passes through the momentum buffer; decoupled
    decay ω does not. As in torch the first step, and SGD without momentum, know no dampening q:
    m₁ = g. The velocity is v = −m. All numbers are traced: a change of them does not recompile.

    `optax.sgd` makes the same steps, with the same buffer; it has no dampening.

    >>> import statsgd
    >>> statsgd.SGD(0.1, statsgd.noise.Minibatch(16), momentum=0.9)
    SGD(learning_rate=0.1 time/step, noise=Minibatch(batch_size=16 examples), momentum=0.9)

    Settings are float64; steps are made in the precision of the parameters.

    **Arguments:** `learning_rate` η > 0 (time per step), `noise` a gradient-noise model,
    `momentum` β in [0, 1), `weight_decay` λ ≥ 0 (1/time), `nesterov`, `dampening` q in [0, 1],
    `decoupled_weight_decay` ω ≥ 0 (1/time).

    Raises `ValueError` for values outside these ranges, and as torch for `nesterov` without
    momentum or with dampening.
    """

    learning_rate: Float[Any, ""]
    noise: GradientNoise
    momentum: Float[Any, ""]
    weight_decay: Float[Any, ""]
    nesterov: bool = eqx.field(static=True)
    dampening: Float[Any, ""]
    decoupled_weight_decay: Float[Any, ""]

    def __init__(
        self,
        learning_rate: Any,
        noise: GradientNoise,
        momentum: Any = 0.0,
        weight_decay: Any = 0.0,
        *,
        nesterov: bool = False,
        dampening: Any = 0.0,
        decoupled_weight_decay: Any = 0.0,
    ):
        call = "SGD(learning_rate, noise, momentum, …)"
        self.noise = instance("noise", noise, GradientNoise, "one of statsgd.noise", call=call)
        self.learning_rate = positive("learning_rate", setting("learning_rate", learning_rate))
        self.momentum = fraction("momentum", setting("momentum", momentum))
        self.weight_decay = non_negative("weight_decay", setting("weight_decay", weight_decay))
        self.nesterov = bool(nesterov)
        self.dampening = real(
            "dampening", dampening, allowed="in [0, 1]", valid=lambda q: (q >= 0) & (q <= 1)
        )
        self.decoupled_weight_decay = non_negative("decoupled_weight_decay", decoupled_weight_decay)
        known = not is_traced(self.momentum, self.dampening)
        if self.nesterov and known and (np.any(self.momentum == 0) or np.any(self.dampening != 0)):
            raise ValueError(
                "nesterov must go with momentum > 0 and dampening = 0, got momentum = "
                f"{momentum} and dampening = {dampening}"
            )

    @property
    def is_heavy_ball(self) -> bool:
        """Whether neither Nesterov's step, dampening nor decoupled decay is known to be used."""
        others = (self.dampening, self.decoupled_weight_decay)
        return not self.nesterov and not any(
            np.any(np.asarray(number) != 0) for number in others if not is_traced(number)
        )

    def require_heavy_ball(self) -> None:
        """Raise `ValueError` unless this is heavy-ball SGD, which most laws speak about."""
        if not self.is_heavy_ball:
            raise ValueError(
                "sgd must have nesterov=False, dampening=0 and decoupled_weight_decay=0 here, got "
                f"{self.nesterov}, {self.dampening} and {self.decoupled_weight_decay}; "
                "laws.LinearOptimiserGaussian speaks about all of them"
            )

    def init(self, problem: Problem, params: PyTree) -> SGDState:
        """At rest: zero momentum buffer."""
        return SGDState(params, jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32))

    def step(self, key: PRNGKeyArray, problem: Problem, state: SGDState) -> SGDState:
        """One update."""
        gradient = self.noise.at_step(key, state.step, problem, state.params)
        beta, shrink = self.momentum, 1 - self.learning_rate * self.decoupled_weight_decay
        gain = jnp.where((state.step == 0) | (beta == 0), 1, 1 - self.dampening)
        full = jax.tree.map(lambda g, p: g + self.weight_decay * p, gradient, state.params)
        buffer = jax.tree.map(
            lambda m, g, p: (beta * m + gain * g).astype(p.dtype),
            state.momentum_buffer,
            full,
            state.params,
        )
        moved = buffer
        if self.nesterov:
            moved = jax.tree.map(lambda m, g: g + beta * m, buffer, full)
        params = jax.tree.map(
            lambda p, m: (shrink * p - self.learning_rate * m).astype(p.dtype), state.params, moved
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

        Raises `ValueError` if the noise does not fit, has no finite variance, or is not white: an
        SDE has no memory. And for SGD that is not heavy-ball SGD.
        """
        self.noise.check(problem)
        self.noise.require_variance()
        self.require_heavy_ball()
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

        The mean on a quadratic is stable iff η(sh' + (1+β)ω) < 2(1+β) for every eigenvalue h of
        the Hessian, h' = h + λ, with s = 1 for heavy-ball SGD, 1−q with dampening and 1+2β with
        `nesterov`. This is checked where the Hessian is known in advance, that is for
        linear regression; the noise itself may need a smaller η still (see
        `laws.LinearRegressionGaussian`).
        """
        self.noise.check(problem)
        for name in ("learning_rate", "momentum", "weight_decay"):
            single(f"{name} of one run (see statsgd.grid)", getattr(self, name))
        if allow_unstable or not isinstance(problem, LinearRegression) or is_traced(self):
            return
        sharpest = float(np.linalg.eigvalsh(problem.hessian_matrix())[-1])
        beta = self.momentum
        damped = np.where(beta == 0, 1.0, 1 - self.dampening)
        factor = 1 + 2 * beta if self.nesterov else damped
        pull = factor * (sharpest + self.weight_decay) + (1 + beta) * self.decoupled_weight_decay
        if np.max(self.learning_rate * pull / (1 + beta)) >= 2:
            limit = 2 * (1 + beta) / pull
            of = "h_max+weight_decay" if self.is_heavy_ball else "s(h_max+weight_decay)+(1+β)ω"
            raise ValueError(
                f"learning_rate must be below 2(1+momentum)/({of}) = "
                f"{float(np.min(limit)):.6g} for this problem (h_max = {sharpest:.6g}), got "
                f"{self.learning_rate.tolist()}; pass allow_unstable=True to run it all the same"
            )
