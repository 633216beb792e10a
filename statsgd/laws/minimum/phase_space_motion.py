"""How heavy-ball SGD moves within its stationary law: oscillation and displacement.

For the continuous model (`PhaseSpaceGaussian`) and for the chain itself (`HeavyBallGaussian`). Both
move each mode of H + λI linearly, whatever the noise, so that all there is to know is a matrix
B(k) for each mode: (x, v) after k steps is B(k)(x, v) on average, v = −m.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from statsgd.arguments import fraction, non_negative, one_of, positive
from statsgd.laws.minimum.heavy_ball import HeavyBallGaussian, require_stable_mean
from statsgd.laws.minimum.phase_space import PhaseSpaceGaussian


class PhaseSpaceTransition:
    """The average motion of modes of curvature h (eigenvalues of H + λI), `(d,)`.

    With γ = (1−β)/(η(1+β)), ω² = 2h/(η(1+β)) and Δ² = ω² − γ² the model has, after a time t = ηk,

        B = e^{−γt} [[c + γs, s], [−ω²s, c − γs]],     c = cos Δt,  s = sin(Δt)/Δ

    and the chain has B = Fᵏ, F = [[1−ηh, ηβ], [−h, β]]. A mode of the model oscillates iff
    ηh > (1−β)²/(2(1+β)), one of the chain iff (1−√β)² < ηh < (1+√β)²: at β = 0 the chain never
    does, though it alternates in sign for ηh > 1.

    **Arguments:** `curvatures` h > 0; η; β; `model`, `"chain"` or `"continuous"`.

    Raises `ValueError` for other values, `ImproperLawError` for a chain with ηh ≥ 2(1+β).
    Source: Kunin et al. (2021), arXiv:2107.09133, for the model; the chain is derived.

    >>> motion = PhaseSpaceTransition([1.0], learning_rate=0.1, momentum=0.5, model="chain")
    >>> motion.propagator(1)[0].round(4).tolist(), motion.oscillates().tolist()
    ([[0.9, 0.05], [-1.0, 0.5]], [True])
    """

    def __init__(
        self, curvatures: Any, learning_rate: Any, momentum: Any = 0.0, model: str = "chain"
    ):
        self.curvatures = np.atleast_1d(positive("curvatures", curvatures))
        self.learning_rate = float(positive("learning_rate", learning_rate))
        self.momentum = float(fraction("momentum", momentum))
        self.chain = one_of("model", model, ("chain", "continuous")) == "chain"
        if self.chain:
            require_stable_mean(self.curvatures, self.learning_rate, self.momentum)

    @classmethod
    def of(cls, law: PhaseSpaceGaussian | HeavyBallGaussian) -> "PhaseSpaceTransition":
        """The motion of a `PhaseSpaceGaussian` or a `HeavyBallGaussian`."""
        law.require_one_rate()
        law.require_proper()
        model = "continuous" if isinstance(law, PhaseSpaceGaussian) else "chain"
        return cls(law.modes().curvatures, law.learning_rate, law.momentum, model)

    def propagator(self, steps: float) -> Float[Any, "d 2 2"]:
        """B after `steps` steps (a whole number of them for the chain)."""
        k = float(non_negative("steps", steps))
        h, eta, beta = self.curvatures, self.learning_rate, self.momentum
        if self.chain:
            if k != int(k):
                raise ValueError(f"steps must be a whole number for the chain, got {steps}")
            one = np.stack([1 - eta * h, np.full_like(h, eta * beta), -h, np.full_like(h, beta)])
            return np.linalg.matrix_power(one.T.reshape(-1, 2, 2), int(k))
        gamma, omega2 = self._rates()
        t, square = eta * k, omega2 - gamma**2
        root = np.sqrt(np.abs(square))
        swing = np.where(square > 0, root, 0.0)
        decay = np.exp(-gamma * t)
        # Overdamped modes by their two rates: cosh times a decaying exponential would overflow.
        slow, fast = omega2 / (gamma + root), gamma + root
        cosine = np.where(
            square >= 0, decay * np.cos(swing * t), (np.exp(-slow * t) + np.exp(-fast * t)) / 2
        )
        safe = np.where(root > 0, root, 1.0)
        over = np.where(
            square > 0,
            decay * np.sin(swing * t) / safe,
            (np.exp(-slow * t) - np.exp(-fast * t)) / (2 * safe),
        )
        sine = np.where(root * t > 1e-8, over, decay * t)
        rows = [cosine + gamma * sine, sine, -omega2 * sine, cosine - gamma * sine]
        return np.stack(rows).T.reshape(-1, 2, 2)

    def oscillates(self) -> Bool[Any, " d"]:
        """Which modes turn in phase space."""
        lowest, highest = self.oscillation_window()
        reach = self.learning_rate * self.curvatures
        return (lowest < reach) & (reach < highest)

    def oscillation_window(self) -> tuple[float, float]:
        """The ends of the interval of ηh in which a mode oscillates."""
        beta = self.momentum
        if self.chain:
            return (1 - beta**0.5) ** 2, (1 + beta**0.5) ** 2
        return (1 - beta) ** 2 / (2 * (1 + beta)), np.inf

    def period(self) -> Float[Any, " d"]:
        """Steps of one turn; infinite for modes that do not oscillate."""
        gamma, omega2 = self._rates()
        eta, beta = self.learning_rate, self.momentum
        turning = self.oscillates()
        if self.chain:
            cosine = (1 + beta - eta * self.curvatures) / (2 * beta**0.5 if beta else np.inf)
            angle = np.arccos(np.clip(cosine, -1, 1))
        else:
            angle = eta * np.sqrt(np.maximum(omega2 - gamma**2, 0))
        return np.where(turning, 2 * np.pi / np.where(turning, angle, 1), np.inf)

    def stationary_blocks(self, noise: Any) -> Float[Any, "d 2 2"]:
        """Covariance of (x, v) in each mode for noise of variance `noise`, `(d,)`, in it."""
        c = np.broadcast_to(non_negative("noise", noise), self.curvatures.shape)
        h, eta, beta = self.curvatures, self.learning_rate, self.momentum
        inflation = 1 / (1 - eta * h / (2 * (1 + beta))) if self.chain else np.ones_like(h)
        velocity = inflation * c / (1 - beta**2)
        position = velocity * eta * (1 + beta) / (2 * h)
        # The chain looks at x after the step that v took: Cov(x, v) = η Var v / 2.
        cross = eta * velocity / 2 if self.chain else 0 * h
        return np.stack([position, cross, cross, velocity]).T.reshape(-1, 2, 2)

    def correlation(self, steps: float, variable: str = "params") -> Float[Any, " d"]:
        """Stationary correlation of each mode's `"params"` or `"velocity"` at a lag of `steps`."""
        place = ("params", "velocity").index(one_of("variable", variable, ("params", "velocity")))
        blocks = self.stationary_blocks(1.0)
        later = self.propagator(steps) @ blocks
        return later[:, place, place] / blocks[:, place, place]

    def integrated_time(self) -> Float[Any, " d"]:
        """Integrated autocorrelation time of θ in steps, 1 + 2Σ corr for the chain.

        2(1−β)/(ηh), less (1−β)/(1+β) for the chain. Below 1 for modes that oscillate strongly:
        their mean is known better than from independent draws. That of v is zero.
        """
        beta = self.momentum
        time = 2 * (1 - beta) / (self.learning_rate * self.curvatures)
        return time - (1 - beta) / (1 + beta) if self.chain else time

    def displacement(
        self, steps: float, blocks: Float[Any, "d 2 2"], offset: Float[Any, " d"] | None = None
    ) -> float:
        """E|θ_k − θ_0|² for modes of stationary covariance `blocks`.

        From stationary starts, or, with `offset` `(d,)`, from rest at that distance of each mode
        from the minimum.
        """
        b = self.propagator(steps)
        if offset is None:
            return float(2 * np.sum(blocks[:, 0, 0] - (b @ blocks)[:, 0, 0]))
        spread = blocks - b @ blocks @ np.swapaxes(b, 1, 2)
        return float(np.sum(spread[:, 0, 0]) + np.sum(((1 - b[:, 0, 0]) * offset) ** 2))

    def _rates(self) -> tuple[float, Float[Any, " d"]]:
        scale = self.learning_rate * (1 + self.momentum)
        return (1 - self.momentum) / scale, 2 * self.curvatures / scale


