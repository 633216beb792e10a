"""A valley under randomly shifted copies of itself: noise that vanishes on the floor."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp

from statsgd.arguments import non_negative, positive
from statsgd.laws.law import ImproperLawError
from statsgd.precision import over_points


def random_shift_noise(
    curvature: Callable[[Any], Any], learning_rate: Any, shift: Any, x: Any
) -> tuple[Any, Any]:
    """Stationary Var(y | x) and mean drift dx/dt when each batch sees the valley shifted across.

    The loss of a batch is ½h(x)y² − h(x)yδ with δ ~ N(0, s²) independent each step (the mean tilt
    s²h/2 removed), so C_yy = s²h², C_xx = s²h'²y², which vanishes on the floor. Then

        Var(y | x) = ηs²h/(2 − ηh),     dx/dt = −(ηs²/4) h h'/(1 − ηh/2)

    The drift is downhill in h: x slides to the flat side without diffusing. True shifts, with the
    tilt kept, add s²h/2 to L₀. **Arguments:** `curvature` h, a JAX function of x; η; `shift` s;
    `x`, a number or array. Raises `ImproperLawError` where ηh ≥ 2. Source: derived, for the
    setting of Yang, Tang, Tu (2023), arXiv:2206.01246.

    >>> variance, drift = random_shift_noise(lambda x: 1 + x**2, 0.1, shift=0.5, x=1.0)
    >>> round(float(variance), 4), round(float(drift), 4)
    (0.0278, -0.0278)
    """
    eta, s = float(positive("learning_rate", learning_rate)), float(non_negative("shift", shift))
    places = np.asarray(x, dtype=np.float64)
    h, slope = over_points(_value_and_slope, places[..., None], curvature)
    if np.max(eta * h) >= 2:
        raise ImproperLawError(
            f"edge of stability inside the valley: eta*h = {np.max(eta * h):.6g} at x = "
            f"{places.flat[np.argmax(h)]:.6g} must be below 2"
        )
    variance = eta * s**2 * h / (2 - eta * h)
    drift = -eta * s**2 / 4 * h * slope / (1 - eta * h / 2)
    return variance, drift


def random_shift_path(
    curvature: Callable[[Any], Any],
    learning_rate: Any,
    shift: Any,
    start: float,
    steps: Any,
) -> Float[Any, " n"]:
    """x after each number of `steps` of the mean drift of `random_shift_noise` from `start`.

    For h = h₀(1 + x²/l²) and ηh → 0, w = x²/(l² + x²) decays as w(0) exp[−(ηsh₀/l)²k].

    >>> random_shift_path(lambda x: 1 + x**2, 0.1, shift=0.5, start=1.0, steps=[0, 1000]).round(3)
    array([1.  , 0.19])
    """
    eta, counts = (
        float(positive("learning_rate", learning_rate)),
        np.atleast_1d(np.asarray(non_negative("steps", steps), dtype=np.float64)),
    )
    if not np.isfinite(start):
        raise ValueError(f"start must be finite, got {start}")
    random_shift_noise(curvature, eta, shift, start)

    def slide(_, state):
        return random_shift_noise(curvature, eta, shift, state)[1]

    order = np.argsort(counts)
    solution = solve_ivp(
        slide,
        (0.0, eta * float(counts.max()) or 1.0),
        [float(start)],
        t_eval=eta * counts[order],
        rtol=1e-9,
        atol=1e-12,
    )
    path = np.empty(len(counts))
    path[order] = solution.y[0]
    return path


def shift_noise_covariance(
    curvature: Callable[[Any], Any], shift: Any
) -> Callable[[Float[jax.Array, "2"]], Float[jax.Array, "2 2"]]:
    """C(θ) of the random shift at θ = (x, y): the outer product of s(h'y, h).

    Give it to `noise.Anisotropic` to run SGD with this noise on `landscape(½h(x)y²)`.

    >>> import numpy as np
    >>> covariance = shift_noise_covariance(lambda x: 1 + x**2, shift=0.5)
    >>> covariance(np.array([1.0, 0.0])).round(4)
    Array([[0., 0.],
           [0., 1.]], dtype=float32)
    """
    s = non_negative("shift", shift)

    def covariance(params):
        direction = s * jnp.stack(
            [jax.grad(curvature)(params[0]) * params[1], curvature(params[0])]
        )
        return jnp.outer(direction, direction)

    return covariance


def _value_and_slope(place: Float[Any, " 1"], curvature: Callable[[Any], Any]) -> tuple[Any, Any]:
    return jax.value_and_grad(curvature)(place[0])
