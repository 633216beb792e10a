"""Several tests at once: p-values that keep the chance of any false alarm."""

from typing import Any

import numpy as np
from jaxtyping import Float

from statsgd.arguments import real


def holm(p_values: Float[Any, " k"]) -> Float[Any, " k"]:
    """Holm's adjusted p-values: reject where they are at most α.

    The chance of one or more false rejections is then at most α, however the tests depend on one
    another. Raises `ValueError` for values outside [0, 1]. Source: Holm (1979).

    >>> import numpy as np
    >>> holm(np.array([0.01, 0.04])).tolist()
    [0.02, 0.04]
    """
    p = real("p_values", p_values, allowed="in [0, 1]", valid=lambda v: (v >= 0) & (v <= 1))
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    result = np.empty(p.size)
    result[order] = np.minimum(adjusted, 1.0)
    return result