def mean_squared_displacement(
    law: PhaseSpaceGaussian | HeavyBallGaussian, steps: Sequence[float], start: Any = None
) -> Float[Any, " lags"]:
    """E|θ_k − θ_0|² (params²) at each of `steps`, for the model or the chain.

    From stationary starts, or from rest at `start` `(d,)`. Modes are ballistic below 1/(1−β)
    steps, diffusive up to (1−β)/(ηh), then saturate at twice their variance. From rest the model
    is wrong for the first few steps.

    Source: Kunin et al. (2021), arXiv:2107.09133; closed forms derived.

    >>> import numpy as np
    >>> law = HeavyBallGaussian(np.eye(1), np.eye(1), 0.1)
    >>> mean_squared_displacement(law, [1, 10, 1000]).round(4)  # at last twice the variance
    array([0.0105, 0.0686, 0.1053])
    """
    transition = PhaseSpaceTransition.of(law)
    blocks = _mode_blocks(law)
    offset = None
    if start is not None:
        offset = law.modes().vectors.T @ (np.asarray(start, dtype=np.float64) - law.location)
    return np.array([transition.displacement(k, blocks, offset) for k in steps])


def local_displacement(law: PhaseSpaceGaussian | HeavyBallGaussian) -> float:
    """E|θ_{k+1} − θ_k|² = η² tr Cov m in the stationary law, params².

    >>> import numpy as np
    >>> law = HeavyBallGaussian(np.eye(1), np.eye(1), 0.1)
    >>> round(local_displacement(law), 4)  # η²c(1 + η/(2 − η))
    0.0105
    """
    law.require_one_rate()
    return float(law.learning_rate**2 * np.trace(law.covariance("momentum_buffer")))


