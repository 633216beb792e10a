"""Hopping between two valleys: passage times, rates, and the exact law of the chain."""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float
from scipy.linalg import solve_banded
from scipy.special import erfi, log_ndtr, ndtr

from statsgd.arguments import count, one_of, positive
from statsgd.laws.bases.nested import log_integral
from statsgd.laws.bases.slowest_rate import slowest_rate
from statsgd.laws.law import ImproperLawError, require_accurate
from statsgd.laws.valleys.two_valley import TwoValleyLaw, Wells


class TwoValleyHopping:
    """Rates between the wells of a `TwoValleyLaw`, per unit time t = ηk of the SDE.

    From the bottom of a well to the ridge, with v the well's variance and z² = g²/(8v),

        τ = (1/D) ∫₀^{g/2} e^{U/D} ∫_x^∞ e^{−U/D},     ≈ (π/2) f erfi(z)  (deep wells)

    A walker on the ridge is not yet across: it settles in the flat well with probability c₊, so
    k(flat→sharp) = c₋/τ_flat and k(sharp→flat) = c₊/τ_sharp, whose sum is the relaxation rate λ₁
    within 3 % for z² above about 2. Below there are no two states; λ₁ itself stays right.

    Source: Yang et al., arXiv:2601.10962, for τ; the commitment and λ₁ are derived.

    >>> from statsgd.problems import TwoValleyLandscape
    >>> hopping = TwoValleyHopping(TwoValleyLaw(TwoValleyLandscape(), along=5.0, noise_level=1e-3))
    >>> to_sharp, to_flat = hopping.rates()
    >>> bool(to_sharp < to_flat)
    True
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
        Raises `IntractableError` where the exact time overflows, above some 700 temperatures.
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
        integrals = [
            log_integral(lambda u: u**2 / 2 + log_ndtr(-u), -depth, 0.0).number("passage time")
            for depth in np.sqrt(2) * z
        ]
        return wells.flatness / 2 * np.sqrt(2 * np.pi) * np.array(integrals)

    def rates(self) -> Float[Any, "2"]:
        """(k(flat→sharp), k(sharp→flat)) with commitment."""
        return self.wells.commitment[::-1] / self.passage_times()

    def relaxation_rate(self, cells: int = 4000) -> float:
        """λ₁, the first non-zero eigenvalue of the Fokker–Planck operator (`slowest_rate`).

        Warns with `UnresolvedWarning` where the error of the grid is above 10⁻³, and raises
        `IntractableError` where it is above a tenth.
        """
        wells = self.wells
        # Finest at the ridge, where the potential has its kink: x = δ sinh t, with a knot at zero
        # also of the coarser grid.
        ridge = float(np.min(wells.ridge_length))
        left, right = (float(np.arcsinh(reach / ridge)) for reach in _span(wells))
        step = (left + right) / count("cells", cells)
        t = np.arange(-2 * np.ceil(left / step / 2), 2 * np.ceil(right / step / 2) + 1) * step
        x, stretch = ridge * np.sinh(t), ridge * np.cosh(t)
        below, above, density = _ito_law(wells, x)
        with np.errstate(all="ignore"):
            resistance = stretch**2 / (np.where(x > 0, *wells.diffusion) * density * stretch)
        rate, error = slowest_rate(below, above, resistance, density * stretch, step)
        require_accurate("relaxation rate", error)
        return rate

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
    error: float
    """Of `flat_probability`, at most: what extrapolation added."""


def two_valley_chain_law(law: TwoValleyLaw, learning_rate: Any, resolution: int = 8) -> ChainLaw:
    """The stationary law of x' ~ Normal(x − ηL'(x), 2ηD(x)), Gaussian noise, at any η.

    `law` gives the geometry and D (its reading and correction play no part); Δ_S stays fixed as η
    changes. The transition matrix lives on a uniform grid with the ridge midway between nodes;
    spacings of the smallest step deviation over n and 2n, n = `resolution`, extrapolate to an error
    of about 10⁻⁵ in P_flat. Warns with `UnresolvedWarning` where it may be above 10⁻³.

    Raises `ImproperLawError` unless η < f₂. Source: derived.

    >>> from statsgd.problems import TwoValleyLandscape
    >>> law = TwoValleyLaw(TwoValleyLandscape(), along=5.0, noise_level=1e-3)
    >>> found = two_valley_chain_law(law, learning_rate=0.01)
    >>> round(float(found.flat_probability), 3), float(law.flat_probability().round(3))
    (0.923, 0.933)
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
    error = abs(fine - rough) / 3
    require_accurate("probability of the flat valley", error)
    return ChainLaw((4 * fine - rough) / 3, nodes, probability, error)


