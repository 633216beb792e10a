"""The battery of tests that any law can be put to: what it says, held against what else it says.

Nothing here asks what type a law is. Every test compares two of a law's statements, so that a fault
in one of them is named by the tests that read it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
from jaxtyping import Float
from numpyro.infer.util import log_density as model_log_density

from statsgd.arguments import kinds_checked
from statsgd.laws.evidence import DoesNotApply, Evidence
from statsgd.laws.law import ImproperLawError, IntractableError, Law

_SIGMAS = 4.5  # a few statistics are looked at together
_METROPOLIS_STEPS = 12
_FINE = {1: 20_001, 2: 401}  # nodes an axis of the quadrature
_REACH = {1: 12.0, 2: 7.0}  # asinh of how many scales out it goes


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one test found."""

    test: str
    passed: bool | None
    """None where the test does not apply."""
    words: str
    """What fails, or why the test does not apply; empty where it passed."""


@dataclasses.dataclass(frozen=True)
class LawCheck:
    """What the battery found on one law."""

    law: str
    outcomes: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether no test failed."""
        return not self.failures

    @property
    def failures(self) -> dict[str, str]:
        """What fails, in words, by the name of the test."""
        return {o.test: o.words for o in self.outcomes if o.passed is False}

    def to_dataframe(self) -> pd.DataFrame:
        """One row a test: `test`, `passed` (None where it does not apply), `words`."""
        return pd.DataFrame([dataclasses.asdict(outcome) for outcome in self.outcomes])

    def __str__(self) -> str:
        held = sum(outcome.passed is True for outcome in self.outcomes)
        lines = [f"{self.law}: {held} tests passed, {len(self.failures)} failed"]
        for outcome in self.outcomes:
            if outcome.passed is False:
                lines.append(f"  {outcome.test} FAILS: {outcome.words}")
            elif outcome.passed is None:
                lines.append(f"  {outcome.test} does not apply: {outcome.words}")
        return "\n".join(lines)


@kinds_checked
def check(law: Law, *, draws: int = 40_000, seed: int = 0) -> LawCheck:
    """Put `law` to the battery, registered or not, and say in words what fails.

    The tests, each of which passes, fails or does not apply with its reason: the sites of its
    model; its density integrates to one (d ≤ 2, against quadrature); draws follow the density (a
    Metropolis step must leave them as they are), have the moments, and the distribution functions;
    quantiles invert these; the score is the density's slope; batches equal single points; the model
    has the density; float32 agrees with float64; what is wrong is refused.

    **Arguments:** `draws`, exact draws to look at, at least 1000: with 40 000 a factor of 1.05 in
    a variance is seen. A law that passes at one seed may fail at another with probability about
    10⁻⁴.

    **Returns** a `LawCheck` with `passed`, `failures` by name, and a `str` in words. Raises
    `ImproperLawError` for a law that does not exist.

    >>> from statsgd.laws import GaussianLaw
    >>> found = check(GaussianLaw([0.0], [[1.0]]), draws=2000)
    >>> found.passed, found.failures
    (True, {})
    >>> found.to_dataframe().columns.tolist()
    ['test', 'passed', 'words']
    """
    law.require_proper()
    evidence = Evidence(law, draws=draws, seed=seed)
    outcomes = tuple(run_test(name, evidence) for name in TESTS)
    return LawCheck(type(law).__name__, outcomes)


def run_test(name: str, evidence: Evidence) -> Finding:
    """One test of `TESTS` on a law."""
    try:
        words = TESTS[name](evidence)
    except DoesNotApply as reason:
        return Finding(name, None, str(reason))
    except IntractableError as refusal:
        return Finding(name, None, f"the law does not say: {refusal}")
    except Exception as error:  # whatever somebody's law does wrong is a finding
        return Finding(name, False, f"raised {type(error).__name__}: {error}")
    return Finding(name, not words, words)


def _sites(evidence: Evidence) -> str:
    law = evidence.law
    model = numpyro.handlers.seed(law.model, evidence.seed)
    if not law.exact_draws:  # a flat prior cannot be drawn from
        model = numpyro.handlers.substitute(model, data={"params": evidence.points[0]})
    try:
        trace = numpyro.handlers.trace(model).get_trace()
    except NotImplementedError:  # a flat prior beside draws of another origin
        model = numpyro.handlers.substitute(model, data={"params": evidence.points[0]})
        trace = numpyro.handlers.trace(model).get_trace()
    missing = [name for name in law.variables if name not in trace]
    if missing:
        return f"the model lacks the sites {missing}, which are variables of the law"
    shapes = {name: np.shape(trace[name]["value"]) for name in law.variables}
    if any(shape != (law.dimension,) for shape in shapes.values()):
        return f"the sites must have shape ({law.dimension},), got {shapes}"
    discrete = any(
        site["fn"].is_discrete and not site["is_observed"]
        for site in trace.values()
        if site["type"] == "sample"
    )
    if discrete != law.has_discrete_sites:
        return f"has_discrete_sites is {law.has_discrete_sites}, but the model says {discrete}"
    return ""


def _draws(evidence: Evidence) -> str:
    law = evidence.law
    one = law.draw(jax.random.key(evidence.seed), ())
    for shape, values in ((), one), (evidence.rows, evidence.drawn["params"]):
        if np.shape(values) != (*shape, law.dimension):
            wanted = (*shape, law.dimension)
            return f"draw(key, {shape}) has shape {np.shape(values)} instead of {wanted}"
    for name, values in evidence.variables.items():
        if not np.all(np.isfinite(values)):
            return f"{int(np.sum(~np.isfinite(values)))} numbers of draws of {name} are not finite"
        moving = np.ptp(values, axis=0) > 0
        if np.any(moving) and len(np.unique(values[:, moving], axis=0)) < 0.9 * len(values):
            return f"draws of {name} repeat"
    return ""


def _normalisation(evidence: Evidence) -> str:
    law = evidence.law
    if not law.normalized:
        raise DoesNotApply("the density is not normalised, and says so")
    if law.dimension > 2:
        raise DoesNotApply(f"quadrature reaches d = 2, and d = {law.dimension}")
    _ = evidence.density
    fine, coarse = _masses(evidence)
    error = abs(fine - coarse)
    if error > 2e-3 and abs(fine - 1) < 5 * error:
        raise DoesNotApply(f"quadrature does not resolve the density: {fine:.4g} ± {error:.2g}")
    tolerance = 2e-3 + 2 * error
    if abs(fine - 1) > tolerance:
        return f"exp(log_density) integrates to {fine:.5g} instead of 1 (± {tolerance:.1g})"
    return ""


def _masses(evidence: Evidence) -> tuple[float, float]:
    """∫ p by the trapezoidal rule in asinh of the distance from the centre, in widths.

    On all nodes, and on every other one of each axis.
    """
    d = evidence.law.dimension
    middle, width = evidence.scale
    t = np.linspace(-_REACH[d], _REACH[d], _FINE[d])
    axes = [middle[i] + width[i] * np.sinh(t) for i in range(d)]
    stretch = np.log(np.cosh(t) * (t[1] - t[0]))
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    logs = np.asarray(evidence.law.log_density(points)) + np.sum(np.log(width))
    logs = logs + sum(stretch.reshape([-1 if j == i else 1 for j in range(d)]) for i in range(d))
    parts = np.exp(logs)
    return float(np.sum(parts)), float(2**d * np.sum(parts[(slice(None, None, 2),) * d]))


def _density_of_draws(evidence: Evidence) -> str:
    law, x = evidence.law, evidence.variables["params"]
    _ = evidence.density
    middle, width = evidence.scale
    rng = np.random.default_rng(evidence.seed + 1)
    now = np.asarray(law.log_density(x))
    if np.any(np.isneginf(now)):
        return f"{int(np.sum(np.isneginf(now)))} of {len(now)} draws lie where the density is zero"

    def summaries(x, logs):
        u = np.tanh((x - middle) / width)
        depth = np.tanh((logs - typical) / spread)
        return np.concatenate([u, u**2, depth[:, None]], axis=1)

    low, typical, high = np.quantile(now, [0.25, 0.5, 0.75])
    spread = max(high - low, 1e-12)
    before = summaries(x, now)
    for step in range(_METROPOLIS_STEPS):
        reach = width * 1.5 / np.sqrt(law.dimension) * 0.5 ** (step % 3)
        moved = x + reach * rng.normal(size=x.shape)
        there = np.asarray(law.log_density(moved))
        taken = np.log(rng.random(len(x))) < there - now
        x = np.where(taken[:, None], moved, x)
        now = np.where(taken, there, now)
    change = summaries(x, now) - before
    error = change.std(axis=0) / np.sqrt(len(change))
    z = np.abs(change.mean(axis=0)) / np.where(error > 0, error, np.inf)
    if np.any(z > _SIGMAS):
        what = ["location", "spread", "density"][min(int(np.argmax(z)) // law.dimension, 2)]
        return (
            "draws do not follow the density: a Metropolis step on it changes their "
            f"{what} by {np.max(z):.1f} standard errors"
        )
    return ""


def _moments_of_draws(evidence: Evidence) -> str:
    law = evidence.law
    for name, values in evidence.variables.items():
        mean = np.asarray(law.mean(name), dtype=np.float64)
        covariance = np.asarray(law.covariance(name), dtype=np.float64)
        if mean.shape != (law.dimension,) or covariance.shape != (law.dimension,) * 2:
            return f"mean and covariance of {name} have shapes {mean.shape} and {covariance.shape}"
        if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(covariance))):
            raise DoesNotApply("the law's moments are infinite")
        spread = np.sqrt(np.diagonal(covariance))
        still = spread == 0
        rounding = 1e-6 * np.abs(mean)
        if np.any(np.abs(values - mean)[:, still] > rounding[still]):
            return f"draws of {name} leave the mean where the law's variance is zero"
        if np.all(still):
            continue
        unit = np.where(still, 1.0, spread)
        standard = ((values - mean) / unit)[:, ~still]
        found = _deviation(standard)
        if found > _SIGMAS:
            return f"the mean of {name} is {found:.1f} standard errors from that of draws"
        products = standard[:, :, None] * standard[:, None, :]
        wanted = (covariance / np.outer(unit, unit))[np.ix_(~still, ~still)]
        if _heavy(products):
            raise DoesNotApply("fourth moments are too heavy for an error of the covariance")
        found = _deviation((products - wanted).reshape(len(values), -1))
        if found > _SIGMAS:
            ratio = np.mean(standard**2)
            return (
                f"the covariance of {name} is {found:.1f} standard errors from that of draws, "
                f"whose variances are {ratio:.4g} times those stated"
            )
    return ""


def _deviation(values: Float[np.ndarray, "n k"]) -> float:
    """The largest mean in standard errors."""
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return float(np.max(np.abs(values.mean(axis=0)) / np.where(error > 0, error, np.inf)))


def _heavy(products: Float[np.ndarray, "n d d"]) -> bool:
    """Whether a single draw makes up a tenth of a second moment of the products."""
    squares = products.reshape(len(products), -1) ** 2
    return bool(np.any(squares.max(axis=0) > 0.1 * squares.sum(axis=0)))


def _distribution_of_draws(evidence: Evidence) -> str:
    law = evidence.law
    levels = np.array([0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
    drawn = evidence.variables["params"]
    edges = np.quantile(drawn, levels, axis=0)
    stated = np.asarray(law.cdf(edges))
    error = np.sqrt(levels * (1 - levels) / len(drawn))[:, None]
    z = np.abs(stated - levels[:, None]) / error
    # Draws of one value have no quantiles to speak of.
    z = np.where(np.ptp(drawn, axis=0) > 0, z, 0.0)
    if np.max(z) > _SIGMAS:
        row, column = np.unravel_index(np.argmax(z), z.shape)
        return (
            f"cdf of coordinate {column} is {stated[row, column]:.4g} where {levels[row]} of the "
            f"draws lie below, {np.max(z):.1f} standard errors off"
        )
    return ""


def _quantiles(evidence: Evidence) -> str:
    law = evidence.law
    levels = np.array([[0.02, 0.3], [0.5, 0.9]])
    found = np.asarray(law.quantile(levels))
    if found.shape != (2, 2, law.dimension):
        return (
            f"quantile of shape (2, 2) has shape {found.shape} instead of (2, 2, {law.dimension})"
        )
    back = np.asarray(law.cdf(found))
    # A coordinate of one value has no inverse.
    moving = np.ptp(found.reshape(4, -1), axis=0) > 0
    worst = float(np.max(np.abs(back - levels[..., None])[..., moving], initial=0.0))
    if not worst < 1e-6:
        return f"cdf(quantile(p)) is off p by up to {worst:.2g}"
    return ""


def _score(evidence: Evidence) -> str:
    law, points = evidence.law, evidence.points
    _ = evidence.density
    score = np.asarray(law.score(points))
    if score.shape != points.shape:
        return f"score of points {points.shape} has shape {score.shape}"
    _, width = evidence.scale
    step = 1e-5 * width
    # As many points at once as everywhere else: another number may have to be compiled for.
    rises = [
        np.asarray(law.log_density(points + move)) - np.asarray(law.log_density(points - move))
        for move in np.eye(law.dimension) * step
    ]
    slope = np.stack(rises, axis=-1) / (2 * step)
    unit = np.median(np.abs(slope)) + 1e-3 / width
    # The median: a few points may lie at a kink.
    off = np.median(np.abs(score - slope) / unit)
    if not off < 1e-3:
        reverse = np.median(np.abs(score + slope) / unit) < 1e-3
        how = "its sign is reversed" if reverse else f"off by a factor of {off:.2g} of its size"
        return f"the score is not the slope of log_density: {how}"
    return ""


def _batches(evidence: Evidence) -> str:
    law = evidence.law
    _ = evidence.density
    points = np.resize(evidence.points, (6, law.dimension))
    for name in ("log_density", "score", "cdf"):
        method = getattr(law, name)
        try:
            alone = np.stack([np.asarray(method(point)) for point in points])
        except IntractableError:
            continue
        for lead in ((6,), (2, 3)):
            together = np.asarray(method(points.reshape(*lead, law.dimension)))
            wanted = (*lead, *alone.shape[1:])
            if together.shape != wanted:
                return f"{name} of points {(*lead, law.dimension)} has shape {together.shape}"
            if not np.allclose(together.reshape(alone.shape), alone, rtol=1e-9, atol=1e-9):
                return f"{name} of a batch {lead} differs from single points"
    return ""


def _model(evidence: Evidence) -> str:
    law, points = evidence.law, evidence.points
    stated = evidence.density
    if law.normalized:
        found, _ = model_log_density(law.model, (jnp.asarray(points),), {}, {})
        gap, scale = float(found) - stated.sum(), np.abs(stated).sum()
        if not abs(gap) < 1e-3 * (1 + scale):
            return (
                f"the model conditioned on {len(points)} points is off their density by {gap:.3g}"
            )
        return ""

    def energy(point):
        return model_log_density(law.chain_model, (), {}, {"params": jnp.asarray(point)})[0]

    found = np.array([float(energy(point)) for point in points[:4]])
    gap = (found - found[0]) - (stated[:4] - stated[0])
    if not np.max(np.abs(gap)) < 1e-3 * (1 + np.max(np.abs(stated[:4] - stated[0]))):
        return f"the model's density differs from log_density by up to {np.max(np.abs(gap)):.3g}"
    return ""


def _precisions(evidence: Evidence) -> str:
    law, points = evidence.law, evidence.points
    double = evidence.density
    if np.asarray(double).dtype != np.float64:
        return f"log_density of concrete points must be in float64, got {double.dtype}"
    single, slope = map(np.asarray, _in_single_precision(law._evaluated(), jnp.asarray(points)))
    close = np.isclose(single, double, rtol=2e-3, atol=2e-3)
    if not np.mean(close) > 0.8:  # a few points may sit where float32 cannot tell them from an edge
        worst = float(np.nanmax(np.abs(single - double)))
        return f"log_density traced in float32 is off float64 by up to {worst:.3g}"
    if not np.all(np.isfinite(slope)):
        return "the gradient of log_density is not finite in float32"
    return ""


@eqx.filter_jit
def _in_single_precision(law: Law, points: Float[Any, "n d"]) -> tuple[Any, Any]:
    return jax.vmap(law.log_density)(points), jax.vmap(jax.grad(law.log_density))(points)


def _refusals(evidence: Evidence) -> str:
    law = evidence.law
    wrong = np.zeros((3, law.dimension + 1))
    for name in ("log_density", "score", "cdf"):
        if (response := _accepts(getattr(law, name), wrong)) is not None:
            return f"{name} of points {wrong.shape} {response}; it must raise ValueError"
    for name, value in (("mean", "nothing"), ("quantile", 1.5)):
        if (response := _accepts(getattr(law, name), value)) is not None:
            return f"{name}({value!r}) {response}; it must raise ValueError"
    for improper in type(law).improper_examples():
        uses = {"require_proper": improper.require_proper, "model": improper.model}
        point = np.zeros(improper.dimension)
        uses["log_density"] = functools.partial(improper.log_density, point)
        uses["draw"] = functools.partial(improper.draw, jax.random.key(0))
        for name, use in uses.items():
            try:
                use()
            except ImproperLawError:
                continue
            return f"{name} of an improper example does not raise ImproperLawError"
    return ""


def _accepts(method: Callable[[Any], Any], value: Any) -> str | None:
    """What a method does with a wrong argument instead of raising `ValueError`; None if it does."""
    try:
        method(value)
    except ValueError:
        return None
    except Exception as error:
        return f"raises {type(error).__name__}"
    return "is accepted"


#: The tests by name, in the order in which they are run.
TESTS: dict[str, Callable[[Evidence], str]] = {
    "sites": _sites,
    "draws": _draws,
    "normalisation": _normalisation,
    "density of draws": _density_of_draws,
    "moments of draws": _moments_of_draws,
    "cdf of draws": _distribution_of_draws,
    "quantiles": _quantiles,
    "score": _score,
    "batches": _batches,
    "model": _model,
    "precisions": _precisions,
    "refusals": _refusals,
}