def displacement_exponent(steps: Any, displacement: Any) -> float:
    """Slope of ln E|θ_k − θ_0|² on ln k by ordinary least squares over the given `steps`.

    The window is part of the statement: modes of curvature h_l ∝ l^{−α} give 1/α for α > 1 before
    the last of them saturates, and 1 for α < 1. Use log-spaced steps, or late lags weigh most.

    Raises `ValueError` unless there are two or more positive steps and displacements.

    >>> round(displacement_exponent([1, 2, 4], [0.1, 0.2, 0.4]), 4)  # diffusion
    1.0
    """
    k = np.asarray(positive("steps", steps))
    moved = np.asarray(positive("displacement", displacement))
    if k.ndim != 1 or k.shape != moved.shape or len(k) < 2:
        raise ValueError(
            f"steps and displacement must be two or more numbers each, got shapes {k.shape} and "
            f"{moved.shape}"
        )
    return float(np.polyfit(np.log(k), np.log(moved), 1)[0])


def _mode_blocks(law: PhaseSpaceGaussian | HeavyBallGaussian) -> Float[Any, "d 2 2"]:
    q = law.modes().vectors
    position, velocity = "params", "momentum_buffer"

    def diagonal(one, other, sign):
        return sign * np.diagonal(q.T @ law.covariance(one, other) @ q)

    cross = diagonal(position, velocity, -1)  # v = −m
    rows = [diagonal(position, position, 1), cross, cross, diagonal(velocity, velocity, 1)]
    return np.stack(rows).T.reshape(-1, 2, 2)
