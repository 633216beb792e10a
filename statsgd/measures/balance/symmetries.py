"""Continuous symmetries of a loss: declared, or found from the shape of its parameters.

A symmetric matrix A with ℓ(exp(sA)θ) = ℓ(θ) for every example and every s makes the charge
q = θᵀAθ a constant of gradient flow, which SGD changes through its noise alone.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import count, finite_array, kinds_checked, positive, symmetric
from statsgd.dynamics.noise.minibatch import all_examples
from statsgd.precision import in_double_precision
from statsgd.problems import DiagonalLinearNetwork, EmpiricalRisk, Problem, SampledProblem
from statsgd.running import stream_key

type Part = str | tuple[str, Any]
type Shapes = dict[str, tuple[int, ...]]

_EXAMPLES = 64
#: Sizes of random displacements from initial params, in turn: far ones wake units that are off.
_DISPLACEMENTS = (1.0, 3.0)


class Symmetry(NamedTuple):
    """A symmetry θ → exp(sA)θ of a loss, declared by one of the functions below, or found."""

    name: str
    generator: Float[Any, "..."]
    """A in flattened coordinates: its diagonal `(d,)`, or the symmetric matrix `(d, d)`."""

    @property
    def diagonal(self) -> bool:
        """Whether A is given by its diagonal."""
        return self.generator.ndim == 1

    def matrix(self) -> Float[Any, "d d"]:
        """A, as the functions of `laws` take it."""
        return np.diag(self.generator) if self.diagonal else self.generator

    def apply(self, vectors: Any) -> Any:
        """A times each vector of the last axis."""
        return vectors * self.generator if self.diagonal else vectors @ self.generator

    def charge(self, params: Any) -> Any:
        """q = θᵀAθ of each vector of the last axis."""
        return (params * self.apply(params)).sum(axis=-1)

    def size(self, params: Any) -> Any:
        """θᵀ|A|θ, what charges are small or large against."""
        if self.diagonal:
            return (params**2 * abs(self.generator)).sum(axis=-1)
        values, q = np.linalg.eigh(self.generator)
        return ((params @ q) ** 2 * abs(values)).sum(axis=-1)

    def move(self, params: Float[Any, " d"], distance: float) -> Float[Any, " d"]:
        """exp(sA)θ, s = `distance`."""
        if self.diagonal:
            return np.exp(distance * self.generator) * params
        values, q = np.linalg.eigh(self.generator)
        return q @ (np.exp(distance * values) * (q.T @ params))


@kinds_checked
def rescaling_symmetry(
    problem: Problem, incoming: Sequence[Part], outgoing: Sequence[Part], name: str | None = None
) -> Symmetry:
    """The symmetry u → ρu, w → w/ρ with charge |u|² − |w|²: +1 on `incoming`, −1 on `outgoing`.

    Parts are names of parameter leaves (`problem.names`), or pairs of a name and an index into the
    leaf: `("weights.0", 3)` is row 3, `("weights.1", (slice(None), 3))` column 3. The bias of a
    ReLU unit goes with its incoming weights. It is not checked that the loss has the symmetry: see
    `symmetry_violation`.

    Raises `ValueError` for names and indices that do not exist, and for parts that overlap.

    Numbers are float64.

    >>> from statsgd.problems import landscape
    >>> problem = landscape(lambda p: (p["u"] * p["w"] - 1.0) ** 2, {"u": 1.0, "w": 1.0})
    >>> symmetry = rescaling_symmetry(problem, ["u"], ["w"])
    >>> symmetry.name, symmetry.generator.tolist()
    ('u / w', [1.0, -1.0])
    """
    return _rescaling(_shapes(problem), incoming, outgoing, name)


@kinds_checked
def scale_symmetry(problem: Problem, parts: Sequence[Part], name: str | None = None) -> Symmetry:
    """The symmetry u → ρu with charge |u|², of weights before a normalisation; parts as above.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.problems import landscape
    >>> problem = landscape(lambda p: p["u"][0] ** 2 / (p["u"] @ p["u"]), {"u": np.ones(2)})
    >>> symmetry_violation(problem, scale_symmetry(problem, ["u"])) < 1e-9
    True
    """
    return _scale(_shapes(problem), parts, name)


@kinds_checked
def exponential_symmetry(problem: Problem, generator: Any, name: str = "generator") -> Symmetry:
    """The symmetry θ → exp(sA)θ of any symmetric `generator` A `(d, d)`, flattened coordinates.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> exponential_symmetry(quadratic(np.eye(2)), np.diag([1.0, -1.0])).generator.shape
    (2, 2)
    """
    return Symmetry(name, symmetric("generator", generator, dimension=problem.dimension))


@kinds_checked
def candidate_symmetries(problem: Problem, *, mixing: bool = False) -> list[Symmetry]:
    """Symmetries that the shapes of the parameters allow; most will not hold.

    - consecutive matrices, whose shapes chain as `(outputs, inputs)` or as `(inputs, outputs)`:
      rescaling of each hidden unit, with the bias vector of that length if there is one; with
      `mixing` also the symmetric mixing of two units, for linear layers (d × d matrices);
    - vectors of one shape, which may be multiplied: rescaling of each pair of entries;
    - factors of each subnetwork of a `diagonal_linear_network`;
    - each leaf, each row and each column of a matrix alone: scale invariance.

    >>> import numpy as np
    >>> from statsgd.problems import landscape
    >>> start = {"u": np.ones(2), "w": np.ones(2)}
    >>> problem = landscape(lambda p: (p["u"] @ p["w"] - 1.0) ** 2, start)
    >>> [one.name for one in candidate_symmetries(problem)]
    ['u[0] / w[0]', 'u[1] / w[1]', 'scale of u', 'scale of w']
    """
    shapes = _shapes(problem)
    if isinstance(problem, DiagonalLinearNetwork):
        return [
            _rescaling(shapes, [("params", (i, j))], [("params", (i, j + 1))])
            for i in range(problem.width)
            for j in range(problem.num_layers - 1)
        ]
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    vectors = [name for name, shape in shapes.items() if len(shape) == 1]
    found = []
    for outputs in (0, 1):  # which axis of a matrix is that of its outputs
        biases = _biases([shapes[name][outputs] for name in matrices], vectors, shapes)
        for one, two, bias in zip(matrices, matrices[1:], biases, strict=False):
            if shapes[one][outputs] == shapes[two][1 - outputs]:
                found += _hidden_units(shapes, one, two, bias, outputs)
                if mixing:
                    found += _mixtures(problem, one, two, outputs)
    for i, one in enumerate(vectors):
        for two in vectors[i + 1 :]:
            if shapes[one] == shapes[two]:
                entries = range(shapes[one][0])
                found += [_rescaling(shapes, [(one, j)], [(two, j)]) for j in entries]
    parts: list[Part] = list(shapes)
    for name in matrices:
        parts += [(name, i) for i in range(shapes[name][0])]
        parts += [(name, (slice(None), i)) for i in range(shapes[name][1])]
    return found + [_scale(shapes, [part]) for part in parts]


@kinds_checked
def find_symmetries(
    problem: Problem,
    candidates: Iterable[Symmetry] | None = None,
    *,
    mixing: bool = False,
    tolerance: float = 1e-9,
    points: int = 10,
    seed: int = 0,
) -> list[Symmetry]:
    """Those of `candidates` (by default `candidate_symmetries`) that the loss really has.

    Each is tried on example gradients at random points about initial params, see
    `symmetry_violation`: ReLU and linear units pass, tanh units do not. What no example's loss
    depends on at any of the points (a unit that is never active) is not found.

    Raises `ValueError` for a tolerance or number of points that is not positive.

    >>> import numpy as np
    >>> from statsgd.problems import landscape
    >>> start = {"u": np.ones(2), "w": np.ones(2)}
    >>> problem = landscape(lambda p: (p["u"] @ p["w"] - 1.0) ** 2, start)
    >>> [one.name for one in find_symmetries(problem)]
    ['u[0] / w[0]', 'u[1] / w[1]']
    """
    positive("tolerance", tolerance)
    places = _random_points(problem, count("points", points), seed)
    gradients = _gradients(problem, places)
    tried = list(candidate_symmetries(problem, mixing=mixing) if candidates is None else candidates)
    found = []
    for symmetry in tried:
        seen = [
            _violation(rows, symmetry, place) for rows, place in zip(gradients, places, strict=True)
        ]
        if not np.isnan(seen).all() and np.nanmax(seen) <= tolerance:
            found.append(symmetry)
    return found


@kinds_checked
def symmetry_violation(problem: Problem, symmetry: Symmetry, params: PyTree | None = None) -> float:
    """How far a loss is from a symmetry at `params` (a random point by default): 0 if it has it.

    The largest |∇ℓ·Aθ|/(|∇ℓ||Aθ|) over up to 64 examples, in float64, ∇ℓ by the parameters that A
    acts on: the cosine between an example's gradient and the orbit, about 1e-15 for a symmetry. NaN
    where no example depends on these parameters. A problem without examples is judged by the
    gradient of its loss.

    >>> from statsgd.problems import landscape
    >>> problem = landscape(lambda p: (p["u"] * p["w"] - 1.0) ** 2, {"u": 1.0, "w": 1.0})
    >>> symmetry_violation(problem, rescaling_symmetry(problem, ["u"], ["w"])) < 1e-9
    True
    """
    at = _random_points(problem, 1, 0)
    if params is not None:
        at = np.asarray(problem.flatten(params), dtype=np.float64)[None]
    return _violation(_gradients(problem, at)[0], symmetry, at[0])


def _violation(gradients: np.ndarray, symmetry: Symmetry, at: np.ndarray) -> float:
    along = np.asarray(symmetry.apply(at))
    touched = np.abs(symmetry.generator) > 0
    touched = touched if symmetry.diagonal else touched.any(axis=0)
    sizes = np.linalg.norm(gradients[:, touched], axis=1) * np.linalg.norm(along)
    if not np.any(sizes > 0):
        return np.nan
    return float(np.max(np.abs(gradients @ along)[sizes > 0] / sizes[sizes > 0]))


def _gradients(problem: Problem, places: np.ndarray) -> Float[Any, "points n d"]:
    return in_double_precision(_example_gradients, problem, places)


def _example_gradients(problem: Problem, places: Float[Any, "points d"]) -> Any:
    def rows(flat: Float[Any, " d"]) -> Float[Any, "n d"]:
        params = problem.unflatten(flat)
        if not isinstance(problem, SampledProblem):
            return problem.flatten(problem.gradient(params))[None]
        kept = problem.examples if isinstance(problem, EmpiricalRisk) else all_examples(problem)
        few = jax.tree.map(lambda leaf: jnp.asarray(leaf[:_EXAMPLES]), kept)
        gradient = jax.grad(problem.example_loss)
        return jax.vmap(lambda example: problem.flatten(gradient(params, example)))(few)

    return jax.lax.map(rows, places)


def _random_points(problem: Problem, number: int, seed: int) -> Float[Any, "points d"]:
    rng = np.random.default_rng(seed)
    found = []
    for i, key in enumerate(jax.random.split(stream_key(seed), number)):
        flat = np.asarray(problem.flatten(problem.initial_params(key)), dtype=np.float64)
        scale = (np.sqrt(np.mean(flat**2)) or 1.0) * _DISPLACEMENTS[i % len(_DISPLACEMENTS)]
        found.append(flat + scale * rng.normal(size=flat.shape))
    return np.stack(found)


def _shapes(problem: Problem) -> Shapes:
    leaves = jax.tree.leaves(problem.template)
    return {name: leaf.shape for name, leaf in zip(problem.names, leaves, strict=True)}


def _rescaling(
    shapes: Shapes, incoming: Sequence[Part], outgoing: Sequence[Part], name: str | None = None
) -> Symmetry:
    up, down = _indicator(shapes, incoming), _indicator(shapes, outgoing)
    if np.any((up > 0) & (down > 0)):
        raise ValueError("incoming and outgoing must not share parameters, got parts that do")
    return Symmetry(name or f"{_words(incoming)} / {_words(outgoing)}", up - down)


def _scale(shapes: Shapes, parts: Sequence[Part], name: str | None = None) -> Symmetry:
    return Symmetry(name or f"scale of {_words(parts)}", _indicator(shapes, parts))


def _indicator(shapes: Shapes, parts: Sequence[Part]) -> np.ndarray:
    if isinstance(parts, str):
        raise ValueError(f"parts must be a list of leaves or their parts, got the text {parts!r}")
    marks = {name: np.zeros(shape) for name, shape in shapes.items()}
    for part in parts:
        name, index = (part, ...) if isinstance(part, str) else part
        if name not in marks:
            raise ValueError(f"parts must be of the leaves {list(marks)}, got {name!r}")
        try:
            marks[name][index] += 1
        except IndexError:
            raise ValueError(
                f"index of {name!r} must fit its shape {marks[name].shape}, got {index!r}"
            ) from None
    flat = np.concatenate([mark.ravel() for mark in marks.values()])
    if not flat.any() or flat.max() > 1:
        raise ValueError(f"parts must name parameters, each once, got {list(parts)!r}")
    return flat


def _words(parts: Sequence[Part]) -> str:
    def word(index: Any) -> str:
        entries = index if isinstance(index, tuple) else (index,)
        return ",".join(":" if isinstance(entry, slice) else str(entry) for entry in entries)

    return " + ".join(p if isinstance(p, str) else f"{p[0]}[{word(p[1])}]" for p in parts)


def _row(name: str, index: int, axis: int) -> Part:
    return (name, index) if axis == 0 else (name, (slice(None), index))


def _biases(widths: Sequence[int], vectors: Sequence[str], shapes: Shapes) -> list[str | None]:
    """For each matrix the first vector of its number of outputs that no earlier one took."""
    free = list(vectors)
    chosen: list[str | None] = []
    for width in widths:
        fits = next((name for name in free if shapes[name] == (width,)), None)
        chosen.append(fits)
        if fits is not None:
            free.remove(fits)
    return chosen


def _hidden_units(
    shapes: Shapes, one: str, two: str, bias: str | None, outputs: int
) -> list[Symmetry]:
    found = []
    for j in range(shapes[one][outputs]):
        incoming: list[Part] = [_row(one, j, outputs)]
        if bias is not None:
            incoming.append((bias, j))
        found.append(_rescaling(shapes, incoming, [_row(two, j, 1 - outputs)]))
    return found


def _mixtures(problem: Problem, one: str, two: str, outputs: int) -> list[Symmetry]:
    """δW = SW, δU = −US for S = e_a e_bᵀ + e_b e_aᵀ, the charge 2(WWᵀ − UᵀU)_ab."""
    index = np.arange(problem.dimension, dtype=np.float32)  # exact up to 2^24
    places = dict(zip(problem.names, jax.tree.leaves(problem.unflatten(index)), strict=True))
    inner = np.moveaxis(np.asarray(places[one]), outputs, 0).astype(int)
    outer = np.moveaxis(np.asarray(places[two]), 1 - outputs, 0).astype(int)
    found = []
    for a in range(len(inner)):
        for b in range(a):
            matrix = np.zeros((problem.dimension, problem.dimension))
            for rows, sign in ((inner, 1.0), (outer, -1.0)):
                matrix[rows[a], rows[b]] = matrix[rows[b], rows[a]] = sign
            found.append(Symmetry(f"units {b} and {a} of {one} / {two}", matrix))
    return found


def check_symmetry(name: str, symmetry: Symmetry, dimension: int) -> Symmetry:
    """`symmetry`, if its generator fits the dimension; `ValueError` otherwise."""
    generator = finite_array(name, symmetry.generator)
    if generator.shape not in ((dimension,), (dimension, dimension)):
        raise ValueError(
            f"{name} must have a generator of shape ({dimension},) or ({dimension}, {dimension}), "
            f"got {generator.shape}"
        )
    return symmetry
