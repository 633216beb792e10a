"""Where SGD comes to rest on the orbit of a symmetry: the noise equilibrium."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float, PRNGKeyArray, PyTree
from scipy.optimize import linprog, minimize
from scipy.special import logsumexp

from statsgd.arguments import (
    count,
    finite_array,
    non_negative,
    positive,
    symmetric,
)
from statsgd.dynamics.noise import noise_covariance
from statsgd.dynamics.sgd import SGD
from statsgd.laws.domain import SmallNumber
from statsgd.laws.expected import Columns, Expected, by_weights
from statsgd.laws.law import ImproperLawError, Law, register
from statsgd.problems import ConvergenceWarning, Problem, hessian

_FLAT = 1e-8  # of the largest curvature: what counts as none
_SETTLED = 1e-8  # drift of the charges, as a share of the largest there could be


@register
class NoiseEquilibrium(Law):
    """The point of a symmetry orbit at which the gradient noise of SGD is balanced.

    The loss of every example is invariant under exp(sA), A symmetric (rescaling: see
    `laws.balance.rescaling_generator`). On the orbit C(exp(sA)θ) = e^(−sA) C e^(−sA), and the
    charge q = θᵀAθ obeys dq/dt = η tr(AC) − 2λq. Its zero on the orbit is unique; for commuting
    generators A_k it is the minimum over s of the convex function

        η tr C(exp(Σ s_k A_k)θ) + 2λ |exp(Σ s_k A_k)θ|²

    It exists iff there is noise (or decay) on both sides of every generator; otherwise the charge
    runs away. In general it is not the point of equal norms, and weight decay alone would lead
    elsewhere. Starts on one orbit all end here, whatever their charge.

    A point mass: draws are copies of `mean()`, and there is no density. SGD stays about it by
    ηC: ηh ≤ 0.2 and a variance at the minimum, (η/2) Tr CH⁺, of at most 0.026 |θ|² keep the total
    variation of ln|u|/|w| below 5 %, both blurred by ±½ (measured for a linear network).

    **Arguments:** `params` `(d,)` a point of the orbit, at a minimum of the loss;
    `noise_covariance` C `(d, d)` there; `generators` one `(d, d)` matrix or commuting ones
    `(K, d, d)`; `learning_rate` η (times 1/(1−β) with momentum) and `weight_decay` λ, which
    matter only together. `linear_network` gives the closed form for matrix products.

    Source: Ziyin, Wang, Li, Wu (2024), arXiv:2402.07193; closed forms and the convex form are
    derived.

    >>> import numpy as np
    >>> law = NoiseEquilibrium([1.0, 2.0], np.diag([4.0, 1.0]), [np.diag([1.0, -1.0])])
    >>> law.point.round(4)
    array([1.4142, 1.4142])
    """

    setting: ClassVar[str] = "SGD on a loss with exponential symmetries, along their orbits"
    exactness: ClassVar[str] = (
        "exact for the SDE where C is that of the minimum; for the chain within 5 % where ηh ≤ 0.2 "
        "and (η/2) Tr CH⁺ ≤ 0.026 θᵀθ"
    )
    citation: ClassVar[str] = "Ziyin, Wang, Li, Wu (2024), arXiv:2402.07193"

    point: Float[Any, " d"]
    orbit_parameters: Float[Any, " K"]
    #: Why there is no equilibrium; empty if there is one.
    conflict: str = eqx.field(static=True)

    def __init__(
        self,
        params: Any,
        noise_covariance: Any,
        generators: Any,
        learning_rate: Any = 1.0,
        weight_decay: Any = 0.0,
    ):
        theta = np.asarray(finite_array("params", params, ndim=1), dtype=np.float64)
        d = len(theta)
        noise = symmetric("noise_covariance", noise_covariance, dimension=d, definite="semi")
        eta = float(positive("learning_rate", learning_rate))
        decay = float(non_negative("weight_decay", weight_decay))
        exponents, basis = _joint_eigenbasis(generators, d)
        rotated = basis.T @ theta
        terms = np.concatenate([eta * np.diagonal(basis.T @ noise @ basis), 2 * decay * rotated**2])
        directions = np.concatenate([-2 * exponents, 2 * exponents])
        self.conflict = _conflict(terms, directions)
        shift: Any = np.full(exponents.shape[1], np.nan)
        if not self.conflict:
            shift = _minimise_sum_of_exponentials(terms, directions)
        self.orbit_parameters = shift
        self.point = basis @ (np.exp(exponents @ shift) * rotated)

    @classmethod
    def from_sgd(cls, problem: Problem, sgd: SGD, generators: Any, at: PyTree) -> Self:
        """The equilibrium that `sgd` reaches from the orbit of `at`, a minimum of `problem`.

        Raises `ValueError` if the noise is correlated in time or does not fit the problem, or if
        a generator is not a symmetry of the loss at `at`, to first order.
        """
        sgd.require_heavy_ball()
        if not sgd.noise.white:
            raise ValueError(
                "sampling must give noise that is independent from step to step for this law, got "
                f"{getattr(sgd.noise, 'sampling', type(sgd.noise).__name__)!r}"
            )
        theta = np.asarray(problem.flatten(at), dtype=np.float64)
        noise = np.asarray(noise_covariance(problem, at, sgd.noise))
        matrices = np.asarray(generators, dtype=np.float64).reshape(-1, len(theta), len(theta))
        for position, matrix in enumerate(matrices):
            along = matrix @ theta
            share = along @ noise @ along / max(along @ along * np.trace(noise), 1e-300)
            if share > 1e-8:
                raise ValueError(
                    f"generators[{position}] is not a symmetry of every example's loss: gradients "
                    f"vary along its orbit (share {share:.3g} of the noise)"
                )
        rate = float(sgd.learning_rate) / (1 - float(sgd.momentum))
        return cls(theta, noise, matrices, rate, sgd.weight_decay)

    @classmethod
    def linear_network(
        cls,
        input_covariance: Any,
        label_covariance: Any,
        target: Any,
        num_layers: int = 2,
        hidden: int | None = None,
    ) -> Self:
        """The equilibrium of a linear network with loss |W_P … W₁x − y|², y = Vx + ε.

        `params` are W₁, …, W_P flattened in this order, as in `problems.linear_network`. The
        solution is unique up to rotations between layers; see `linear_network_equilibrium`.
        """
        weights, conflict = _linear_equilibrium(
            input_covariance, label_covariance, target, num_layers, hidden
        )
        law = object.__new__(cls)
        point = np.concatenate([weight.ravel() for weight in weights])
        for name, value in (
            ("point", point),
            ("orbit_parameters", np.zeros(0)),
            ("conflict", conflict),
        ):
            object.__setattr__(law, name, value)
        return law

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """A rescaled pair of vectors, and a two-layer linear network."""
        return (
            cls([1.5, 0.6, -0.2], np.diag([0.6, 3.0, 0.7]), np.diag([1.0, -1, -1])),
            cls.linear_network(
                np.diag([1, 0.25]), np.diag([0.25, 0.0625]), [[1, 0.3], [-0.2, 0.8]]
            ),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """Noise on one side only, and labels without noise in one direction."""
        return (
            cls([1.0, 1.0], np.diag([0.0, 1.0]), np.diag([1.0, -1])),
            cls.linear_network(np.eye(2), np.diag([1.0, 0]), np.eye(2)),
        )

    def small_numbers(self, problem: Problem, sgd: SGD) -> Sequence[SmallNumber]:
        """ηh at the largest curvature, and how far noise scatters across the orbit."""
        at = problem.unflatten(self.point)
        rate = float(sgd.learning_rate) / (1 - float(sgd.momentum))
        curvature, noise = hessian(problem, at), noise_covariance(problem, at, sgd.noise)
        scatter = rate / 2 * np.trace(noise @ np.linalg.pinv(curvature, rcond=_FLAT))
        top = float(np.linalg.eigvalsh(curvature)[-1])
        return (
            SmallNumber("ηh", rate * top, 0.2),
            SmallNumber("(η/2) Tr CH⁺ ÷ |θ|²", float(scatter / (self.point @ self.point)), 0.026),
        )

    @property
    def dimension(self) -> int:
        """Number of parameters d."""
        return self.point.shape[-1]

    @property
    def normalized(self) -> bool:
        """No: a point mass has no density."""
        return False

    def require_proper(self) -> None:
        """Raise `ImproperLawError` where no unique equilibrium exists."""
        if self.conflict:
            raise ImproperLawError(self.conflict)

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Site `params`: a point mass."""
        self.ensure_proper()
        point = dist.Delta(jnp.asarray(self.point), event_dim=1)
        if obs is None:
            numpyro.sample("params", point)
        else:
            with numpyro.plate("replica", obs.shape[0]):
                numpyro.sample("params", point, obs=obs)

    def _require_density(self, variables: tuple[str, ...]) -> None:
        raise ImproperLawError("a point mass has no density: read its mean")

    def _draw(self, key: PRNGKeyArray, number: int) -> Mapping[str, Float[Any, "number d"]]:
        return {"params": np.tile(self.point, (number, 1))}

    def _quadrature(self) -> tuple[Float[Any, "1 d"], Float[Any, " 1"]]:
        return self.point[None], np.ones(1)

    def _averaged(self, values: Columns) -> Expected:
        return by_weights(values, *self._quadrature(), 0.0)


