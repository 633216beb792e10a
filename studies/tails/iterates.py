"""Claims on the iterates of regression: power laws made by light-tailed data."""

from typing import NamedTuple

import jax
import numpy as np
import xarray as xr

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.estimate import Estimate
from statsgd.laws.heavy_tails import batch_matrices, gaussian_tail_index, matrix_tail_index
from statsgd.measures import tail_index
from statsgd.noise import Minibatch
from statsgd.problems import PopulationRisk, population_risk
from statsgd.reports import Chart, Series
from studies.measured import claimed, endpoints

GSZ = "Gürbüzbalaban, Şimşekli, Zhu (2021), arXiv:2006.04740"
#: Learning rate, batch size and dimension of the runs, from the heaviest tail to the lightest.
RUNS = ((0.8, 1, 1), (0.5, 1, 1), (0.3, 2, 10), (0.3, 1, 1))


class IterateSettings(NamedTuple):
    """Runs of regression on fresh Gaussian data."""

    replicas: int
    steps: int
    data_sets: int
    """Finite data sets of 20 examples."""
    margin: float
    seed: int


def fresh_regression(dimension: int) -> PopulationRisk:
    """½(x·θ − y)² with x and y standard normal and independent."""

    def draw(key):
        one, two = jax.random.split(key)
        return jax.random.normal(one, (dimension,)), jax.random.normal(two)

    return population_risk(
        lambda params, example: 0.5 * (example[0] @ params - example[1]) ** 2,
        draw,
        np.zeros(dimension),
        exact_loss=lambda params: 0.5 * (params @ params + 1),
    )


def parts(settings: IterateSettings) -> dict[str, xr.DataTree]:
    """The claims on iterates."""
    exact = [gaussian_tail_index(*run) for run in RUNS]
    ends = [_ends(settings, *run) for run in RUNS]
    found = [tail_index(end, location=0.0) for end in ends]
    return {
        "iterates, power law": _power_law(exact, found, ends, settings.margin),
        "iterates, step and batch": _ratio(settings.margin),
        "iterates, trend": _trend(found),
        "iterates, stable estimator": _stable_estimator(exact, ends, settings.margin),
        "iterates, finite data": _finite(settings),
    }


def _ends(settings: IterateSettings, eta: float, size: int, dimension: int) -> np.ndarray:
    run = statsgd.simulate(
        fresh_regression(dimension),
        statsgd.SGD(eta, Minibatch(size, "fresh")),
        steps=settings.steps,
        replicas=settings.replicas,
        seed=settings.seed,
        progress=False,
    )
    return endpoints(run)[:, 0]


def _name(run: tuple[float, int, int]) -> str:
    return f"η = {run[0]:g}, S = {run[1]}, d = {run[2]}"


