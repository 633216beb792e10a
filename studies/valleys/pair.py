"""Two valleys of equal depth: who dwells where at a fixed place, and how the choice freezes."""

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
import xarray as xr

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.laws import TwoValleyLaw
from statsgd.laws.valleys import (
    TwoValleyHopping,
    freezing_chain,
    freezing_prediction,
    two_valley_chain_law,
    two_valley_noise,
)
from statsgd.measures import mean_over_clusters
from statsgd.noise import HessianScaled
from statsgd.problems import TwoValleyLandscape
from statsgd.reports import Chart, Series

SOURCE = "Yang, Zhang, Ouyang, Tang, Tu, arXiv:2601.10962"
LOOKS = 20
LOUDER = 5.0  # times the noise, where hopping goes on for longer


@dataclasses.dataclass(frozen=True)
class PairSettings:
    """Frozen runs at y = `along` and drifting ones from the published start."""

    along: float
    noise_level: float
    frozen_rate: float
    strength: float
    rates: tuple[float, ...]
    steps: int
    replicas: int
    margin: float
    seed: int


def parts(settings: PairSettings) -> Mapping[str, xr.DataTree]:
    """The claims about two valleys."""
    return {**_frozen(settings), "valleys, freezing": _freezing(settings)}


def _frozen(settings: PairSettings) -> Mapping[str, xr.DataTree]:
    landscape = TwoValleyLandscape()
    law = TwoValleyLaw(landscape, settings.along, settings.noise_level)
    eta = settings.frozen_rate
    relaxation = 1 / (eta * TwoValleyHopping(law).relaxation_rate())
    looks = [int((8 + i) * relaxation) for i in range(LOOKS)]
    tree = statsgd.simulate(
        landscape.frozen(settings.along),
        statsgd.SGD(eta, HessianScaled(2 * settings.noise_level / eta)),
        steps=looks[-1],
        replicas=settings.replicas,
        seed=settings.seed,
        keep=looks,
        progress=False,
    )
    x = tree["snapshots"].to_dataset()["params"].values.reshape(settings.replicas, -1)
    flat = mean_over_clusters((x > 0).mean(axis=1))
    value, error = float(flat.value), float(flat.standard_error)
    chain = two_valley_chain_law(law, eta)

    def reading(name: str) -> float:
        other = TwoValleyLaw(landscape, settings.along, settings.noise_level, reading=name)
        return float(other.flat_probability())

    readings = {
        name: reading(name) for name in ("ito", "stratonovich", "anti_ito", "published_rates")
    }
    why = (
        f"y = {settings.along:g}, Δ_S = ησ = {settings.noise_level:g}, η = {eta:g}: SGD's share "
        f"in the flat valley is {value:.3f} ± {error:.3f}; the chain has exactly "
        f"{chain.flat_probability:.3f}, its SDE {readings['ito']:.3f} (the rest is the ridge, "
        "which a step of finite size feels, and falls as √η), the published density "
        f"{readings['anti_ito']:.3f}, the published ratio of rates "
        f"{readings['published_rates']:.3f}."
    )
    published = Claim(
        "The published density, which takes the noise as anti-Itô, gives the share of SGD in the "
        "flat valley",
        SOURCE,
        [Quantity("P(flat)", value, error, readings["anti_ito"], margin=settings.margin)],
        f"{why} SGD evaluates the noise before the step: wells change by a factor f₁/f₂.",
        origin="source",
        place="the density across the valleys",
        data_sets=0,
        unit="runs",
    )
    derived = Claim(
        "At a fixed place the share in the flat valley is that of the discrete chain, near Itô's",
        "derived",
        [
            Quantity(
                "P(flat), chain", value, error, chain.flat_probability, margin=settings.margin
            ),
            Quantity("P(flat), Itô", value, error, readings["ito"], margin=settings.margin),
        ],
        why,
        origin="derived",
        data_sets=0,
        unit="runs",
    )
    bins = np.linspace(x.min(), x.max(), 41)
    counts = np.array([np.histogram(row, bins)[0] for row in x]) / (x.shape[1] * np.diff(bins))
    density = mean_over_clusters(counts)
    fine = np.linspace(bins[0], bins[-1], 400)
    middle = (bins[1:] + bins[:-1]) / 2
    chart = Chart(
        "Across the two valleys at a fixed place",
        "x (sharp below 0, flat above)",
        "density",
        (
            Series("SGD", middle, density.value, density.standard_error),
            Series("Itô law", fine, np.exp(law.log_density(fine[:, None])), look="line"),
        ),
    )
    return {
        "valleys, published density": published.to_datatree(),
        "valleys, chain": derived.to_datatree(chart),
    }


