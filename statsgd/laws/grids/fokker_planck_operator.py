"""The Fokker–Planck operator on a grid: a jump process between cells with the same drift and D."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from statsgd.laws.grids.grid import Grid

# Beyond this drift over diffusion, per cell, a direction is advected by upwind jumps alone.
_PECLET_LIMIT = 500.0


class LatticeDecomposition(NamedTuple):
    """D = Σ_k weights_k v_k v_kᵀ with integer vectors v_k and weights ≥ 0, for many D at once."""

    weights: Float[Any, "n k"]
    vectors: Int[Any, "n k d"]


def fokker_planck_generator(
    grid: Grid, drift: Float[Any, "n d"], diffusion: Float[Any, "n d d"]
) -> sparse.csr_array:
    """Jump rates Q between cells, `Q[i, j]` from cell i to j, with rows that sum to zero.

    ∂ₜp = −∇·(b p) + ∂ᵢ∂ⱼ(Dᵢⱼ p) becomes ∂ₜp = Qᵀp. In cell units D = Σ_k a_k v_k v_kᵀ with integer
    v_k and a_k ≥ 0 (Selling's algorithm), and between x and y = x + v_k the rates are

        x → y: a_k(x) B(−w),    y → x: a_k(y) B(w),    B(w) = w/(eʷ − 1)

    with w the mean over both ends of v_k·D⁻¹b. All rates are non-negative, so p stays positive and
    mass is conserved, for any symmetric D, cross terms included; no rule that uses neighbours along
    the axes alone can have this. In 1-D it is the Scharfetter–Gummel flux, whose zero-flux law is
    exact but for the trapezoidal rule in ∫b/D; D p is continuous where D jumps, as Itô has it. The
    local error is of second order in |v_k| times the spacing.

    Where D is singular: the part of the drift that D cannot carry moves by upwind jumps along the
    axes, with the numerical diffusion |b|·spacing/2 (first order). A non-diagonal D whose smallest
    eigenvalue is below 1/n of the largest, n cells an axis, has it raised to that (first order), so
    that jumps reach at most about √n cells. Jumps out of the box are dropped: zero flux.

    Source: Scharfetter, Gummel (1969); Fehrenbach, Mirebeau (2014), arXiv:1301.3925, for the
    decomposition; their combination in Itô form is derived.
    """
    spacing = grid.spacing
    b = drift / spacing
    d_cells = _limit_anisotropy(diffusion / (spacing[:, None] * spacing), min(grid.cells))
    score, rest = _carry(d_cells, b)
    weights, vectors = selling_decomposition(d_cells)
    index = np.stack(np.unravel_index(np.arange(grid.size), grid.cells), axis=-1)
    rows, columns, rates = [], [], []
    for k in range(weights.shape[1]):
        for sign in (1, -1):
            jump = sign * vectors[:, k]
            target, inside = _neighbour(grid, index, jump)
            use = np.flatnonzero(inside & (weights[:, k] > 0))
            to = target[use]
            v = jump[use]
            w = 0.5 * np.sum(v * (score[use] + score[to]), axis=1)
            rows.append(use)
            columns.append(to)
            rates.append(weights[use, k] * bernoulli(-w))
    for axis in range(grid.dimension):
        jump = np.zeros_like(index)
        jump[:, axis] = np.sign(rest[:, axis]).astype(int)
        target, inside = _neighbour(grid, index, jump)
        use = np.flatnonzero(inside & (jump[:, axis] != 0))
        rows.append(use)
        columns.append(target[use])
        rates.append(np.abs(rest[use, axis]))
    entries = (np.concatenate(rates), (np.concatenate(rows), np.concatenate(columns)))
    jumps = sparse.csr_array(entries, shape=(grid.size, grid.size))
    jumps.sum_duplicates()
    return (jumps - sparse.diags_array(jumps.sum(axis=1))).tocsr()


def bernoulli(w: Float[Any, " n"]) -> Float[Any, " n"]:
    """w/(eʷ − 1), which is 1 at w = 0 and −w for w → −∞."""
    small = np.abs(w) < 1e-8
    safe = np.where(small, 1.0, np.clip(w, -1e300, 700.0))
    return np.where(small, 1 - w / 2, safe / np.expm1(safe))


def selling_decomposition(matrices: Float[Any, "n d d"]) -> LatticeDecomposition:
    """Integer vectors v_k and weights a_k ≥ 0 with D = Σ a_k v_k v_kᵀ, for d ≤ 3.

    Diagonal matrices get the axes. Others get the d(d+1)/2 vectors of an obtuse superbase of ℤᵈ.
    """
    number, d = matrices.shape[:2]
    if d == 1:
        return LatticeDecomposition(matrices[:, :, 0], np.ones((number, 1, 1), dtype=int))
    base = np.concatenate([-np.ones((1, d), dtype=int), np.eye(d, dtype=int)])
    bases = np.repeat(base[None], number, axis=0)
    pairs = [(i, j) for i in range(d + 1) for j in range(i + 1, d + 1)]
    floor = 1e-12 * np.trace(matrices, axis1=1, axis2=2)
    active = np.arange(number)
    while len(active):
        changed = np.zeros(len(active), dtype=bool)
        for i, j in pairs:
            current, matrix = bases[active], matrices[active]
            product = np.einsum("ni,nij,nj->n", current[:, i], matrix, current[:, j])
            acute = (product > floor[active]) & ~changed
            if np.any(acute):
                bases[active[acute]] = _reflect(current[acute], i, j)
                changed |= acute
        active = active[changed]
    weights, vectors = [], []
    for i, j in pairs:
        products = np.einsum("ni,nij,nj->n", bases[:, i], matrices, bases[:, j])
        weights.append(np.maximum(-products, 0.0))
        others = [bases[:, k] for k in range(d + 1) if k not in (i, j)]
        if d == 2:
            vectors.append(np.stack([-others[0][:, 1], others[0][:, 0]], axis=1))
        else:
            vectors.append(np.cross(others[0], others[1]))
    return LatticeDecomposition(np.stack(weights, axis=1), np.stack(vectors, axis=1))


def _reflect(bases: np.ndarray, i: int, j: int) -> np.ndarray:
    """The superbase after Selling's step on the pair (i, j) with a positive product."""
    new = bases.copy()
    new[:, i] = -bases[:, i]
    others = [k for k in range(bases.shape[1]) if k not in (i, j)]
    if len(others) == 1:
        new[:, others[0]] = bases[:, i] - bases[:, j]
    else:
        for k in others:
            new[:, k] = bases[:, k] + bases[:, i]
    return new


def _limit_anisotropy(matrices: np.ndarray, cells: int) -> np.ndarray:
    d = matrices.shape[-1]
    off = np.any(np.abs(matrices * (1 - np.eye(d))) > 0, axis=(1, 2))
    if not np.any(off):
        return matrices
    values, vectors = np.linalg.eigh(matrices[off])
    values = np.maximum(values, values[:, -1:] / cells)
    limited = matrices.copy()
    limited[off] = np.einsum("nij,nj,nkj->nik", vectors, values, vectors)
    return limited


def _carry(diffusion: np.ndarray, drift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """β = D⁻¹b and what is left of b where D is too weak to carry it."""
    values, vectors = np.linalg.eigh(diffusion)
    along = np.einsum("nij,ni->nj", vectors, drift)
    least = np.maximum(np.abs(along) / _PECLET_LIMIT, np.finfo(float).tiny)
    score = np.where(values > 0, along / np.maximum(values, least), 0.0)
    left = along - np.maximum(values, 0) * score
    left[np.abs(left) < 1e-12 * np.abs(along)] = 0.0
    back = vectors.transpose(0, 2, 1)
    return np.einsum("nj,nji->ni", score, back), np.einsum("nj,nji->ni", left, back)


def _neighbour(grid: Grid, index: np.ndarray, jump: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat index of the cell a jump away, and whether it exists."""
    target = index + jump
    cells = np.array(grid.cells)
    inside = np.all(np.where(grid.periodic, True, (target >= 0) & (target < cells)), axis=1)
    return np.ravel_multi_index(tuple((target % cells).T), grid.cells), inside
