"""A sharp and a flat basin of equal depth in the plane, from which noise may or may not escape."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.arguments import count, non_negative, random_seed
from statsgd.problems.risk import EmpiricalRisk, empirical_risk


class TwoBasinLoss(eqx.Module):
    """min{10⟨w−x−1, z_u⟩² + 100⟨w−x−1, z_v⟩², |w−x+1|²} of one example x.

    >>> import numpy as np
    >>> TwoBasinLoss(np.pi / 4)(np.array([-1.0, 0.0]), np.zeros(2))  # in the flat basin
    Array(1., dtype=float32)
    """

    angle: float = eqx.field(static=True)

    def branches(self, params: Any, shift: Any) -> tuple[Any, Any]:
        """The sharp and the flat parabola at w, for the example x = `shift`."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        a, b = params[0] - shift[0], params[1] - shift[1]
        u, v = cos * (a - 1) - sin * (b - 1), sin * (a - 1) + cos * (b - 1)
        return 10 * u**2 + 100 * v**2, (a + 1) ** 2 + (b + 1) ** 2

    def __call__(self, params: Float[Any, " 2"], example: Float[Any, " 2"]) -> Float[Any, ""]:
        """The loss of one example."""
        return jnp.minimum(*self.branches(params, example))


def two_basins(
    spread: float = 1.0, num_points: int = 100, seed: int = 0, angle: float = np.pi / 4
) -> EmpiricalRisk:
    """The mean of `TwoBasinLoss` over `num_points` examples, started at the sharp minimum (1, 1).

    Its Hessian there is 20 z_u z_uᵀ + 200 z_v z_vᵀ with z_u = (cos φ, −sin φ) and
    z_v = (sin φ, cos φ), and 2I at the flat minimum (−1, −1). The examples are
    x = 0.01 `spread` (√10 n₁ z_u + n₂ z_v) for standard normal n, so that in the sharp basin the
    noise of one example is 0.02 H at `spread` 1; at 0 all are zero, and the data make no noise. η
    must be below 0.01.

    Raises `ValueError` for a negative `spread` and fewer than one example.

    Source: Zhu, Wu, Yu, Wu, Ma (2019), arXiv:1803.00195.

    >>> problem = two_basins()
    >>> problem.dimension, problem.num_examples
    (2, 100)
    """
    width = 0.01 * float(non_negative("spread", spread))
    normals = np.random.default_rng(random_seed(seed)).normal(
        size=(count("num_points", num_points), 2)
    )
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = width * (normals * [10**0.5, 1]) @ axes
    return empirical_risk(TwoBasinLoss(float(angle)), points, np.ones(2))
