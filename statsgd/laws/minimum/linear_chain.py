"""Chains z ← z* + A(z − z*) + Bξ with white noise: what they do on the way and on average."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from statsgd.arguments import count, finite_array, fraction, symmetric
from statsgd.laws.bases.gaussian import GaussianLaw, NormalLaw


class LinearChain(NamedTuple):
    """A chain of states z of length `size`, the first d of them the parameters."""

    transition: Float[Any, "size size"]
    """A."""
    noise: Float[Any, "size size"]
    """B C Bᵀ, the covariance of one kick."""
    mean: Float[Any, " size"]
    """z*."""
    covariance: Float[Any, "size size"]
    """Of z, stationary."""
    first: tuple[Any, Any, Any] | None = None
    """A, B C Bᵀ and where z* goes in the first step from rest, where that is another one."""


class LinearChainLaw(NormalLaw):
    """The stationary law of a linear chain, which knows its past and its averages too."""

    @abc.abstractmethod
    def chain(self) -> LinearChain:
        """The chain that this is the law of."""

    def average(
        self, decay: Any = None, *, length: int | None = None, every: int = 1
    ) -> GaussianLaw:
        """The law of an average of iterates of the stationary chain.

        Either of the exponential one, y ← γy + (1−γ)θ with `decay` γ in [0, 1), or of the mean of
        `length` iterates that lie `every` steps apart (a tail average, and stochastic weight
        averaging). Long averages reach H⁻¹CH⁻¹/length, whatever the optimiser.

        Raises `ValueError` unless one of `decay` and `length` is given. Source: Polyak, Juditsky
        (1992) for the long average, Izmailov et al. (2018), arXiv:1803.05407; the rest is derived.
        """
        self.ensure_proper()
        if (decay is None) == (length is None):
            raise ValueError(f"give decay or length, got decay = {decay} and length = {length}")
        chain, d = self.chain(), self.dimension
        if length is None:
            gamma = float(fraction("decay", decay))
            # Cov(θ_n, θ_0) = Aⁿ P, summed over all pairs of times with their weights.
            later = gamma * chain.transition @ chain.covariance
            later = np.linalg.solve(np.eye(len(later)) - gamma * chain.transition, later)
            total = (chain.covariance + later + later.T) * (1 - gamma) / (1 + gamma)
        else:
            number = count("length", length)
            stride = np.linalg.matrix_power(chain.transition, count("every", every))
            later = _triangle(stride, number) @ chain.covariance
            total = (later + later.T - number * chain.covariance) / number**2
        return GaussianLaw(self.location, total[:d, :d])

    def autocovariance(self, lag: int) -> Float[Any, "d d"]:
        """Cov(θ_{n+lag}, θ_n) of the stationary chain, params², for lag ≥ 0.

        Without weight decay beside the gradients it sums to H⁻¹CH⁻¹ over all lags, whatever the
        optimiser. Source: derived.
        """
        self.ensure_proper()
        chain, d = self.chain(), self.dimension
        power = np.linalg.matrix_power(chain.transition, count("lag", lag, at_least=0))
        return (power @ chain.covariance)[:d, :d]

    def after(self, steps: int, *, mean: Any = None, covariance: Any = None) -> GaussianLaw:
        """The law of the parameters after `steps` steps from a start, whether or not it settles.

        **Arguments:** `mean` and `covariance` of the start: of the parameters, `(d,)` and
        `(d, d)`, with all buffers at zero as `simulate` starts them; or of the whole state (θ,
        buffers) of a run that goes on. By default a single point, the stationary mean.
        """
        d = self.dimension
        centre, spread = self.state_after(steps, mean=mean, covariance=covariance)
        return GaussianLaw(centre[:d], spread[:d, :d])

    def state_after(
        self, steps: int, *, mean: Any = None, covariance: Any = None
    ) -> tuple[Float[Any, " size"], Float[Any, "size size"]]:
        """Mean and covariance of the whole state (θ, buffers), as in `after`."""
        chain, number = self.chain(), count("steps", steps, at_least=0)
        d, size = self.dimension, len(chain.mean)
        centre = finite_array("mean", self.location if mean is None else mean, ndim=1)
        if len(centre) not in (d, size):
            raise ValueError(f"mean must have shape ({d},) or ({size},), got {centre.shape}")
        length = len(centre)
        if covariance is None:
            covariance = np.zeros((length, length))
        spread = symmetric("covariance", covariance, dimension=length, definite="semi")
        rest = (0, size - length)
        centre, spread = np.pad(centre, rest), np.pad(spread, (rest, rest))
        if number and chain.first is not None and length == d:
            transition, noise, image = chain.first
            centre = image + transition @ (centre - chain.mean)
            spread = transition @ spread @ transition.T + noise
            number -= 1
        power, gathered = _powers(chain.transition, chain.noise, number)
        return (
            chain.mean + power @ (centre - chain.mean),
            power @ spread @ power.T + gathered,
        )


def with_curvature(transition: Any, entry: Any, hessian: Any) -> Float[Any, "size size"]:
    """K + B H e₁ᵀ, the mean step of an optimiser on a quadratic."""
    whole = np.array(transition, dtype=np.float64)
    whole[:, : len(hessian)] += entry @ hessian
    return whole


def by_doubling(number: int, double: Callable, add_one: Callable, state: Any) -> Any:
    """`state` at `number`, from that at 0, by doubling and adding one."""
    for bit in f"{number:b}":
        state = double(state)
        if bit == "1":
            state = add_one(state)
    return state


def _powers(a: Any, noise: Any, number: int) -> tuple[Any, Any]:
    """A^number and Σ_{k<number} A^k N A^kᵀ."""
    zero = np.eye(len(a)), np.zeros_like(a)
    return by_doubling(
        number,
        lambda s: (s[0] @ s[0], s[1] + s[0] @ s[1] @ s[0].T),
        lambda s: (a @ s[0], noise + a @ s[1] @ a.T),
        zero,
    )


def _triangle(a: Any, number: int) -> Any:
    """Σ_{n<number} (number − n) Aⁿ, without the difference of nearly equal sums."""
    eye = np.eye(len(a))

    def double(state: Any) -> Any:
        length, power, row, total = state
        row, total = row + power @ row, total + length * row + power @ total
        return 2 * length, power @ power, row, total

    def add_one(state: Any) -> Any:
        length, power, row, total = state
        row = eye + a @ row
        return length + 1, a @ power, row, total + row

    return by_doubling(number, double, add_one, (0, eye, 0 * a, 0 * a))[3]