def linear_network_equilibrium(
    input_covariance: Any,
    label_covariance: Any,
    target: Any,
    num_layers: int = 2,
    hidden: int | None = None,
) -> list[Float[Any, "out in"]]:
    """Weights W₁, …, W_P with product V at which the noise of all layers is balanced.

    With X̄ = Σx/tr Σx, Ē = Σε/tr Σε and the thin SVD Ē^½ V X̄^½ = L s Rᵀ,

        W₁ = a s^½ Rᵀ X̄^(−½),   W_P = a Ē^(−½) L s^½,   c I between,
        a = (tr s)^(−(P−2)/(2P)),   c = (tr s)^(1/P)

    For two layers this solves tr(Σε) WΣxWᵀ = tr(Σx) UᵀΣεU. It is unique up to rotations between
    layers.

    **Arguments:** `input_covariance` Σx `(d, d)`, `label_covariance` Σε `(k, k)`, `target` V
    `(k, d)`, `num_layers` P ≥ 2, `hidden` width of the hidden layers (rank of V by default;
    surplus units are zero).

    Raises `ImproperLawError` for singular covariances. Source: *derived* from Ziyin et al. (2024),
    arXiv:2402.07193.

    >>> import numpy as np
    >>> first, last = linear_network_equilibrium(np.eye(2), np.eye(1), np.array([[3.0, 4.0]]))
    >>> (last @ first).round(4), round(float(np.linalg.norm(first) / np.linalg.norm(last)), 4)
    (array([[3., 4.]]), 1.4142)
    """
    weights, conflict = _linear_equilibrium(
        input_covariance, label_covariance, target, num_layers, hidden
    )
    if conflict:
        raise ImproperLawError(conflict)
    return weights


