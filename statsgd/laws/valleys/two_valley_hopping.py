"""Hopping between two valleys: passage times, rates, and the exact law of the chain."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh_tridiagonal, solve_banded
from scipy.special import erfi, log_ndtr

from statsgd.arguments import count, one_of, positive
from statsgd.laws.law import ImproperLawError
from statsgd.laws.valleys.two_valley import TwoValleyLaw, Wells


class TwoValleyHopping:
    """Rates between the wells of a `TwoValleyLaw`, per unit time t = ηk of the SDE.

    From the bottom of a well to the ridge, with v the well's variance and z² = g²/(8v),

        τ = (1/D) ∫₀^{g/2} e^{U/D} ∫_x^∞ e^{−U/D},     ≈ (π/2) f erfi(z)  (deep wells)

    A walker on the ridge is not yet across: it settles in the flat well with probability c₊, so
    k(flat→sharp) = c₋/τ_flat and k(sharp→flat) = c₊/τ_sharp, whose sum is the relaxation rate λ₁
    within 3 % for z² above about 2. Below there are no two states; λ₁ itself stays right.

    Source: Yang et al., arXiv:2601.10962, for τ; the commitment and λ₁ are derived.
    """

    def __init__(self, law: TwoValleyLaw):
        law.require_proper()
        self.law = law

    @property
    def wells(self) -> Wells:
        """Geometry and diffusion of both wells."""
        return self.law.wells

    def passage_times(self, form: str = "exact") -> Float[Any, "2"]:
        """Mean times (flat, sharp) from the bottom to the ridge.

        `form` is `"exact"`, `"erfi"` (published closed form) or `"asymptotic"` (its leading term).
        """
        one_of("form", form, ("exact", "erfi", "asymptotic"))
        wells = self.wells
        z = np.sqrt(wells.barrier_height)
        if form == "erfi":
            return np.pi / 2 * wells.flatness * erfi(z)
        if form == "asymptotic":
            rate = np.sqrt(2 * wells.barrier / (np.pi * wells.variance * wells.flatness))
            return np.exp(z**2) / rate
        # U/D = u²/2 − z² with u = (x − g/2)/√v, so the inner integral is a normal tail.
        nodes, weights = np.polynomial.legendre.leggauss(200)
        depth = np.sqrt(2) * z
        u = -depth[:, None] * (1 + nodes) / 2
        integrand = np.exp(u**2 / 2 + log_ndtr(-u))
        return wells.flatness / 2 * np.sqrt(2 * np.pi) * depth / 2 * (integrand @ weights)

    def rates(self) -> Float[Any, "2"]:
        """(k(flat→sharp), k(sharp→flat)) with commitment."""
        return self.wells.commitment[::-1] / self.passage_times()

    def relaxation_rate(self, cells: int = 4000) -> float:
        """λ₁, the first non-zero eigenvalue of the Fokker–Planck operator, by finite volumes."""
        wells = self.wells
        edges = _edges(wells, count("cells", cells))
        x, step = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
        lowest = float(np.min(_potential(wells, x)))
        weight = np.exp(lowest - _potential(wells, x)) / np.where(
            x > 0, wells.diffusion[0], wells.diffusion[1]
        )
        conductance = np.exp(lowest - _potential(wells, edges[1:-1])) / step**2
        diagonal = np.zeros(len(x))
        diagonal[:-1] += conductance
        diagonal[1:] += conductance
        root = np.sqrt(weight)
        values = eigh_tridiagonal(
            diagonal / weight,
            -conductance / (root[1:] * root[:-1]),
            eigvals_only=True,
            select="i",
            select_range=(0, 1),
        )
        return float(values[1])

    def exact_rates(self) -> Float[Any, "2"]:
        """(λ₁(1 − P_flat), λ₁P_flat) with the Itô P_flat of the law."""
        relaxation, flat = self.relaxation_rate(), float(self.law.flat_probability())
        return relaxation * np.array([1 - flat, flat])


class ChainLaw(NamedTuple):
    """The stationary law of the discrete chain across two valleys."""

    flat_probability: float
    """P(x > 0), extrapolated in the grid spacing."""
    nodes: Float[Any, " n"]
    probability: Float[Any, " n"]
    """Of each node, on the finer grid."""


def two_valley_chain_law(law: TwoValleyLaw, learning_rate: Any, resolution: int = 8) -> ChainLaw:
    """The stationary law of x' ~ Normal(x − ηL'(x), 2ηD(x)), Gaussian noise, at any η.

    `law` gives the geometry and D (its reading and correction play no part); Δ_S stays fixed as η
    changes. The transition matrix lives on a uniform grid with the ridge midway between nodes;
    spacings of the smallest step deviation over n and 2n, n = `resolution`, extrapolate to an error
    of about 10⁻⁵ in P_flat.

    Raises `ImproperLawError` unless η < f₂. Source: derived.
    """
    eta, n = float(positive("learning_rate", learning_rate)), count("resolution", resolution)
    sharp = float(law.wells.flatness[1])
    if not eta < sharp:
        raise ImproperLawError(
            f"learning_rate = {eta:.6g} must be below f2 = {sharp:.6g}: the sharp valley is beyond "
            "its edge of stability"
        )
    coarse = _stationary_vector(law.wells, eta, n)
    nodes, probability = _stationary_vector(law.wells, eta, 2 * n)
    rough, fine = float(np.sum(coarse[1][coarse[0] > 0])), float(np.sum(probability[nodes > 0]))
    return ChainLaw((4 * fine - rough) / 3, nodes, probability)


def _stationary_vector(wells: Wells, eta: float, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, band = transition_band(wells, eta, resolution)
    width, size = band.shape[0] // 2, len(nodes)
    # (Pᵀ − I)π = 0 with π = 1 at the mode of the flat well; `band` holds P by rows of destination.
    system = band.copy()
    system[width] -= 1
    pinned = int(np.argmin(np.abs(nodes - float(wells.width[0]) / 2)))
    for offset in range(-width, width + 1):
        column = pinned + offset
        if 0 <= column < size:
            system[width - offset, column] = float(offset == 0)
    right = np.zeros(size)
    right[pinned] = 1.0
    vector = solve_banded((width, width), system, right)
    return nodes, vector / np.sum(vector)


def transition_band(
    wells: Wells, eta: float, resolution: int
) -> tuple[Float[Any, " n"], Float[Any, "b n"]]:
    """Grid and transition matrix of one step, as bands: entry [w + i − j, j] is P(j → i)."""
    deviation = np.sqrt(2 * eta * wells.diffusion)
    step = float(np.min(deviation)) / resolution
    span = _edges(wells, 2, eta)
    low, high = int(np.floor(span[0] / step)), int(np.ceil(span[-1] / step))
    nodes = (np.arange(low, high) + 0.5) * step
    flat = nodes > 0
    f = np.where(flat, wells.flatness[0], wells.flatness[1])
    bottom = np.where(flat, wells.width[0], -wells.width[1]) / 2
    mean = nodes - eta * 2 * (nodes - bottom) / f
    spread = np.where(flat, deviation[0], deviation[1])
    width = int(np.ceil((np.max(np.abs(mean - nodes)) + 8 * np.max(spread)) / step))
    offsets = np.arange(-width, width + 1)
    destination = nodes + offsets[:, None] * step
    band = np.exp(-(((destination - mean) / spread) ** 2) / 2)
    band[(destination < nodes[0] - step / 2) | (destination > nodes[-1] + step / 2)] = 0.0
    return nodes, band / np.sum(band, axis=0)


def committed_start(wells: Wells, offset: float) -> tuple[float, float]:
    """Fractions that settle in the flat well from x = +offset and from x = −offset."""
    plus, minus = (float(length) for length in wells.ridge_length)
    total = plus + minus
    from_flat = (minus + plus * (1 - np.exp(-offset / plus))) / total
    return from_flat, minus * np.exp(-offset / minus) / total


def _potential(wells: Wells, x: np.ndarray) -> np.ndarray:
    """U/D across the ridge."""
    (g1, g2), v = wells.width, wells.variance
    return np.where(x > 0, x * (x - g1) / (2 * v[0]), x * (x + g2) / (2 * v[1]))


def _edges(wells: Wells, cells: int, eta: float = 0.0) -> np.ndarray:
    """Edges of a uniform grid over both wells and nine deviations beyond, with an edge at zero."""
    v = wells.variance / (1 - eta / wells.flatness)
    low = float(wells.width[1] / 2 + 9 * np.sqrt(v[1]))
    high = float(wells.width[0] / 2 + 9 * np.sqrt(v[0]))
    step = (low + high) / cells
    return np.arange(-int(np.ceil(low / step)), int(np.ceil(high / step)) + 1) * step