def _freezing(settings: PairSettings) -> xr.DataTree:
    landscape, rates = TwoValleyLandscape(), np.array(settings.rates)
    sgd = statsgd.SGD(float(rates[0]), two_valley_noise(landscape, settings.strength))
    looks = np.unique(np.geomspace(1, settings.steps, 30).astype(int))
    tree = statsgd.simulate(
        landscape,
        statsgd.grid(sgd, learning_rate=rates),
        steps=settings.steps,
        replicas=settings.replicas,
        seed=settings.seed,
        keep=looks.tolist(),
        progress=False,
    )
    flat = tree["snapshots"].to_dataset()["params"].values[..., 0] > 0  # rate, replica, step
    size = flat.shape[1]
    share = flat.mean(axis=1)
    smoothed = (share * size + 1) / (size + 2)
    error = np.sqrt(smoothed * (1 - smoothed) / size)
    paths = [freezing_chain(landscape, rate, settings.strength, settings.steps) for rate in rates]
    limits = [
        freezing_prediction(landscape, rate, settings.strength, settings.steps) for rate in rates
    ]
    there = [
        float(
            TwoValleyLaw(
                landscape, float(path.along[-1]), rate * settings.strength
            ).flat_probability()
        )
        for rate, path in zip(rates, paths, strict=True)
    ]
    louder = [
        freezing_chain(landscape, rate, LOUDER * settings.strength, settings.steps)
        for rate in rates
    ]
    claim = Claim(
        "The choice between the valleys freezes while training drifts on, and the more noise, the "
        "more runs end in the flat one",
        SOURCE,
        [
            Quantity(
                f"final P(flat), η = {high:g} above η = {low:g}",
                share[i + 1, -1],
                error[i + 1, -1],
                share[i, -1],
                ">",
                predicted_error=error[i, -1],
            )
            for i, (low, high) in enumerate(itertools.pairwise(rates))
        ]
        + [
            Quantity(
                f"final P(flat), η = {rates[0]:g}, below the law at its place",
                share[0, -1],
                error[0, -1],
                there[0],
                "<",
            )
        ]
        + [
            Quantity(
                f"final P(flat) − chain, η = {rate:g}",
                share[i, -1] - path.final_flat_probability,
                error[i, -1],
                0.0,
                margin=2 * settings.margin,
            )
            for i, (rate, path) in enumerate(zip(rates, paths, strict=True))
        ],
        why=(
            f"σ = {settings.strength:g}, from both sides of the ridge at y = "
            f"{float(landscape.start[1]):g}. Expected by the chain's transition matrix along the "
            "mean drift; the SDE gives "
            + ", ".join(f"{one.final_flat_probability:.3f}" for one in limits)
            + f". The law at the places reached after {settings.steps} steps would have "
            + ", ".join(f"{one:.3f}" for one in there)
            + ": final shares are those of the freezing, not of equilibrium. The order in η is "
            f"claimed for choices that have frozen: at {LOUDER:g}σ the chain has, after as many "
            "steps, " + ", ".join(f"{one.final_flat_probability:.3f}" for one in louder) + "."
        ),
        origin="source",
        place="abstract: transient freezing",
        data_sets=0,
        unit="runs",
    )
    series = []
    for i, (rate, path) in enumerate(zip(rates, paths, strict=True)):
        name = f"η = {rate:g}"
        series += [
            Series(f"SGD, {name}", looks, share[i], error[i], group=name),
            Series(
                f"chain, {name}",
                path.time[1:] / rate,
                path.flat_probability[1:],
                look="line",
                group=name,
            ),
        ]
    chart = Chart("Share in the flat valley", "steps", "share", tuple(series), log="x")
    return claim.to_datatree(chart)
