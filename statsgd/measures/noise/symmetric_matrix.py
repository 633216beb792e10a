"""A symmetric matrix by its entries, its diagonal or its products with vectors."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from statsgd.arguments import finite_array, symmetric
from statsgd.estimate import Estimate
from statsgd.problems import DENSE_LIMIT

_DEGENERATE = 1e-9  # relative distance at which eigenvalues count as one
_SAME = 1e-8  # less than this off one is the cosine of what Lanczos finds twice
_DEPTH, _RESTARTS = 64, 40  # of a Lanczos iteration
_RESIDUAL = 1e-9  # of an eigenvalue, at which its vector is found
_STARTS = 24  # of Lanczos iterations in an eigenspace of the sharpest direction
_MOST_FORMS = 64  # of a matrix along axes, before random vectors take their place


class TopEigenpair(NamedTuple):
    """The largest eigenvalue, and unit vectors of its eigenspace."""

    value: float
    vectors: Float[Any, "d k"]
    whole: bool
    """Whether the vectors span the eigenspace; otherwise they are random ones in it."""


class SymmetricMatrix(NamedTuple):
    """As far as it is known: dense, as a diagonal, or by products alone."""

    dimension: int
    times: Callable[[Float[Any, "d k"]], Float[Any, "d k"]]
    """A V."""
    matrix: Float[Any, "d d"] | None = None
    diagonal: Float[Any, " d"] | None = None
    """Where there is nothing beside it."""

    @classmethod
    def of(cls, name: str, value: Any, *, dimension: int | None = None, semi: bool = False) -> Self:
        """From what the user gave as the argument `name`; `semi`: positive semi-definite."""
        if isinstance(value, LinearOperator):
            found = cls(value.shape[0], lambda v: np.asarray(value @ v, dtype=np.float64))
        elif np.ndim(value) == 1:
            entries = np.asarray(finite_array(name, value, ndim=1), dtype=np.float64)
            if semi and np.min(entries) < 0:
                raise ValueError(
                    f"{name} must be positive semi-definite, got smallest entry {entries.min():.6g}"
                )
            found = cls(len(entries), lambda v: entries[:, None] * v, diagonal=entries)
        else:
            matrix = symmetric(name, value, definite="semi" if semi else "")
            found = cls(len(matrix), lambda v: matrix @ v, matrix=matrix)
        if dimension is not None and found.dimension != dimension:
            raise ValueError(f"{name} must have {dimension} rows, got {found.dimension}")
        return found

    def trace(self) -> float | None:
        """Tr A; None where only products are known."""
        if self.diagonal is not None:
            return float(np.sum(self.diagonal))
        return None if self.matrix is None else float(np.trace(self.matrix))

    def top(self, rng: np.random.Generator) -> TopEigenpair:
        """The largest eigenvalue with its eigenspace, or random vectors of it."""
        if self.diagonal is not None:
            value = self.diagonal.max()
            places = np.flatnonzero(self.diagonal >= value - _DEGENERATE * abs(value))
            signs = np.zeros((self.dimension, min(len(places), _MOST_FORMS)))
            if len(places) <= _MOST_FORMS:
                signs[places, np.arange(len(places))] = 1.0
                return TopEigenpair(float(value), signs, True)
            signs[places] = rng.choice([-1.0, 1.0], size=(len(places), _MOST_FORMS))
            return TopEigenpair(float(value), signs / np.sqrt(len(places)), False)
        if self.matrix is not None and self.dimension <= DENSE_LIMIT:
            values, vectors = np.linalg.eigh(self.matrix)
            kept = values >= values[-1] * (1 - _DEGENERATE)
            return TopEigenpair(float(values[-1]), vectors[:, kept], True)
        # From one start Lanczos sees one vector of an eigenspace, uniformly drawn from it.
        first, second = (self._lanczos(rng) for _ in range(2))
        value = max(first[0], second[0])
        if abs(np.vdot(first[1], second[1])) > 1 - _SAME:
            return TopEigenpair(value, first[1][:, None], True)
        others = [self._lanczos(rng)[1] for _ in range(_STARTS - 2)]
        return TopEigenpair(value, np.stack([first[1], second[1], *others], axis=1), False)

    def smallest(self) -> float:
        """The smallest eigenvalue; of products, and of large matrices, only a bound from above."""
        if self.diagonal is not None:
            return float(self.diagonal.min())
        if self.matrix is not None and self.dimension <= DENSE_LIMIT:
            return float(np.linalg.eigvalsh(self.matrix)[0])
        start = self._start(np.random.default_rng(2))
        try:
            found = eigsh(self._operator(), 1, which="SA", v0=start, tol=1e-3, maxiter=20)
        except ArpackNoConvergence:
            return np.inf  # then none stands out below the others
        return float(found[0][0])

    def mean_form(self, pair: TopEigenpair) -> Estimate:
        """uᵀAu on average over an eigenspace of another matrix."""
        forms = np.sum(pair.vectors * self.times(pair.vectors), axis=0)
        if pair.whole:
            return Estimate(float(np.mean(forms)), 0.0)
        error = forms.std(ddof=1) / np.sqrt(len(forms))
        return Estimate(float(np.mean(forms)), float(error), len(forms))

    def _lanczos(self, rng: np.random.Generator) -> tuple[float, Float[Any, " d"]]:
        """The largest eigenvalue, and the share of a random vector in its eigenspace."""
        vector = self._start(rng)
        for _ in range(_RESTARTS):
            value, vector, residual = self._krylov(vector / np.linalg.norm(vector))
            if residual <= _RESIDUAL * abs(value):
                return value, vector
        raise ValueError(
            "the sharpest direction of hessian must stand out, got a residual of "
            f"{residual / abs(value):.2g} of its eigenvalue after {_RESTARTS * _DEPTH} products"
        )

    def _krylov(self, start: Float[Any, " d"]) -> tuple[float, Float[Any, " d"], float]:
        """The largest Ritz pair, and |Av − λv|; ARPACK would leave the space of `start`."""
        basis, alpha, beta = [start], [], []
        for _ in range(min(_DEPTH, self.dimension)):
            rows = np.stack(basis)
            after = self.times(basis[-1][:, None])[:, 0]
            alpha.append(float(after @ basis[-1]))
            for _ in range(2):  # once more: rounding would let found directions in again
                after = after - rows.T @ (rows @ after)
            beta.append(float(np.linalg.norm(after)))
            if beta[-1] <= _RESIDUAL / 100 * np.max(np.abs(alpha)):
                break
            basis.append(after / beta[-1])
        values, vectors = eigh_tridiagonal(np.array(alpha), np.array(beta[:-1]))
        found = np.stack(basis[: len(alpha)]).T @ vectors[:, -1]
        return float(values[-1]), found, beta[-1] * abs(vectors[-1, -1])

    def _operator(self) -> LinearOperator:
        size = (self.dimension, self.dimension)
        return LinearOperator(size, lambda v: self.times(v.reshape(-1, 1))[:, 0], dtype=np.float64)

    def _start(self, rng: np.random.Generator) -> Float[Any, " d"]:
        return rng.standard_normal(self.dimension)


def trace_of_product(one: SymmetricMatrix, other: SymmetricMatrix) -> float | None:
    """Tr(AB); None where one of them is known by products alone."""
    entries: list[Any] = [a.matrix if a.diagonal is None else a.diagonal for a in (one, other)]
    if entries[0] is None or entries[1] is None:
        return None
    if entries[0].ndim != entries[1].ndim:
        entries = [np.diagonal(e) if e.ndim == 2 else e for e in entries]
    return float(np.sum(entries[0] * entries[1]))