def _linear_equilibrium(
    input_covariance: Any, label_covariance: Any, target: Any, num_layers: int, hidden: int | None
) -> tuple[list[np.ndarray], str]:
    v = np.asarray(finite_array("target", target, ndim=2), dtype=np.float64)
    x = symmetric("input_covariance", input_covariance, dimension=v.shape[1], definite="semi")
    e = symmetric("label_covariance", label_covariance, dimension=v.shape[0], definite="semi")
    layers = count("num_layers", num_layers, at_least=2)
    rank = int(np.linalg.matrix_rank(v))
    width = rank if hidden is None else count("hidden", hidden, at_least=max(rank, 1))
    shapes = [(width, v.shape[1]), *[(width, width)] * (layers - 2), (v.shape[0], width)]
    for name, matrix in (("input_covariance", x), ("label_covariance", e)):
        values = np.linalg.eigvalsh(matrix)
        if values[0] <= 1e-12 * values[-1]:
            conflict = (
                f"{name} must be positive definite, got smallest eigenvalue {values[0]:.6g}: no "
                "noise in these directions; equilibrium not unique"
            )
            return [np.full(shape, np.nan) for shape in shapes], conflict
    root_x, root_e = _root(x / np.trace(x)), _root(e / np.trace(e))
    left, s, right = np.linalg.svd(root_e @ v @ root_x, full_matrices=False)
    left, s, right = left[:, :rank], s[:rank], right[:rank]
    total = s.sum()
    outer, inner = total ** (-(layers - 2) / (2 * layers)), total ** (1 / layers)
    embed = np.eye(rank, width)
    first = outer * embed.T @ (np.sqrt(s)[:, None] * right @ np.linalg.inv(root_x))
    last = outer * np.linalg.inv(root_e) @ (left * np.sqrt(s)) @ embed
    return [first, *[inner * embed.T @ embed for _ in range(layers - 2)], last], ""


