"""What a law promises: the contract that every stationary law keeps, in one base class.

A law speaks about flat parameters `(d,)` and, if it is a law of the pair, about the momentum
buffer. What users call is stated once, here, with one rule of shapes:

    log_density(params)      (..., d) → (...)       leading axes are batch axes, everywhere
    score(params)            (..., d) → (..., d)    ∇ log p
    cdf(params)              (..., d) → (..., d)    of every coordinate's marginal
    quantile(probability)    (...)    → (..., d)    of every coordinate's marginal
    mean(variable)                    → (d,)
    covariance(variable, other)       → (d, d)
    expectation(function)             → the shape of function(params) at one point
    draw(key, shape)                  → (*shape, d)

Concrete arguments give NumPy arrays in float64, traced ones are computed in the precision of the
trace. Everything first calls `ensure_proper`: `require_proper` raises `ImproperLawError`. What a
law cannot say in closed form or by quadrature raises `IntractableError`. Whether draws are exact is
`exact_draws`, and whether `log_density` integrates to one is `normalized`: properties of the
instance, which all else reads.

A new law states `dimension`, `require_proper`, `model` and `_log_density` (of one point, in JAX),
and of `_mean`, `_covariance`, `_cdf`, `_quantile`, `_quadrature`, `_averaged`, `_draw` what it
knows; in
`small_numbers` it says how far it holds.
`statsgd.laws.check` tests all of it.
"""

import abc
import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import numpyro.handlers
from jaxtyping import Float, Key, PRNGKeyArray

from statsgd.arguments import count, instance, is_traced, means, one_of, real
from statsgd.display import html, spoken
from statsgd.dynamics.sgd import SGD
from statsgd.estimate import Estimate, sample_mean
from statsgd.laws.boxes import cell_integrals
from statsgd.laws.domain import SmallNumber
from statsgd.laws.expected import Columns, Expected, by_weights
from statsgd.precision import in_double_precision, over_points
from statsgd.problems import Problem

#: Every public law by name; `register` fills it. Tests, tables and the catalogue run over it.
LAWS: dict[str, type["Law"]] = {}

#: Relative errors above which numbers that come from quadrature warn, and are refused.
WARNED, REFUSED = 1e-3, 0.1


def register(law: type["Law"]) -> type["Law"]:
    """Add a law to `LAWS`.

    >>> from statsgd.laws import GaussianLaw
    >>> @register
    ... class MyGaussian(GaussianLaw):
    ...     setting = "SGD on a problem of one's own"
    >>> LAWS.pop("MyGaussian").__name__  # found by its name, and taken out again
    'MyGaussian'
    """
    LAWS[law.__name__] = law
    return law


class ImproperLawError(ValueError):
    """The law cannot be normalised, or has no stationary state, at the given parameters.

    The message states the condition with both sides of the inequality.
    """


class IntractableError(ValueError):
    """The law knows this quantity neither in closed form nor by quadrature: draw from it."""


class UnresolvedWarning(UserWarning):
    """A number is off by more than it should be: a grid is too coarse, or its box too small."""


def require_accurate(name: str, error: Any, warned: float = WARNED) -> None:
    """Warn where the relative error of the quantity `name` is above `warned`, refuse above 0.1."""
    if not error <= REFUSED:
        raise IntractableError(f"quadrature does not resolve the {name}: off by {float(error):.2g}")
    if error > warned:
        warnings.warn(
            f"the {name} is not resolved: it is off by about {float(error):.2g} of itself",
            UnresolvedWarning,
            stacklevel=3,
        )