def _power_law(
    exact: list[float], found: list[Estimate], ends: list[np.ndarray], margin: float
) -> xr.DataTree:
    quantities = [
        claimed(f"Hill's estimate, {_name(run)}", one, "=", kappa, 3 * margin)
        for run, one, kappa in zip(RUNS[:3], found, exact, strict=False)
    ]
    series = []
    for run, kappa, end in zip(RUNS, exact, ends, strict=True):
        size = np.sort(np.abs(end))[::-1] / np.median(np.abs(end))
        rank = np.unique(np.geomspace(5, len(size) // 2, 30).astype(int))
        above = rank / len(size)
        series.append(Series(_name(run), size[rank], above, look="points", group=_name(run)))
        anchor = len(rank) // 3
        line = above[anchor] * (size[rank] / size[rank][anchor]) ** -kappa
        keep = (line < 0.2) & (line > above[0] / 3)
        series.append(Series("", size[rank][keep], line[keep], look="line", group=_name(run)))
    claim = Claim(
        "SGD on Gaussian data, which have no heavy tails, has iterates with a power-law tail, "
        "whose exponent κ solves E|Ae|^κ = 1",
        f"{GSZ}; exponents derived (Kesten 1973)",
        quantities,
        why="Hill's estimate from the square root of the number of runs. Where κ is large it comes "
        "out below: the power law begins far out.",
        origin="source",
        place="abstract",
        data_sets=0,
        unit="runs",
    )
    chart = Chart("Tails of the iterates; lines have the exact exponents", "|θ| over its median",
                  "share of runs above", tuple(series), log="xy")  # fmt: skip
    return claim.to_datatree(chart)


def _ratio(margin: float) -> xr.DataTree:
    sizes, ratios = (1, 4, 16), np.geomspace(0.03, 0.45, 10)
    series = []
    for size in sizes:
        steps = [r for r in ratios if r * size < 1.9]
        kappa = [gaussian_tail_index(r * size, size) for r in steps]
        series.append(Series(f"S = {size}", steps, kappa, look="line"))
    claim = Claim(
        "The tail index of the iterates depends on learning rate and batch size through η/S alone",
        f"derived from {GSZ}",
        [
            Quantity("κ at (8η, S = 8) over κ at (η, S = 1), η = 0.1",
                     gaussian_tail_index(0.8, 8) / gaussian_tail_index(0.1, 1), 0.0, 1.0,
                     margin=margin)
        ],
        why="Exact exponents, d = 1. It falls with η/S at fixed S, and at small η like 1.7956 S/η; "
        "elsewhere larger steps at the same ratio have heavier tails.",
        origin="extension", place="dependence on η and b", data_sets=0, unit="computed",
    )  # fmt: skip
    chart = Chart("Tail index of the iterates, one parameter", "η/S", "κ", tuple(series), log="xy")
    return claim.to_datatree(chart)


def _trend(found: list[Estimate]) -> xr.DataTree:
    heavy, middle, _, light = found
    small, large = (gaussian_tail_index(0.3, size, 10) for size in (2, 8))
    return Claim(
        "The tail index of the iterates falls with the learning rate and with the dimension, and "
        "rises with the batch size",
        GSZ,
        [
            claimed("Hill's estimate, η = 0.8 below η = 0.5", heavy, "<", middle),
            claimed("Hill's estimate, η = 0.5 below η = 0.3", middle, "<", light),
            Quantity("κ at d = 10 below d = 1, η = 0.1, S = 1", gaussian_tail_index(0.1, 1, 10),
                     0.0, gaussian_tail_index(0.1), "<"),
            Quantity("κ at S = 2 below S = 8, η = 0.3, d = 10", small, 0.0, large, "<"),
        ],
        origin="source", place="abstract", data_sets=0, unit="runs",
    ).to_datatree()  # fmt: skip


def _stable_estimator(exact: list[float], ends: list[np.ndarray], margin: float) -> xr.DataTree:
    rows = [
        (run, kappa, tail_index(end, "block", block=10, location=0.0))
        for run, kappa, end in zip(RUNS, exact, ends, strict=True)
        if kappa > 2
    ]
    return Claim(
        "The block estimator of α finds 2 where the variance of the iterates is finite",
        f"derived; the estimator as in {GSZ}",
        [
            claimed(f"block estimate, {_name(run)} (κ = {kappa:.2f})", one, "=", 2.0, margin)
            for run, kappa, one in rows
        ],
        why="It takes the iterates for stable. They are not: their variance is finite, and the "
        "estimate would say it is infinite.",
        origin="derived",
        data_sets=0,
        unit="runs",
    ).to_datatree()


def _finite(settings: IterateSettings) -> xr.DataTree:
    rng = np.random.default_rng(settings.seed)
    kappas = np.array([
        matrix_tail_index(*batch_matrices(rng.normal(size=(20, 1)), 0.3))
        for _ in range(settings.data_sets)
    ])  # fmt: skip
    tails = np.isfinite(kappas)
    share = (tails.sum() + 1) / (len(tails) + 2)
    finite = kappas[tails]
    return Claim(
        "Regression on a finite data set has the power-law tail of the population it comes from",
        f"derived from {GSZ}",
        [
            Quantity("share of data sets of 20 examples with any power law, η = 0.3",
                     float(tails.mean()), float(np.sqrt(share * (1 - share) / len(tails))),
                     0.5, ">")
        ],
        why="Where no example has |1 − ηx²| > 1 the iterates are bounded. Fresh data have "
        f"κ = {gaussian_tail_index(0.3):.2f}; data sets with a power law have a median of "
        f"{np.median(finite) if finite.size else np.inf:.1f}.",
        origin="derived", data_sets=settings.data_sets, unit="data sets",
    ).to_datatree()  # fmt: skip
