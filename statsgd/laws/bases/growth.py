"""How fast a potential grows far out, which decides whether exp(−U) can be normalised."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

type Potential = Callable[[Float[Any, "n d"]], Float[Any, " n"]]

_AXES = 64  # dimensions up to which every axis is tried
_RANDOM = 32
_MOST = 1e30
_NEAR, _FAR = 30.0, 40.0  # log of the distances between which growth is measured


def slow_directions(growth: Float[Any, " directions"], dimension: int) -> list[str]:
    """The directions of `radial_growth`, signed axes or random ones, where it is not above d."""
    axes = range(dimension) if dimension <= _AXES else range(0)
    names = [f"{sign}{i}" for sign in "+-" for i in axes] + ["random"] * _RANDOM
    return [name for name, rate in zip(names, growth, strict=True) if not rate > dimension]


def radial_growth(potential: Potential, origin: Float[Any, " d"]) -> Float[Any, " directions"]:
    """dU/dlog|θ| far from `origin`, in each of several directions.

    exp(−U) is integrable only if this exceeds d in almost every direction. The axes are tried up
    to d = 64, and 32 fixed random directions: a necessary condition on these, not a proof.
    Growth beyond any dimension is cut at 10³⁰, which float32 holds.
    """
    d = len(origin)
    directions = np.random.default_rng(0).standard_normal((_RANDOM, d))
    if d <= _AXES:
        directions = np.concatenate([np.eye(d), -np.eye(d), directions])
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    near = origin + np.exp(_NEAR) * directions
    far = origin + np.exp(_FAR) * directions
    with np.errstate(all="ignore"):
        values = potential(np.concatenate([near, far]))
        rise = values[len(near) :] - values[: len(near)]
    return np.where(np.isnan(rise), _MOST, np.minimum(rise / (_FAR - _NEAR), _MOST))