class Law(eqx.Module):
    """A stationary law of SGD over flat parameters `(d,)`; the module states the contract.

    A law can be built at any parameters; everything that reads it first calls `ensure_proper`.
    """

    #: One line each for the catalogue: where the law applies, how exact it is, who published it.
    setting: ClassVar[str] = ""
    exactness: ClassVar[str] = ""
    citation: ClassVar[str] = ""

    #: Relative error of an expectation above which it warns.
    warned: ClassVar[float] = WARNED

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        build = vars(cls).get("from_sgd")
        if isinstance(build, classmethod):
            cls.from_sgd = _of_problem_and_sgd(build.__func__)  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return spoken(self)

    def _repr_html_(self) -> str:
        return html(self)

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables the law speaks about, sites of `model`."""
        return ("params",)

    @property
    def exact_draws(self) -> bool:
        """Whether `draw` gives exact independent draws."""
        return True

    @property
    def has_discrete_sites(self) -> bool:
        """Whether `model` has discrete latent sites; Markov chains then run on the density."""
        return False

    @property
    def normalized(self) -> bool:
        """Whether `log_density` integrates to one."""
        return True

    # What a final class states.

    @property
    @abc.abstractmethod
    def dimension(self) -> int:
        """Number of parameters d."""

    @abc.abstractmethod
    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """NumPyro model with the sites `variables`; `obs` are endpoints to condition on."""

    @abc.abstractmethod
    def require_proper(self) -> None:
        """Raise `ImproperLawError` if the law does not exist at these parameters."""

    def _log_density(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """Log density of one point, in JAX."""
        self._cannot_say("density")

    def _joint_log_density(
        self, params: Float[Any, " d"], momentum_buffer: Float[Any, " d"]
    ) -> Float[Any, ""]:
        """Log density of one pair, in JAX."""
        self._cannot_say("density of the pair")

    def _require_density(self, variables: tuple[str, ...]) -> None:
        """Raise `ImproperLawError` where `variables` have moments and draws, but no density."""

    def _mean(self, variable: str) -> Float[Any, " d"]:
        """Mean of `variable`; by default by quadrature."""
        if variable != "params":
            self._cannot_say(f"mean of {variable}")
        points, weights = self._quadrature_for("mean")
        return weights @ points

    def _covariance(self, variable: str, other: str) -> Float[Any, "d d"]:
        """Covariance of two variables; by default by quadrature."""
        if (variable, other) != ("params", "params"):
            self._cannot_say(f"covariance of {variable} and {other}")
        points, weights = self._quadrature_for("covariance")
        deviation = points - weights @ points
        return deviation.T @ (deviation * weights[:, None])

    def _cdf(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        """Marginal distribution functions."""
        self._cannot_say("distribution function")

    def _quantile(self, probability: Float[Any, "..."]) -> Float[Any, "... d"]:
        """Marginal quantiles at probabilities in (0, 1)."""
        self._cannot_say("quantiles")

    def _quadrature(self) -> tuple[Float[Any, "n d"], Float[Any, " n"]] | None:
        """Points and weights, which sum to one, that integrate against the law; None for none."""
        return None

    def _averaged(self, values: Columns) -> Expected:
        """E f of the functions `values`: by `_quadrature`, whose error a base class may know."""
        return by_weights(values, *self._quadrature_for("expectations"), np.nan)

    def _evaluated(self) -> Self:
        """The law as far as its formulas read it: what else it holds must not be compiled in."""
        return self

    def _draw(self, key: PRNGKeyArray, number: int) -> Mapping[str, Any]:
        """`number` independent draws of all `variables`, and what else the model makes of them.

        By default the model is run forward.
        """
        return _run_forward(self._evaluated(), jax.random.split(key, number))

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """Instances at ordinary parameters, in dimensions that quadrature reaches where possible.

        The test battery, the catalogue and the documentation run over them: a new law gets all
        three by listing a few, or by yielding them where they take long to solve.
        """
        return ()

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """Instances that `require_proper` must refuse; empty if every instance is proper."""
        return ()

    # What users call.

    def small_numbers(self, problem: Problem, sgd: Any) -> Sequence[SmallNumber]:
        """What must be small for the law, which was built for them, to hold for `sgd` on `problem`.

        Up to the bounds its marginals are within 5 % of the chain's. Empty where it states none.
        """
        return ()

    def ensure_proper(self) -> None:
        """`require_proper`, unless the law is traced: then there is nothing to look at.

        Also where a caller is traced, whose operations on concrete arrays would be traced too.
        """
        if not is_traced(self):
            with jax.core.eval_context():
                self.require_proper()

    def log_density(
        self, params: Float[Any, "... d"], momentum_buffer: Float[Any, "... d"] | None = None
    ) -> Float[Any, "..."]:
        """Log density of `params`, or of the pair, with respect to Lebesgue measure.

        Leading axes are batch axes. Unnormalised where `normalized` is False. Raises
        `ImproperLawError`, also where the law has no density, and `ValueError` for other shapes and
        for a buffer that is no part of the law.
        """
        self.ensure_proper()
        points = self._points("params", params)
        if momentum_buffer is None:
            self._require_density(("params",))
            return over_points(_log_density_at, points, self._evaluated())
        if "momentum_buffer" not in self.variables:
            raise ValueError(f"{type(self).__name__} is a law of params alone: no momentum_buffer")
        self._require_density(("params", "momentum_buffer"))
        buffer = self._points("momentum_buffer", momentum_buffer)
        xp = jnp if is_traced(points, buffer) else np
        lead = np.broadcast_shapes(points.shape, buffer.shape)
        pair = [xp.broadcast_to(part, lead) for part in (points, buffer)]
        return over_points(_joint_log_density_at, xp.concatenate(pair, axis=-1), self._evaluated())

    def score(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        """∇ log p at `params`; leading axes are batch axes."""
        self.ensure_proper()
        self._require_density(("params",))
        return over_points(_score_at, self._points("params", params), self._evaluated())

    def mean(self, variable: str = "params") -> Float[Any, " d"]:
        """Mean of one of `variables`; NaN where it does not exist.

        Raises `IntractableError` where the law does not know it.
        """
        self.ensure_proper()
        return self._mean(one_of("variable", variable, self.variables))

    def covariance(self, variable: str = "params", other: str | None = None) -> Float[Any, "d d"]:
        """Covariance of a variable, or Cov(variable, other); infinite where it does not exist.

        Raises `IntractableError` where the law does not know it.
        """
        self.ensure_proper()
        second = variable if other is None else one_of("other", other, self.variables)
        return self._covariance(one_of("variable", variable, self.variables), second)

    def cdf(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        """Distribution function of every coordinate's marginal; leading axes are batch axes.

        Raises `IntractableError` where the law does not know it.
        """
        self.ensure_proper()
        return self._cdf(self._points("params", params))

    def quantile(self, probability: Any) -> Float[Any, "... d"]:
        """Quantiles of every coordinate's marginal at probabilities in (0, 1).

        Raises `IntractableError` where the law does not know them.
        """
        self.ensure_proper()
        return self._quantile(
            real("probability", probability, allowed="in (0, 1)", valid=lambda p: (p > 0) & (p < 1))
        )

    def expectation(self, function: Callable[[Float[Any, " d"]], Any]) -> Any:
        """E f(θ) for a JAX function of one point `(d,)`, by quadrature; f may jump.

        A function made anew for every call is compiled anew. Warns with `UnresolvedWarning` where
        it may be off by more than 10⁻³ of E|f|, or 10⁻² on grids. Raises `IntractableError` where
        by more than a tenth, and where the law has no quadrature: see `expectation_estimate`.
        """
        found = self._expected(function)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.divide(found.error, found.size)
        worst = np.fmax.reduce(np.ravel(share), initial=0.0)
        require_accurate("expectation", worst, self.warned)
        return found.value

    def expectation_estimate(
        self,
        function: Callable[[Float[Any, " d"]], Any],
        key: PRNGKeyArray | None = None,
        draws: int = 10_000,
    ) -> Estimate:
        """E f(θ) with its error, whatever that is.

        By quadrature, with a bound on the numerical error (NaN where the law knows none). With a
        `key` from so many independent `draws`, with their standard error.
        """
        if key is not None:
            points = self.draw(key, (count("draws", draws, at_least=2),))
            values = np.asarray(over_points(function, points), dtype=np.float64)
            return in_double_precision(sample_mean, values)
        return Estimate(*self._expected(function)[:2])

    def quadrature(self) -> tuple[Float[Any, "n d"], Float[Any, " n"]]:
        """Points and weights, which sum to one, that integrate functions against the law.

        Raises `IntractableError` where the law has none.
        """
        return self._quadrature_for("quadrature")

    def cell_masses(self, grid: Any) -> Float[Any, "..."]:
        """Masses of the cells of a `grids.Grid`, normalised over it; shape `grid.cells`.

        By the distribution function of one parameter where the law knows it, else by cells that are
        divided until they are resolved. Warns with `UnresolvedWarning` where the masses are off by
        more than 10⁻³ in all, and raises `IntractableError` where by more than a tenth.
        """
        if grid.dimension == 1:
            try:
                masses = np.diff(np.asarray(self.cdf(grid.edges()[:, None]))[:, 0])
                return masses / masses.sum()
            except IntractableError:
                pass
        masses, error = cell_integrals(self.log_density, grid.points(), grid.spacing)
        require_accurate("masses of the cells", np.sum(error) / np.sum(masses))
        return (masses / masses.sum()).reshape(grid.cells)

    def directions(self) -> Float[Any, "d k"]:
        """Orthonormal columns that are worth looking along: eigenvectors of the covariance."""
        return np.linalg.eigh(np.asarray(self.covariance(), dtype=np.float64))[1]

    def kept(
        self, steps: int, learning_rate: float | None = None, momentum: float | None = None
    ) -> Float[Any, " k"] | None:
        """Share of a displacement that each of `directions` keeps over `steps`; None if unknown.

        At another learning rate or momentum than the law's own where they are given.
        """
        return None

    def draw(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> Float[Any, "*shape d"]:
        """Independent draws of `params`; `IntractableError` unless `exact_draws`."""
        return self.draw_variables(key, shape)["params"]

    def draw_variables(
        self, key: PRNGKeyArray, shape: tuple[int, ...] = ()
    ) -> Mapping[str, Float[Any, "*shape d"]]:
        """Independent joint draws of all `variables`; `IntractableError` unless `exact_draws`."""
        draws = self.draw_sites(key, int(np.prod(shape, dtype=int)))
        return {name: draws[name].reshape(*shape, self.dimension) for name in self.variables}

    def draw_sites(self, key: PRNGKeyArray, number: int) -> Mapping[str, Any]:
        """`number` independent draws of all `variables` and of what else the model makes of them.

        Raises `IntractableError` unless `exact_draws`.
        """
        self.ensure_proper()
        if not self.exact_draws:
            self._cannot_say("exact sampler")
        return self._draw(key, number)

    def chain_model(self) -> None:
        """The NumPyro model that Markov chains run on: `model`, unless it has discrete sites.

        Then the same law without them: a flat prior on `params` times the density.
        """
        if not self.has_discrete_sites:
            self.model()
            return
        flat = dist.ImproperUniform(dist.constraints.real_vector, (), (self.dimension,))
        params = numpyro.sample("params", flat)
        numpyro.factor("stationary_law", self.log_density(params))

    def starting_points(
        self, key: PRNGKeyArray, number: int
    ) -> Mapping[str, Float[Any, "number ..."]] | None:
        """Where `number` chains on `chain_model` do well to start, as values of its latent sites.

        None where the law has nothing better to offer than random points. Laws that can be drawn
        from, though not through that model, start chains at such draws: in every well.
        """
        return {"params": self.draw(key, (number,))} if self.has_discrete_sites else None

    def describe(self) -> dict[str, Any]:
        """Name, setting, exactness and citation, for provenance and reports."""
        return {
            "name": type(self).__name__,
            "setting": self.setting,
            "exactness": self.exactness,
            "citation": self.citation,
        }

    def _points(self, name: str, value: Any) -> Any:
        """`value` as points `(..., d)`: traced, or in float64."""
        points = value if is_traced(value) else np.asarray(value, dtype=np.float64)
        if points.ndim == 0 or points.shape[-1] != self.dimension:
            raise ValueError(
                f"{name} must have shape (..., {self.dimension}), the last axis for the parameters "
                f"of {type(self).__name__}, got {points.shape}"
            )
        return points

    def _expected(self, function: Callable[[Float[Any, " d"]], Any]) -> Expected:
        self.ensure_proper()
        columns = Columns(function)
        return self._averaged(columns).shaped(columns.shape)

    def _quadrature_for(self, what: str) -> tuple[Float[Any, "n d"], Float[Any, " n"]]:
        self.ensure_proper()
        found = self._quadrature()
        if found is None:
            self._cannot_say(what)
        return found

    def _cannot_say(self, what: str) -> NoReturn:
        raise IntractableError(
            f"{type(self).__name__} in d = {self.dimension} knows no {what} in closed form or by "
            "quadrature: estimate it from draws (Law.draw, or statsgd.sample)"
        )


def _of_problem_and_sgd(build: Callable[..., Any]) -> classmethod:
    """`from_sgd` of any law, which first looks at what kind of things it is given."""
    if [*inspect.signature(build).parameters][1:3] != ["problem", "sgd"]:
        return classmethod(build)

    @functools.wraps(build)
    def from_sgd(cls: type[Law], problem: Any, sgd: Any, *more: Any, **options: Any) -> Any:
        call = f"{cls.__name__}.from_sgd(problem, sgd, …)"
        instance("problem", problem, Problem, "a Problem, as statsgd.problems makes", call=call)
        instance("sgd", sgd, SGD, "a statsgd.SGD, of which this law speaks", call=call)
        return build(cls, problem, sgd, *more, **options)

    return classmethod(from_sgd)


def _log_density_at(params: Float[Any, " d"], law: Law) -> Float[Any, ""]:
    return law._log_density(params)


def _joint_log_density_at(pair: Float[Any, " size"], law: Law) -> Float[Any, ""]:
    return law._joint_log_density(*jnp.split(pair, 2))


def _score_at(params: Float[Any, " d"], law: Law) -> Float[Any, " d"]:
    # Through what users call, which a law may state itself.
    return jax.grad(law.log_density)(params)


@eqx.filter_jit
def _run_forward(law: Law, keys: Key[Any, " number"]) -> Mapping[str, Any]:
    def once(key):
        trace = numpyro.handlers.trace(numpyro.handlers.seed(law.model, key)).get_trace()
        sites = {name: site for name, site in trace.items() if site["type"] != "plate"}
        return {name: site["value"] for name, site in sites.items()}

    return jax.vmap(once)(keys)


means("law", Law, "a Law")