def _root(matrix: np.ndarray) -> np.ndarray:
    values, q = np.linalg.eigh(matrix)
    return q * np.sqrt(values) @ q.T


def _joint_eigenbasis(generators: Any, d: int) -> tuple[Any, Any]:
    """Eigenvalues `(d, K)` and one eigenbasis `(d, d)` of commuting symmetric matrices."""
    stack = np.asarray(finite_array("generators", generators), dtype=np.float64)
    if stack.ndim == 2:
        stack = stack[None]
    if stack.ndim != 3 or stack.shape[1:] != (d, d) or len(stack) == 0:
        raise ValueError(
            f"generators must have shape ({d}, {d}) or (K, {d}, {d}), got {stack.shape}"
        )
    stack = np.stack([symmetric(f"generators[{k}]", a) for k, a in enumerate(stack)])
    # A generic combination of commuting matrices has their joint eigenvectors.
    mixture = np.tensordot(np.sqrt(np.arange(2.0, len(stack) + 2)), stack, axes=1)
    basis = np.linalg.eigh(mixture)[1]
    rotated = basis.T @ stack @ basis
    exponents = np.diagonal(rotated, axis1=1, axis2=2).T
    off = np.max(np.abs(rotated - np.einsum("ik,ij->kij", exponents, np.eye(d))))
    if off > 1e-8 * np.max(np.abs(stack)):
        raise ValueError(f"generators must commute, got off-diagonal parts of {off:.3g}")
    return exponents, basis


def _conflict(terms: np.ndarray, directions: np.ndarray) -> str:
    """Why Σ terms·exp(directions·s) has no unique minimum; empty if it has one."""
    active = directions[(terms > 1e-12 * np.max(terms, initial=0.0)) & np.any(directions, axis=1)]
    number = directions.shape[1]
    if number == 1:
        up = float(np.sum(np.clip(-directions[:, 0], 0, None) * terms)) / 2
        down = float(np.sum(np.clip(directions[:, 0], 0, None) * terms)) / 2
        if not (np.any(active > 0) and np.any(active < 0)):
            return (
                f"one side carries no gradient noise (positive side {up:.6g}, negative side "
                f"{down:.6g}, both must be positive): the charge drifts without bound"
            )
        return ""
    rank = np.linalg.matrix_rank(active) if len(active) else 0
    if rank < number:
        return (
            f"the noise distinguishes only {rank} of {number} generators: no noise in these "
            "directions; equilibrium not unique"
        )
    # A direction along which no term grows and some fall: the minimum is at infinity.
    escape = linprog(active.sum(0), A_ub=active, b_ub=np.zeros(len(active)), bounds=(-1, 1))
    if escape.fun < -1e-9:
        return (
            "one side of a combination of generators carries no gradient noise (combination "
            f"{np.round(escape.x, 6).tolist()}): its charge drifts without bound"
        )
    return ""


def _minimise_sum_of_exponentials(terms: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """argmin over s of Σ terms·exp(directions·s), through its convex logarithm."""
    kept = terms > 0
    log_terms, slopes = np.log(terms[kept]), directions[kept]

    def weights(s: np.ndarray) -> np.ndarray:
        exponent = log_terms + slopes @ s
        return np.exp(exponent - logsumexp(exponent))

    def hessian(s: np.ndarray) -> np.ndarray:
        p = weights(s)
        center = p @ slopes
        return (slopes.T * p) @ slopes - np.outer(center, center)

    result = minimize(
        lambda s: logsumexp(log_terms + slopes @ s),
        np.zeros(slopes.shape[1]),
        jac=lambda s: weights(s) @ slopes,
        hess=hessian,
        method="trust-exact",
        options={"gtol": 1e-10, "maxiter": 500},
    )
    s = result.x
    for _ in range(3):  # the last digits, which the trust region's own test leaves
        s = s - np.linalg.lstsq(hessian(s), weights(s) @ slopes, rcond=None)[0]
    slope = float(np.linalg.norm(weights(s) @ slopes))
    if not slope <= _SETTLED:
        warnings.warn(
            f"equilibrium: charges still drift, by {slope:.2g} of their terms: not found",
            ConvergenceWarning,
            stacklevel=3,
        )
    return s
