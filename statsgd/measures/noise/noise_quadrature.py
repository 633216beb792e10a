"""How gradient noise is spread over curvatures, and how far that carries SGD."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import (
    count,
    finite_array,
    kinds_checked,
    means,
    non_negative,
    random_seed,
)
from statsgd.dynamics.noise import GradientNoise, Minibatch
from statsgd.dynamics.sgd import SGD
from statsgd.estimate import Estimate
from statsgd.laws.minimum import displacement_exponent
from statsgd.laws.minimum.mode_chain import (
    Epoch,
    independent_response,
    mean_state,
    response,
    transitions,
)
from statsgd.laws.networks.checkpoint import checked, loss_and_gradient
from statsgd.measures.runs.averages import jackknife
from statsgd.measures.tails.recorded import gradient_noise, key_noise
from statsgd.precision import in_double_precision
from statsgd.problems import EmpiricalRisk, Problem
from statsgd.problems.eigenpairs import Quadrature, lanczos_quadrature
from statsgd.problems.fixed_draws import with_twice_the_draws
from statsgd.problems.parameters import floating
from statsgd.problems.sums import hessian_product
from statsgd.problems.weighted import example_square, weighted_gradient

STARTS, DEPTH = 6, 30
#: Stochastic gradients of losses that are random or of batches.
DRAWS = 64


class NoiseSpectrum(NamedTuple):
    """Nodes and weights of quadratures over the curvatures of H + λI, in double precision."""

    curvatures: Float[Any, "n k"]
    """Nodes of each random start."""
    weights: Float[Any, "n k"]
    """Noise variance at each; the mean over starts adds up to tr C."""
    noise_trace: float
    """tr C: exact, or of the draws that stand for the noise."""
    gradient_curvatures: Float[Any, " k"]
    """Nodes for the mean force ∇L + λθ₀."""
    gradient_weights: Float[Any, " k"]
    """Its square at each; they add up to |∇L + λθ₀|². Where L is known by fixed draws, such as
    batches, half of the nodes have negative weights: these take away what the error of the
    gradient adds to its square."""
    epoch: Epoch | None
    """Of shuffled batches, None for white noise."""
    independent_curvatures: Float[Any, "n k"] | None = None
    """Nodes for what of the noise under epochs is no choice of examples, as that of dropout."""
    independent_weights: Float[Any, "n k"] | None = None
    """Its variance at each."""
    fewer: "NoiseSpectrum | None" = None
    """The same by one step of each iteration less, which says what is left to find."""

    def with_noise_times(self, factor: float) -> "NoiseSpectrum":
        """That of noise whose covariance is `factor` times as large, as of batches of another size.

        The mean force stays.
        """
        factor = float(non_negative("factor", factor))
        own, fewer = self.independent_weights, self.fewer
        return self._replace(
            weights=factor * self.weights,
            noise_trace=factor * self.noise_trace,
            independent_weights=None if own is None else factor * own,
            fewer=None if fewer is None else fewer.with_noise_times(factor),
        )

    def noise_integral(self, function: Callable[[Any], Any]) -> Estimate:
        """tr(C f(H + λI)) for `function` f of arrays of curvatures.

        Its error is that over starts and what the last step of the iterations changed.
        """
        return _settled(
            self,
            lambda one: _over_starts(np.sum(one.weights * function(one.curvatures), axis=1)),
        )


@kinds_checked
def noise_spectrum(
    problem: Problem,
    params: PyTree,
    sgd: SGD,
    *,
    starts: int = STARTS,
    depth: int = DEPTH,
    seed: int = 0,
    signs: Any = None,
    checkpoint: PyTree = None,
    double: bool = True,
) -> NoiseSpectrum:
    """How the gradient noise of `sgd` at `params` is spread over the curvatures of L.

    Lanczos iteration started from u = N^{−½} Σ ε_n (∇ℓ_n − ∇L), ε_n random signs, has nodes and
    weights with E uᵀf(H)u = tr(Σ₁ f(H)): no eigenvectors, and no assumption on how C and H are
    related. tr C itself is exact, from the gradients of all examples, and the weights are rescaled
    to it. A start costs a gradient, a step a Hessian product. The noise of random losses and of a
    `batch_risk` is that of `DRAWS` stochastic gradients, kept in memory, with a sign for each;
    under epochs what keys add is told apart by as many pairs of equal batches. Their mean force is
    known by fixed draws, and by as many others: the square of its error does not count as force.

    **Arguments:** `starts` of random signs of `seed`, `depth` steps of each; `signs` `(n, N)` to
    take instead: all 2^N of them leave no sampling error. Noise other than `Minibatch` starts from
    a root of its covariance, which is formed, and has a sign for each of its columns. `checkpoint`,
    the params that replicas left, whose mean force then counts, where `params` are some that they
    have come to: noise and curvature of there. `double`, False for products in the precision of
    `params`, as in `top_eigenpairs`.

    Raises `ValueError` as `laws.ModeLaw.from_checkpoint`, and for fewer than two starts.
    Source: *derived*; Golub, Meurant (2010) for the quadrature.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd import noise
    >>> from statsgd.problems import linear_regression
    >>> problem = linear_regression(np.eye(2), np.array([1.0, 3.0]))
    >>> found = noise_spectrum(problem, np.zeros(2), SGD(0.1, noise.Minibatch(1)))
    >>> round(found.noise_trace, 4), round(float(found.weights.sum(1).mean()), 4)
    (2.5, 2.5)
    """
    epoch, params = checked(problem, sgd), floating(problem.parameters(params))
    loss, gradient = loss_and_gradient(problem, params)
    if not np.isfinite(loss):
        raise ValueError(f"params must have a finite loss, got {loss}")
    left = params if checkpoint is None else floating(problem.parameters(checkpoint))
    pull = gradient if checkpoint is None else loss_and_gradient(problem, left)[1]
    steps = min(count("depth", depth), problem.dimension)
    decay = float(sgd.weight_decay)
    start, columns, trace = _noise_starts(problem, params, sgd.noise, gradient, seed)
    if signs is None:
        rng = np.random.default_rng(random_seed(seed))
        signs = rng.choice([-1.0, 1.0], size=(count("starts", starts, at_least=2), columns))
    signs = np.asarray(finite_array("signs", signs, ndim=2), dtype=np.float64)
    if signs.shape[1] != columns or len(signs) < 2:
        raise ValueError(f"signs must have shape (n ≥ 2, {columns}), got {signs.shape}")
    curved = hessian_product(problem, params, double=double)

    def product(vector: Any) -> Any:
        return np.asarray(curved(vector), dtype=np.float64)

    def of_starts(start: Callable[[Any], Any], trace: float) -> Quadrature:
        """Quadratures of all starts, whose weights add up to `trace` in the mean."""
        every = (lanczos_quadrature(product, start(one), steps) for one in signs)
        found = Quadrature(*map(np.stack, zip(*every, strict=True)))
        total = found.weights.sum() / len(signs)
        scale = trace / total if total > 0 else 0.0
        return found._replace(
            weights=found.weights * scale, fewer_weights=found.fewer_weights * scale
        )

    noisy = of_starts(start, trace)
    shrink = decay * np.asarray(problem.flatten(left), dtype=np.float64)
    drift = _force(problem, left, pull, shrink, lambda v: lanczos_quadrature(product, v, steps))
    own, minibatch = None, sgd.noise
    if epoch and isinstance(minibatch, Minibatch) and not minibatch.knows_examples(problem):
        rows = key_noise(problem, params, minibatch, draws=DRAWS, seed=seed) / DRAWS**0.5
        own = of_starts(lambda signs: signs @ rows, float(np.sum(rows**2)))

    def spectrum(at: int, fewer: NoiseSpectrum | None) -> NoiseSpectrum:
        return NoiseSpectrum(
            noisy[at] + decay,
            noisy[at + 1],
            trace,
            drift[at] + decay,
            drift[at + 1],
            epoch,
            None if own is None else own[at] + decay,
            None if own is None else own[at + 1],
            fewer,
        )

    return spectrum(0, spectrum(2, None))


means("spectrum", NoiseSpectrum, "what noise_spectrum returns")


@kinds_checked
def predicted_displacement(spectrum: NoiseSpectrum, sgd: SGD, steps: Sequence[int]) -> Estimate:
    """E|θ_K − θ₀|² (params²) after each of `steps` K, of replicas that leave θ₀ together.

    tr(C f_K(H + λI)) for the variance f_K of a mode after K steps of unit noise, plus the square
    of the mean's displacement, all parameters and not a few modes: for a linear force and constant
    noise. Errors are those of random starts, shared by all K, and what the last step of the
    iterations changed: much where K is so long that a rare curvature outgrows all others.

    Source: *derived*.

    >>> import numpy as np
    >>> from statsgd import noise
    >>> from statsgd.problems import quadratic
    >>> sgd = SGD(0.1, noise.Isotropic(1.0))
    >>> found = noise_spectrum(quadratic(np.eye(2)), np.zeros(2), sgd)
    >>> predicted_displacement(found, sgd, [1, 1000]).value.round(4)  # η²d; ηd/(2 − η)
    array([0.02  , 0.1053])
    """
    return _settled(spectrum, lambda one: _over_starts(_curves(one, sgd, steps)))


@kinds_checked
def predicted_rise(spectrum: NoiseSpectrum, sgd: SGD, steps: Sequence[int]) -> Estimate:
    """Rise of L + λ|θ|²/2 (loss) after each of `steps`, of replicas that leave θ₀ together.

    ½ tr(C A f_K(A)), A = H + λI, with f_K as in `predicted_displacement`, plus what the mean gains
    on its way: for a linear force and constant noise, along all parameters. Errors as there.

    Source: *derived*; Zhu et al. (2019), arXiv:1803.00195, for ½η² Tr HC of the first step.

    >>> import numpy as np
    >>> from statsgd import noise
    >>> from statsgd.problems import quadratic
    >>> sgd = SGD(0.1, noise.Isotropic(1.0))
    >>> found = noise_spectrum(quadratic(np.eye(2)), np.zeros(2), sgd)
    >>> predicted_rise(found, sgd, [1]).value.round(4)  # ½η² Tr HC
    array([0.01])
    """

    def of(one: NoiseSpectrum) -> Estimate:
        def rise(nodes: Any, spread: Any, moved: Any) -> tuple[Any, Any]:
            return nodes * spread / 2, moved + one.gradient_curvatures * moved**2 / 2

        return _over_starts(_integrals(one, sgd, steps, rise))

    return _settled(spectrum, of)


@kinds_checked
def predicted_exponent(spectrum: NoiseSpectrum, sgd: SGD, steps: Sequence[int]) -> Estimate:
    """Slope of ln E|θ_K − θ₀|² on ln K over `steps`, as `predicted_displacement` has it.

    The error is the jackknife's over random starts, and what the last step of the iterations
    changed. Measured: `anomalous_exponent`.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd import noise
    >>> from statsgd.problems import quadratic
    >>> sgd = SGD(0.001, noise.Isotropic(1.0))
    >>> found = noise_spectrum(quadratic(np.eye(2)), np.zeros(2), sgd)
    >>> round(float(predicted_exponent(found, sgd, [1, 2, 4, 8]).value), 2)  # diffusion
    1.0
    """
    window = np.asarray(steps, dtype=np.float64)

    def of(one: NoiseSpectrum) -> Estimate:
        return jackknife(lambda mean: displacement_exponent(window, mean), _curves(one, sgd, steps))

    return _settled(spectrum, of)


def _force(
    problem: Problem,
    params: PyTree,
    gradient: Float[Any, " d"],
    shrink: Float[Any, " d"],
    quadrature: Callable[[Any], Quadrature],
) -> Quadrature:
    """Of fᵀ·f for the mean force f = ∇L + λθ₀, `gradient` + `shrink`, without bias.

    The square of a gradient that is a mean over draws has their noise in it, which K steps carry
    K times as far as noise that is new in each. With as many other draws, the mean a of both
    forces and half their difference b, aᵀ·a − bᵀ·b is the product of two independent forces.
    """
    more = with_twice_the_draws(problem)
    if more is None:
        return quadrature(gradient + shrink)
    _, both = loss_and_gradient(more, params)
    parts = quadrature(both + shrink), quadrature(gradient - both)
    nodes, weights, fewer_nodes, fewer_weights = zip(*parts, strict=True)
    return Quadrature(
        np.concatenate(nodes),
        np.concatenate([weights[0], -weights[1]]),
        np.concatenate(fewer_nodes),
        np.concatenate([fewer_weights[0], -fewer_weights[1]]),
    )


def _curves(spectrum: NoiseSpectrum, sgd: SGD, steps: Sequence[int]) -> Float[Any, "n steps"]:
    """E|θ_K − θ₀|² of each start."""
    return _integrals(spectrum, sgd, steps, lambda _, spread, moved: (spread, moved**2))


def _integrals(
    spectrum: NoiseSpectrum, sgd: SGD, steps: Sequence[int], function: Callable[..., Any]
) -> Float[Any, "n steps"]:
    """Of each start, the integral over noise, and that over the mean force, which all share.

    Of what `function` makes of curvatures, the variance of unit noise there, and the displacement
    under unit force.
    """
    eta, beta = sgd.learning_rate, sgd.momentum
    of_noise = transitions(spectrum.curvatures, eta, beta)
    of_mean = transitions(spectrum.gradient_curvatures, eta, beta)
    own = spectrum.independent_curvatures
    of_own = None if own is None else transitions(own, eta, beta)
    ones, rest = np.ones(len(of_mean)), np.zeros((len(of_mean), 2))
    columns = []
    for number in (count("steps", step) for step in steps):
        spread = response(of_noise, of_noise, eta, number, spectrum.epoch)[..., 0, 0]
        moved = mean_state(of_mean, eta, ones, rest, number)[:, 0]
        noisy, drifting = function(spectrum.curvatures, spread, moved)
        drift = spectrum.gradient_weights @ drifting
        found = np.sum(spectrum.weights * noisy, axis=1) + drift
        if of_own is not None and spectrum.epoch is not None:
            # White in place of what an epoch would make of it.
            ask = of_own, of_own, eta, number, spectrum.epoch
            excess = independent_response(*ask)[..., 0, 0] - response(*ask)[..., 0, 0]
            noisy, _ = function(own, excess, moved)
            found += np.sum(spectrum.independent_weights * noisy, axis=1)
        columns.append(found)
    return np.stack(columns, axis=1)


def _settled(spectrum: NoiseSpectrum, of: Callable[[NoiseSpectrum], Estimate]) -> Estimate:
    """What `of` finds, with what the last step of the iterations changed as part of its error."""
    found = of(spectrum)
    if spectrum.fewer is None:
        return found
    change = np.abs(found.value - of(spectrum.fewer).value)
    return found._replace(standard_error=np.hypot(found.standard_error, change))


def _over_starts(values: Float[Any, "n *rest"]) -> Estimate:
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return Estimate(values.mean(axis=0), error, len(values))


def _noise_starts(
    problem: Problem, params: PyTree, noise: GradientNoise, gradient: Float[Any, " d"], seed: int
) -> tuple[Callable[[Any], Any], int, float]:
    """Vectors of signs ↦ starts, the number of signs, and tr C."""
    if isinstance(noise, Minibatch) and not noise.knows_examples(problem):
        rows = gradient_noise(problem, params, noise, draws=DRAWS, seed=seed) / DRAWS**0.5
        return lambda signs: signs @ rows, DRAWS, float(np.sum(rows**2))
    if isinstance(noise, Minibatch) and isinstance(problem, EmpiricalRisk):
        number, factor = problem.num_examples, noise.variance_factor(problem)
        trace = factor * (example_square(problem, params) - float(gradient @ gradient))

        def start(signs: Any) -> Any:
            return weighted_gradient(problem, params, signs - signs.mean()) * number**0.5

        return start, number, max(trace, 0.0)
    root = in_double_precision(noise.root, problem, params)
    if np.ndim(root) == 0:
        return lambda signs: root * signs, problem.dimension, float(root**2 * problem.dimension)
    return lambda signs: root @ signs, root.shape[1], float(np.sum(root**2))
