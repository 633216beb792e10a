"""Markov processes on finitely many states: stationary law, slow modes, passage times."""

from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Complex, Float
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import (
    ArpackNoConvergence,
    LinearOperator,
    SuperLU,
    eigs,
    expm_multiply,
    gmres,
    splu,
)

from statsgd.laws.law import ImproperLawError, require_accurate

_STEPS = 200
_NODES, _SETTLED = (16, 24, 36, 54, 80, 120), 1e-7  # of a contour
_FEW, _MOST = 1e4, 1e6  # steps of a series
_SLOW = 8  # eigenvalues nearest to zero, among which the slowest is looked for


class Generator:
    """A generator G between n states: off-diagonal entries ≥ 0, rows that sum to zero.

    For a process in time, G holds jump rates; for a chain with transition matrix P, G = P − I. In
    both, the stationary law solves Gᵀp = 0 and mean passage times solve G m = −1.

    `direct` says whether G may be factorised (banded or few neighbours); otherwise Krylov methods
    are used, with relative residual 1e-10.
    """

    def __init__(self, matrix: sparse.csr_array, *, direct: bool):
        self.matrix = matrix
        self.direct = direct

    @cached_property
    def closed_classes(self) -> list[Bool[Any, " n"]]:
        """Sets of states that are connected and never left; the stationary law needs just one."""
        number, label = csgraph.connected_components(self.matrix, connection="strong")
        if number == 1:
            return [np.ones(len(label), dtype=bool)]
        entries = self.matrix.tocoo()
        moving = entries.data > 0
        crossing = label[entries.row] != label[entries.col]
        leaves = np.zeros(number, dtype=bool)
        leaves[label[entries.row[moving & crossing]]] = True
        return [label == k for k in np.flatnonzero(~leaves)]

    @cached_property
    def stationary(self) -> Float[Any, " n"]:
        """The stationary law; NaN where it is not unique."""
        n = self.matrix.shape[0]
        if len(self.closed_classes) != 1:
            return np.full(n, np.nan)
        if self._between_neighbours:
            return self._stationary_by_ratios()
        if not self.direct:
            return self._stationary_by_steps()
        masses = np.zeros(n)
        masses[self._pin] = 1.0
        source = -np.asarray(self.matrix[[self._pin], :].todense()).ravel()
        masses[self._others] = self._factor.solve(source[self._others])
        masses = np.maximum(masses, 0.0)
        return masses / masses.sum()

    @cached_property
    def weight_error(self) -> float:
        """Estimated relative error of the weights of wells, for `direct`: rounding over the gap.

        Beyond barriers of some 30 temperatures the weights are lost in double precision, unless
        states are connected to neighbours on a line alone: then none is.
        """
        if self._between_neighbours or not self.direct or len(self.closed_classes) != 1:
            return 0.0
        source = _start(self.matrix.shape[0])
        slow = np.abs(self._group_inverse(source)).sum() / np.abs(source).sum()
        return float(np.finfo(float).eps * np.max(-self.matrix.diagonal()) * slow)

    def require_unique(self) -> None:
        """Raise `ImproperLawError` unless one stationary law exists."""
        number = len(self.closed_classes)
        if number != 1:
            sizes = ", ".join(str(int(states.sum())) for states in self.closed_classes[:5])
            raise ImproperLawError(
                f"the stationary law is not unique: {number} > 1 sets of cells are never left "
                f"(sizes {sizes}): the noise vanishes there"
            )

    def second_eigenvalue(self) -> complex:
        """The eigenvalue of G nearest to zero after zero itself: the slowest mode; for `direct`.

        A process relaxes like exp(Re γ t). Of a chain 1 + γ is an eigenvalue of P.
        """
        self.require_unique()
        n = self.matrix.shape[0]
        operator = LinearOperator((n, n), matvec=self._group_inverse, dtype=np.float64)
        inverse = eigs(operator, k=1, which="LM", v0=_start(n), return_eigenvectors=False)
        return complex(1 / inverse[0])

    def slowest_eigenvalue(self) -> complex:
        """The eigenvalue of G of largest real part after zero, of those nearest to zero.

        One that turns may decay more slowly than others of smaller modulus. Those looked at are
        the eight of smallest modulus.
        """
        self.require_unique()
        n = self.matrix.shape[0]
        if n <= 3 * _SLOW:
            values = np.linalg.eigvals(self.matrix.toarray())
            values = np.delete(values, np.argmin(np.abs(values)))
            return complex(values[np.argmax(values.real)])
        operator = LinearOperator((n, n), matvec=self._group_inverse, dtype=np.float64)
        inverse = eigs(operator, k=_SLOW, which="LM", v0=_start(n), return_eigenvectors=False)
        values = 1 / inverse
        return complex(values[np.argmax(values.real)])

    def second_modulus(self) -> float:
        """For a chain G = P − I: the largest modulus of an eigenvalue of P after 1."""
        self.require_unique()
        n = self.matrix.shape[0]
        transposed = sparse.csr_array(self.matrix.T)
        stationary = self.stationary

        def deflated(vector: np.ndarray) -> np.ndarray:
            return vector + transposed @ vector - vector.sum() * stationary

        operator = LinearOperator((n, n), matvec=deflated, dtype=np.float64)
        krylov = min(n - 1, 60)
        try:
            values = eigs(
                operator, k=1, which="LM", v0=_start(n), ncv=krylov, return_eigenvectors=False
            )
        except ArpackNoConvergence:
            if self.direct:
                return abs(1 + self.second_eigenvalue())
            raise
        modulus = float(abs(values[0]))
        if self.direct and modulus > 1 - 1e-5:
            return abs(1 + self.second_eigenvalue())
        return modulus

    def mean_passage(self, target: Bool[Any, " n"]) -> Float[Any, " n"]:
        """Mean time (steps, for a chain) from every state until `target` is reached."""
        start = np.flatnonzero(~target)
        times = np.zeros(len(target))
        times[start] = self._solve_within(start, -np.ones(len(start)))
        return times

    def committor(self, target: Bool[Any, " n"], other: Bool[Any, " n"]) -> Float[Any, " n"]:
        """Probability, from every state, of reaching `target` before `other`."""
        inside = np.flatnonzero(~(target | other))
        probability = target.astype(float)
        source = -self.matrix[inside] @ probability
        probability[inside] = self._solve_within(inside, source)
        return probability

    def evolve(self, masses: Float[Any, " n"], time: float) -> Float[Any, " n"]:
        """exp(t Gᵀ) applied to `masses`.

        By Taylor's series up to 10⁴ of the fastest steps; beyond by quadrature of the inverse
        Laplace transform along a parabola around the spectrum (Weideman, Trefethen 2007), with half
        as many nodes again until these move no more than 10⁻⁷ of the mass. Where drift outweighs
        diffusion in a cell, or modes turn, this may not settle: then by the series up to 10⁶ steps,
        and above them `IntractableError`. Modes that have turned several times and not decayed may
        be outside of every contour, unseen: evolve in shorter times.
        """
        steps = time * float(np.max(-self.matrix.diagonal(), initial=0.0))
        if steps > _FEW:
            size = max(np.sum(np.abs(masses)), 1e-300)
            before = self._evolved(masses, time, _NODES[0])
            for nodes in _NODES[1:]:
                found = self._evolved(masses, time, nodes)
                change = np.sum(np.abs(found - before)) / size
                if change <= _SETTLED:
                    return found
                before = found
            if steps > _MOST:
                require_accurate("distribution after the time", change)
                return found
        return expm_multiply(time * sparse.csc_array(self.matrix.T), masses)

    def _evolved(self, masses: Float[Any, " n"], time: float, nodes: int) -> Float[Any, " n"]:
        n = self.matrix.shape[0]
        angle = np.pi * np.arange(1, nodes, 2) / nodes
        contour = nodes * (0.1309 - 0.1194 * angle**2 + 0.25j * angle)
        slope = nodes * (-2 * 0.1194 * angle + 0.25j)
        identity = sparse.eye_array(n, format="csc")
        transposed = sparse.csc_array(self.matrix.T)
        result = np.zeros(n)
        for z, dz in zip(contour, slope, strict=True):
            factor = _factorise((z / time) * identity - transposed)
            term: Complex[Any, " n"] = factor.solve(masses.astype(complex))
            result += 2 * np.real(np.exp(z) * dz * term / (1j * nodes * time))
        return result

    @cached_property
    def _pin(self) -> int:
        """A state with much mass, to be divided out of the singular system.

        A state of negligible mass would leave a singular system behind. The law after an
        exponential time of 10⁶ fast steps from a uniform start has found the wells.
        """
        closed = self.closed_classes[0]
        rate = 1e-6 * np.max(-self.matrix.diagonal())
        delayed = rate * sparse.eye_array(len(closed)) - self.matrix.T
        return int(np.argmax(_factorise(delayed).solve(closed / closed.sum())))

    @cached_property
    def _others(self) -> np.ndarray:
        return np.delete(np.arange(self.matrix.shape[0]), self._pin)

    @cached_property
    def _factor(self) -> SuperLU:
        return _factorise(self.matrix.T.tocsr()[self._others][:, self._others])

    def _group_inverse(self, vector: np.ndarray) -> np.ndarray:
        """The solution x of Gᵀx = vector less its stationary part, with Σx = 0."""
        balanced = vector - vector.sum() * self.stationary
        solution = np.zeros_like(balanced)
        solution[self._others] = self._factor.solve(balanced[self._others])
        return solution - solution.sum() * self.stationary

    @cached_property
    def _between_neighbours(self) -> bool:
        """Whether only neighbours on a line are connected, both ways."""
        n = self.matrix.shape[0]
        up, down = self.matrix.diagonal(1), self.matrix.diagonal(-1)
        connected = np.all(up > 0) and np.all(down > 0)
        return bool(connected and self.matrix.count_nonzero() <= 3 * n - 2)

    def _stationary_by_ratios(self) -> np.ndarray:
        """Detailed balance along a line: exact whatever the barriers are."""
        up, down = self.matrix.diagonal(1), self.matrix.diagonal(-1)
        logs = np.concatenate([[0.0], np.cumsum(np.log(up) - np.log(down))])
        masses = np.exp(logs - logs.max())
        return masses / masses.sum()

    def _solve_within(self, states: np.ndarray, source: np.ndarray) -> np.ndarray:
        inner = self.matrix[states][:, states]
        if self.direct:
            return _factorise(inner).solve(source)
        solution, failure = gmres(inner, source, rtol=1e-10, restart=100, maxiter=25)
        if failure:
            raise ArithmeticError("the passage-time equations did not converge: coarsen the grid")
        return solution

    def _stationary_by_steps(self) -> np.ndarray:
        """Many steps of a chain from a uniform start, then a Krylov solution for the slow modes."""
        n = self.matrix.shape[0]
        transposed = sparse.csr_array(self.matrix.T)
        start = _step_on(transposed, np.full(n, 1 / n), _STEPS)
        # Adding `start` in the direction that G cannot see makes Gᵀp = 0 regular.
        operator = LinearOperator(
            (n, n), matvec=lambda p: p.sum() * start - transposed @ p, dtype=np.float64
        )
        masses, failure = gmres(operator, start, x0=start, rtol=1e-12, restart=80, maxiter=25)
        masses = _step_on(transposed, masses / masses.sum(), _STEPS // 10)
        residual = float(np.abs(transposed @ masses).sum())
        if residual > 1e-9:
            raise ArithmeticError(
                f"the stationary equations did not converge (GMRES code {failure}): one step "
                f"moves {residual:.2g} of the mass; coarsen the grid"
            )
        masses = np.maximum(masses, 0.0)
        return masses / masses.sum()


def _start(n: int) -> np.ndarray:
    """A start for Krylov methods that is orthogonal to no mode."""
    return np.random.default_rng(0).standard_normal(n)


def _step_on(transposed: sparse.csr_array, masses: np.ndarray, steps: int) -> np.ndarray:
    for _ in range(steps):
        masses = masses + transposed @ masses
    return masses


def _factorise(matrix: sparse.sparray) -> SuperLU:
    """LU without pivoting, which is stable for the M-matrices of Markov processes."""
    return splu(
        sparse.csc_array(matrix),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
