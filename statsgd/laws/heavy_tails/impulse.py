"""What one gradient noise does to the parameters of heavy-ball SGD later on."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.signal import lfilter

from statsgd.arguments import count, fraction, told
from statsgd.laws.law import IntractableError

_LONGEST = 10**7


def impulse_response(
    reach: Any, momentum: Any = 0.0, *, steps: int | None = None, remainder: float = 1e-15
) -> Float[Any, "steps ..."]:
    """ψ_k, what is left of a unit gradient noise k steps ago, in units of −η.

        ψ_{k+1} = (1 + β − ηh)ψ_k − βψ_{k−1},     ψ_{−1} = 0, ψ_0 = 1

    **Arguments:** `reach` ηh, a number or one for each mode, in (0, 2(1+β)); `momentum` β;
    `steps`, by default as many as leave the share `remainder` of the first. Raises
    `ValueError` for another reach, `IntractableError` where that takes more than 10⁷. Source:
    derived.

    >>> impulse_response(0.5, steps=4)
    array([1.   , 0.5  , 0.25 , 0.125])
    """
    rates = np.asarray(reach, dtype=np.float64)
    beta = float(fraction("momentum", momentum))
    flat = rates.reshape(-1)
    if not np.all((flat > 0) & (flat < 2 * (1 + beta))):
        raise ValueError(f"reach must be in (0, {2 * (1 + beta):g}), got {told(reach)}")
    if steps is None:
        needed = np.log(remainder) / np.log(max(float(np.max(slowest_root(flat, beta))), 1e-12))
        if not needed < _LONGEST:
            raise IntractableError(
                f"the response to one noise lasts {needed:.2g} steps, more than {_LONGEST:.0e}: "
                f"learning_rate*h = {float(np.min(flat)):.3g} is too small"
            )
        steps = int(needed) + 2
    pulse = np.zeros(count("steps", steps))
    pulse[0] = 1.0
    found = [lfilter([1.0], [1.0, -(1 + beta - one), beta], pulse) for one in flat]
    return np.stack(found, axis=-1).reshape(steps, *rates.shape)


def slowest_root(reach: Float[Any, " n"], momentum: float) -> Float[Any, " n"]:
    """The larger root modulus of z² − (1 + β − ηh)z + β, which a step multiplies ψ by."""
    trace = 1 + momentum - reach
    root = np.sqrt(trace.astype(complex) ** 2 - 4 * momentum)
    return np.maximum(np.abs(trace + root), np.abs(trace - root)) / 2


def response_size(reach: Any, momentum: Any, alpha: float) -> Float[Any, "..."]:
    """(Σ_k |ψ_k|^α)^(1/α), the scale of the law in units of ηs, for each mode alone.

    (1 − |1−ηh|^α)^(−1/α) without momentum. Source: derived.
    """
    rates = np.asarray(reach, dtype=np.float64)
    if float(momentum) == 0:
        # 1 − |1−ηh|^α = −expm1(α log|1−ηh|), without cancellation for small steps.
        kept = np.log(np.maximum(np.abs(1 - rates), 1e-300))
        log_kept = np.where(rates < 0.5, np.log1p(-np.minimum(rates, 0.5)), kept)
        return (-np.expm1(alpha * log_kept)) ** (-1 / alpha)
    remainder = 1e-16 ** (1 / min(alpha, 1.0))
    modes = [
        np.sum(np.abs(impulse_response(one, momentum, remainder=remainder)) ** alpha)
        for one in rates.reshape(-1)
    ]
    return np.array(modes).reshape(rates.shape) ** (1 / alpha)
