"""Laws with unknown parameters fitted to endpoints, held against theory and each other."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from numpyro.infer import MCMC, NUTS
from scipy.stats import norm

from statsgd.arguments import count, fraction, instance, positive, random_seed
from statsgd.comparison.parts import verdicts_on
from statsgd.comparison.samples import read_ensemble
from statsgd.laws import Law
from statsgd.provenance import provenance


def fit_law(
    family: Callable[..., Law],
    endpoints: xr.DataTree,
    priors: Mapping[str, dist.Distribution],
    *,
    seed: int,
    warmup: int = 500,
    draws: int = 500,
    chains: int = 4,
    condition_on_survival: bool = False,
    progress: bool = False,
) -> xr.DataTree:
    """Posterior of a law's parameters given endpoints, by NUTS in double precision.

        parameters ~ priors,   endpoint_i | parameters ~ family(**parameters)  independently

    **Arguments:** `family`, a function of the named parameters that returns a normalised law and
    that JAX can trace (`lambda temperature: Gibbs.quadratic(hessian, temperature)`); `endpoints` of
    `simulate`, of which the last step of each replica is used; `priors`, a distribution for each
    parameter. A `Gibbs` law that is not quadratic needs `bounds` to be normalised under JAX.

    **Returns** a `DataTree` with `posterior`, `sample_stats` and `log_likelihood` (variable
    `endpoints`, dims `chain`, `draw`, `replica`), as ArviZ wants it. Raises `ValueError` for no
    priors, for a law that is not normalised and for one of another dimension.

    Source: Hoffman, Gelman (2014), for NUTS.

    >>> import numpy as np, numpyro.distributions as dist, statsgd
    >>> ends = statsgd.ensemble(np.random.default_rng(0).normal(size=(50, 1)))
    >>> family = lambda v: statsgd.laws.GaussianLaw(np.zeros(1), v * np.eye(1))
    >>> fit = fit_law(family, ends, {"v": dist.LogNormal()}, seed=0, warmup=20, draws=20, chains=1)
    >>> dict(fit.posterior["v"].sizes)
    {'chain': 1, 'draw': 20}
    """
    random_seed(seed)
    if not priors:
        raise ValueError("priors must name at least one parameter of the law, got none")
    for name, prior in priors.items():
        instance(f"priors[{name!r}]", prior, dist.Distribution, "one of numpyro.distributions")
    samples = read_ensemble(endpoints, condition_on_survival=condition_on_survival)
    points = samples["params"][:, -1]

    def log_likelihoods(parameters, points):
        law = family(**parameters)
        if not law.normalized:
            raise ValueError(
                f"family must return a normalised law, got {type(law).__name__} without its "
                "normaliser: its parameters cannot be inferred"
            )
        if law.dimension != points.shape[1]:
            raise ValueError(
                f"the law has {law.dimension} parameters, the endpoints have {points.shape[1]}"
            )
        return jax.vmap(law.log_density)(points)

    def model(points):
        parameters = {name: numpyro.sample(name, prior) for name, prior in priors.items()}
        numpyro.factor("endpoints", log_likelihoods(parameters, points).sum())

    with jax.enable_x64(True):
        mcmc = MCMC(
            NUTS(model),
            num_warmup=count("warmup", warmup, at_least=0),
            num_samples=count("draws", draws),
            num_chains=count("chains", chains),
            chain_method="vectorized",
            progress_bar=progress,
        )
        mcmc.run(jax.random.key(seed), points, extra_fields=("diverging", "energy"))
        posterior = mcmc.get_samples(group_by_chain=True)
        flat = mcmc.get_samples()
        pointwise = jax.jit(
            lambda values, at: jax.lax.map(lambda one: log_likelihoods(one, at), values)
        )
        likelihood = np.asarray(pointwise(flat, points)).reshape(chains, draws, -1)
        stats = mcmc.get_extra_fields(group_by_chain=True)
    lead = ("chain", "draw")
    coordinates = {"chain": np.arange(chains), "draw": np.arange(draws)}
    tree = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(_labelled(posterior), coordinates),
            "sample_stats": xr.Dataset(
                {name: (lead, np.asarray(value)) for name, value in stats.items()}, coordinates
            ),
            "log_likelihood": xr.Dataset(
                {"endpoints": ((*lead, "replica"), likelihood)}, coordinates
            ),
        }
    )
    tree.attrs = provenance(
        "fit",
        seed=int(seed),
        endpoints=len(points),
        priors={name: type(prior).__name__ for name, prior in priors.items()},
    )
    return tree


def _labelled(posterior: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: (
            ("chain", "draw", *(f"{name}_{i}" for i in range(value.ndim - 2))),
            np.asarray(value),
        )
        for name, value in posterior.items()
    }


def parameter_verdicts(
    fit: xr.DataTree,
    theory: Mapping[str, float],
    *,
    margin: float = 0.1,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """The posterior of each parameter against its theoretical value.

    Normal intervals that hold simultaneously at `confidence` (Bonferroni), widened by the Monte
    Carlo error of the posterior mean.

    **Returns** one row a parameter: theory, posterior mean and sd, z = (mean − theory)/sd,
    `effect` = mean/theory with `low` and `high`, and the verdict with a relative `margin`. Raises
    `ValueError` for parameters that the fit does not hold or that are not scalar, and for a
    theoretical value of zero, of which no ratio can be taken.

    >>> drawn = np.random.default_rng(0).normal(2.0, 0.01, size=(4, 100))  # fit_law draws them
    >>> fit = xr.DataTree.from_dict({"posterior": xr.Dataset({"v": (("chain", "draw"), drawn)})})
    >>> parameter_verdicts(fit, {"v": 2.0})["verdict"].tolist()
    ['agrees within 10 %']
    """
    import arviz_stats  # seconds to import

    margin = float(positive("margin", margin))
    quantile = float(norm.isf((1 - float(fraction("confidence", confidence))) / (2 * len(theory))))
    posterior = _group(fit, "posterior")
    rows = []
    for name, value in theory.items():
        if name not in posterior or posterior[name].ndim != 2:
            raise ValueError(
                f"theory must name scalar parameters of the fit, {sorted(map(str, posterior))}, "
                f"got {name!r}"
            )
        if value == 0:
            raise ValueError(f"the theoretical value of {name} must not be zero")
        drawn = posterior[name]
        mean, sd = float(drawn.mean()), float(drawn.std(ddof=1))
        size = float(arviz_stats.ess(posterior[[name]])[name])
        spread = float(np.hypot(sd, sd / np.sqrt(size)))
        effect, reach = mean / value, quantile * spread / abs(value)
        rows.append(
            {
                "parameter": name,
                "theory": float(value),
                "mean": mean,
                "sd": sd,
                "effective_draws": size,
                "z": (mean - value) / spread,
                "effect": effect,
                "low": effect - reach,
                "high": effect + reach,
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(verdict=verdicts_on(table, 1.0, margin))


def compare_laws(fits: Mapping[str, xr.DataTree]) -> pd.DataFrame:
    """Fitted laws ranked by how well they predict endpoints left out, best first.

    Expected log predictive density of one endpoint at a time, by Pareto-smoothed importance
    sampling: `elpd`, its standard error `se`, the difference `elpd_diff` to the best law with its
    standard error `dse`, stacking `weight`s, and ArviZ's diagnostics. Raises `ValueError` for
    fewer than two fits and for fits to different numbers of endpoints.

    Source: Vehtari, Gelman, Gabry (2017), arXiv:1507.04544.

    >>> def fit_with(mean):  # fit_law has the log likelihood of each endpoint
    ...     drawn = np.random.default_rng(0).normal(mean, 0.01, size=(4, 100, 50))
    ...     values = xr.Dataset({"endpoints": (("chain", "draw", "replica"), drawn)})
    ...     return xr.DataTree.from_dict({"log_likelihood": values, "posterior": values})
    >>> compare_laws({"worse": fit_with(-2.0), "better": fit_with(-1.0)})["rank"].to_dict()
    {'better': 0, 'worse': 1}
    """
    import arviz_stats  # seconds to import

    instance("fits", fits, Mapping, "results of fit_law by name of the law")
    sizes = {name: _group(fit, "log_likelihood").sizes["replica"] for name, fit in fits.items()}
    if len(fits) < 2 or len(set(sizes.values())) != 1:
        raise ValueError(f"fits must be two or more, to the same endpoints, got {sizes}")
    return arviz_stats.compare(dict(fits), var_name="endpoints", round_to="none")


def _group(fit: Any, name: str) -> xr.Dataset:
    instance("fit", fit, xr.DataTree, "a result of fit_law")
    if name not in fit.children:
        raise ValueError(
            f"fit must be a result of fit_law, with the group {name!r}, got the groups "
            f"{sorted(fit.children)}"
        )
    return fit[name].to_dataset()


def fitted_laws(
    fits: Mapping[str, xr.DataTree],
    theory: Mapping[str, Mapping[str, float]] | None = None,
    *,
    margin: float = 0.1,
    confidence: float = 0.95,
) -> xr.DataTree:
    """Everything that fits of several laws to the same endpoints say, for a report.

    **Arguments:** `fits` by name of the law; `theory`, for each law the theoretical values of its
    parameters, where there are any. `margin` and `confidence` as in `parameter_verdicts`.

    **Returns** a tree of kind `fitted_laws`: `ranking` (what `compare_laws` returns, where there
    are several fits), `parameters` (what `parameter_verdicts` returns, all laws together) and
    `draws`, the posterior of every parameter that theory speaks about. Raises as those two do.

    >>> drawn = np.random.default_rng(0).normal(2.0, 0.01, size=(4, 100))  # fit_law draws them
    >>> fit = xr.DataTree.from_dict({"posterior": xr.Dataset({"v": (("chain", "draw"), drawn)})})
    >>> tree = fitted_laws({"normal": fit}, {"normal": {"v": 2.0}})
    >>> list(tree.children), tree["parameters"]["verdict"].values.tolist()
    (['parameters', 'draws'], ['agrees within 10 %'])
    """
    known = {name: values for name, values in (theory or {}).items() if values}
    groups: dict[str, xr.Dataset] = {}
    if len(fits) > 1:
        groups["ranking"] = xr.Dataset.from_dataframe(compare_laws(fits).rename_axis("law"))
    tables, drawn = [], {}
    for name, values in known.items():
        table = parameter_verdicts(fits[name], values, margin=margin, confidence=confidence)
        tables.append(table.assign(law=name))
        posterior = fits[name]["posterior"].to_dataset()
        for parameter in values:
            drawn[f"{name}: {parameter}"] = ("drawn", posterior[parameter].values.ravel())
    if tables:
        table = pd.concat(tables, ignore_index=True)
        groups["parameters"] = xr.Dataset.from_dataframe(table.rename_axis("row"))
        groups["draws"] = xr.Dataset(drawn)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = provenance("fitted_laws", laws=list(fits), margin=margin, confidence=confidence)
    return tree
