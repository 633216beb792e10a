"""The wells of a law: where chains start, and between which they must move."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from statsgd.arguments import count, kinds_checked, positive, random_seed
from statsgd.laws import Law

_SAME = 1e-3  # minima closer than this, relative to the reach of the search, are one


@kinds_checked
def find_wells(
    law: Law, *, seed: int, attempts: int = 48, reach: float = 4.0
) -> Float[Any, "wells d"]:
    """Local maxima of a law's density, the highest first, by descents from random points.

    Starts are normal with standard deviations log-uniform between `reach`/64 and `reach`, in the
    unit of the parameters. A well that no descent ends in is missed: more `attempts` miss fewer.
    Raises `ValueError` if no descent ends where the density is finite.

    >>> from statsgd import laws, problems
    >>> find_wells(laws.Gibbs(problems.quartic_wells(), 0.1), seed=0).round(3).tolist()
    [[1.0], [-1.0]]
    """
    count("attempts", attempts)
    positive("reach", reach)
    rng = np.random.default_rng(random_seed(seed))
    scales = reach * 64.0 ** -rng.uniform(size=(attempts, 1))
    starts = scales * rng.normal(size=(attempts, law.dimension))
    found: list[tuple[float, np.ndarray]] = []
    with jax.enable_x64(True):
        for start in starts:
            end = minimize(
                lambda x: [np.asarray(part, float) for part in _descent(law, jnp.asarray(x))],
                start,
                jac=True,
                method="L-BFGS-B",
                options={"gtol": 1e-8, "ftol": 1e-14},
            )
            if np.isfinite(end.fun) and np.all(np.isfinite(end.x)):
                found.append((float(end.fun), end.x))
    wells: list[np.ndarray] = []
    for _, x in sorted(found, key=lambda pair: pair[0]):
        if all(np.linalg.norm(x - well) > _SAME * reach for well in wells):
            wells.append(x)
    if not wells:
        raise ValueError(
            f"reach = {reach:g} leads nowhere: the density of {type(law).__name__} is zero or "
            "undefined at all starting points"
        )
    return np.stack(wells)


@eqx.filter_jit
def _descent(law: Law, x: Float[Any, " d"]) -> tuple[Any, Any]:
    return jax.value_and_grad(lambda at: -law.log_density(at))(x)