def _stationary_vector(wells: Wells, eta: float, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    step = float(np.min(np.sqrt(2 * eta * wells.diffusion))) / resolution
    low, high = _span(wells, eta)
    nodes = (np.arange(-np.ceil(low / step), np.ceil(high / step)) + 0.5) * step
    entries, size = transition_matrix(wells, eta, nodes).tocoo(), len(nodes)
    # (P − I)π = 0 with π = 1 at the mode of the flat well, by bands: entry (i, j) in row w + i − j.
    band = entries.row - entries.col
    width = int(np.max(np.abs(band)))
    system = np.zeros((2 * width + 1, size))
    system[width + band, entries.col] = entries.data
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


def transition_matrix(wells: Wells, eta: float, nodes: Float[Any, " n"]) -> scipy.sparse.csr_array:
    """P(j → i) of one step on a uniform grid, in row i and column j.

    Noise beyond eight deviations is left out.
    """
    flat, step = nodes > 0, nodes[1] - nodes[0]
    f = np.where(flat, wells.flatness[0], wells.flatness[1])
    bottom = np.where(flat, wells.width[0], -wells.width[1]) / 2
    spread = np.sqrt(2 * eta * np.where(flat, wells.diffusion[0], wells.diffusion[1]))
    mean = nodes - 2 * eta * (nodes - bottom) / f
    width = int(np.ceil(8 * np.max(spread) / step))
    centre = np.rint((mean - nodes[0]) / step).astype(int)
    rows = centre + np.arange(-width, width + 1)[:, None]
    weight = np.exp(-((((nodes[0] + rows * step) - mean) / spread) ** 2) / 2)
    weight[(rows < 0) | (rows >= len(nodes))] = 0.0
    weight /= np.sum(weight, axis=0)
    columns = np.broadcast_to(np.arange(len(nodes)), rows.shape)
    entries = (weight.ravel(), (np.clip(rows, 0, len(nodes) - 1).ravel(), columns.ravel()))
    return scipy.sparse.coo_array(entries, shape=(len(nodes), len(nodes))).tocsr()


def committed_start(wells: Wells, offset: float) -> tuple[float, float]:
    """Fractions that settle in the flat well from x = +offset and from x = −offset."""
    plus, minus = (float(length) for length in wells.ridge_length)
    total = plus + minus
    from_flat = (minus + plus * (1 - np.exp(-offset / plus))) / total
    return from_flat, minus * np.exp(-offset / minus) / total


def _ito_law(wells: Wells, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities below and above x, and the density ∝ e^(−U/D)/D, with digits in every tail."""
    centre, scale = wells.width / 2, np.sqrt(wells.variance)
    depth = centre / scale
    logs = depth**2 / 2 + np.log(np.sqrt(2 * np.pi) * scale / wells.diffusion)
    whole = np.exp(logs - np.max(logs))
    # In deviations of the well that x is in, from its bottom and away from the ridge.
    side = np.where(x > 0, 0, 1)
    out = (np.abs(x) - centre[side]) / scale[side]
    beyond = whole[side] * ndtr(-out)
    before = whole[side] * (ndtr(out) - ndtr(-depth[side])) + (whole * ndtr(depth))[1 - side]
    total = np.sum(whole * ndtr(depth))
    density = whole[side] * np.exp(-(out**2) / 2) / (np.sqrt(2 * np.pi) * scale[side])
    below, above = np.where(x > 0, before, beyond), np.where(x > 0, beyond, before)
    return below / total, above / total, density / total


def _span(wells: Wells, eta: float = 0.0) -> tuple[float, float]:
    """How far mass lies below and above the ridge: nine deviations beyond the wells."""
    v = wells.variance / (1 - eta / wells.flatness)
    high, low = (float(reach) for reach in wells.width / 2 + 9 * np.sqrt(v))
    return low, high
