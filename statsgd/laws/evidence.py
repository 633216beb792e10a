"""What tests of a law look at together: its draws, where they lie, and its density there."""

import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from statsgd.arguments import count, random_seed
from statsgd.laws.law import ImproperLawError, IntractableError, Law

_POINTS = 8  # draws at which densities are looked at: one of `precision.BATCHES`


class DoesNotApply(Exception):
    """A test that has nothing to compare for this law; the message is the reason."""


class Evidence:
    """A law with the draws that several tests look at."""

    def __init__(self, law: Law, *, draws: int = 40_000, seed: int = 0):
        self.law = law
        self.number = count("draws", draws, at_least=1000)
        self.seed = random_seed(seed)

    @functools.cached_property
    def drawn(self) -> dict[str, Float[np.ndarray, "..."]]:
        """Exact draws of every variable in two rows, of shape `(*rows, d)` if all is well."""
        if not self.law.exact_draws:
            raise DoesNotApply("the law has no exact draws")
        drawn = self.law.draw_variables(jax.random.key(self.seed), self.rows)
        return {name: np.asarray(values, dtype=np.float64) for name, values in drawn.items()}

    @property
    def rows(self) -> tuple[int, int]:
        """The shape in which draws are asked for."""
        return 2, -(-self.number // 2)

    @functools.cached_property
    def variables(self) -> dict[str, Float[np.ndarray, "n d"]]:
        """The draws as a list, in float64."""
        each = {name: values.reshape(-1, values.shape[-1]) for name, values in self.drawn.items()}
        return {name: values[: self.number] for name, values in each.items()}

    @functools.cached_property
    def scale(self) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
        """A centre and a width of every parameter: of draws, else of moments, else 0 and 1."""
        try:
            low, middle, high = np.quantile(self.variables["params"], [0.25, 0.5, 0.75], axis=0)
            return middle, np.maximum(high - low, 1e-12)
        except DoesNotApply:
            pass
        try:
            spread = np.sqrt(np.diagonal(np.asarray(self.law.covariance(), dtype=np.float64)))
            return np.asarray(self.law.mean(), dtype=np.float64), spread
        except IntractableError:
            return np.zeros(self.law.dimension), np.ones(self.law.dimension)

    @functools.cached_property
    def points(self) -> Float[np.ndarray, "n d"]:
        """A few points where the law has mass."""
        try:
            return self.variables["params"][:_POINTS]
        except DoesNotApply:
            middle, width = self.scale
            rng = np.random.default_rng(self.seed)
            points = middle + width * rng.normal(size=(8 * _POINTS, self.law.dimension))
            inside = np.isfinite(np.asarray(self.law.log_density(points)))
            return points[inside][:_POINTS]

    @functools.cached_property
    def density(self) -> Any:
        """log p at `points`."""
        try:
            return np.asarray(self.law.log_density(self.points))
        except (IntractableError, ImproperLawError) as refusal:
            raise DoesNotApply(f"the law has no density: {refusal}") from None
