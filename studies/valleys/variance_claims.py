"""Claims about the variance of weights against flatness, on networks of several data sets."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from statsgd.comparison import Claim
from statsgd.estimate import Estimate
from statsgd.laws.minimum import crossover_curvature
from statsgd.measures import mean_over_clusters
from statsgd.reports import Chart, Series
from studies.measured import claimed, difference, over_data_sets, points, unit
from studies.valleys.variance import END, IID, RANDOM, Fluctuations, VarianceSettings

SOURCE = "Feng, Tu (2021), arXiv:2001.01678"
EPOCHS = "Kühn, Rosenow (2023), arXiv:2306.05300"
GROUPS = 10  # of directions of like curvature, in figures


def parts(settings: VarianceSettings) -> Mapping[str, xr.DataTree]:
    """The claims about the variance of weights, each on all splits of the data."""
    found = [
        Fluctuations(dataclasses.replace(settings, seed=settings.seed + index))
        for index in range(settings.splits)
    ]
    return {
        "variance, inverse relation": _relation(found),
        "variance, i.i.d. batches": _without_epochs(found),
        "variance, i.i.d.": _iid(found),
        "variance, reshuffling": _reshuffling(found),
        "variance, constant noise": _constant_noise(found),
    }


def _each(found: Sequence[Fluctuations], read: Callable[[Fluctuations], Estimate]) -> Estimate:
    return over_data_sets([read(one) for one in found])


def _mean(found: Sequence[Fluctuations], read: Callable[[Fluctuations], Any]) -> Any:
    """What is computed without sampling, on average over data sets."""
    return np.mean([read(one) for one in found], axis=0)


def _exponents(found: Sequence[Fluctuations]) -> dict[str, Estimate]:
    return {
        name: over_data_sets([one.exponent(name) for one in found]) for name in (IID, RANDOM, END)
    }


def _told(exponents: Mapping[str, Estimate]) -> str:
    return ", ".join(
        f"{name} {one.value:.2f} ± {one.standard_error:.2f}" for name, one in exponents.items()
    )


def _relation(found: Sequence[Fluctuations]) -> xr.DataTree:
    exponents = _exponents(found)
    why = (
        f"Networks at minima of their own, one batch size. Measured: {_told(exponents)}; the "
        "published exponent is about 4. It is reshuffling that makes the relation: noise of one "
        "epoch sums to zero, and the flatter a direction the longer it remembers."
    )
    rests: dict[str, Any] = {"data_sets": len(found), "unit": unit(len(found))}
    first_form = Claim(
        "In SGD weights vary less in flatter directions, σ² ∝ F^(−ψ) with ψ above one, however "
        "batches are drawn",
        SOURCE,
        [claimed(f"ψ, {name}", one, ">", 1.0) for name, one in exponents.items()],
        why=f"{why} The source trains by epochs: i.i.d. batches were ours.",
        origin="extension",
        place="abstract, extended to i.i.d. batches",
        **rests,
    )
    claim = Claim(
        "In SGD by reshuffled epochs weights vary less in flatter directions, σ² ∝ F^(−ψ) with ψ "
        "above one",
        SOURCE,
        [claimed(f"ψ, {name}", exponents[name], ">", 1.0) for name in (RANDOM, END)],
        why=why,
        origin="source",
        place="abstract: the inverse variance–flatness relation",
        first_form=first_form,
        **rests,
    )
    return claim.to_datatree(_figure(found[0]))


def _without_epochs(found: Sequence[Fluctuations]) -> xr.DataTree:
    exponents = _exponents(found)
    law = float(_mean(found, lambda one: one.predicted_exponent(IID)))
    claim = Claim(
        "With i.i.d. batches, too, weights vary less in flatter directions, with ψ above one",
        SOURCE,
        [claimed(f"ψ, {IID}", exponents[IID], ">", 1.0)],
        why=(
            f"Measured: {_told(exponents)}. Noise proportional to the curvature would give ψ = 0 "
            f"with i.i.d. batches; that of the data gives {law:.2f}."
        ),
        origin="extension",
        place="abstract, extended to i.i.d. batches",
        data_sets=len(found),
        unit=unit(len(found)),
    )
    return claim.to_datatree()


def _figure(found: Fluctuations) -> Chart:
    groups = np.array_split(np.arange(len(found.curvature)), GROUPS)
    width = [float(np.exp(np.mean(np.log(found.flatness[group])))) for group in groups]
    series = []
    for name, squares in found.squares.items():
        inside = [mean_over_clusters(squares[:, group].mean(axis=1)) for group in groups]
        law = [float(np.mean(found.law[name][group])) for group in groups]
        series += [
            Series(
                name,
                width,
                [float(one.value) for one in inside],
                [float(one.standard_error) for one in inside],
                group=name,
            ),
            Series(f"law, {name}", width, law, look="line", group=name),
        ]
    return Chart(
        f"Variance of weights along Hessian eigenvectors, {GROUPS} groups, first data set",
        "flatness F (params)",
        "variance (params²)",
        tuple(series),
        log="xy",
    )


def _iid(found: Sequence[Fluctuations]) -> xr.DataTree:
    s = found[0].settings
    ratios = {
        which: over_data_sets([one.over_law(IID, one.quarters[at]) for one in found])
        for which, at in (("flattest", 0), ("steepest", -1))
    }
    law = float(_mean(found, lambda one: one.predicted_exponent(IID)))
    psi = _each(found, lambda one: one.exponent(IID))

    def gap(one: Fluctuations) -> Estimate:
        measured = one.exponent(IID)
        return measured._replace(value=measured.value - one.predicted_exponent(IID))

    claim = Claim(
        "With i.i.d. batches variances are those of constant white noise at the minimum",
        "derived",
        [
            claimed(f"variance over law, {which} quarter", one, "=", 1.0, s.margin)
            for which, one in ratios.items()
        ]
        + [claimed("ψ − law", _each(found, gap), "=", 0.0, 2 * s.margin)],
        why=(
            f"H and C at the minimum, η = {s.learning_rate:g}; the law has ψ = {law:.2f}, and SGD "
            f"{psi.value:.2f}."
        ),
        origin="derived",
        data_sets=len(found),
        unit=unit(len(found)),
    )
    return claim.to_datatree()


def _reshuffling(found: Sequence[Fluctuations]) -> xr.DataTree:
    s = found[0].settings

    def share(at: int) -> Callable[[Fluctuations], Estimate]:
        def of(one: Fluctuations) -> Estimate:
            quarter = one.quarters[at]
            mean = one.squares[IID].mean(axis=0)
            measured = mean_over_clusters((one.squares[RANDOM] / mean)[:, quarter].mean(axis=1))
            white = one.over_law(IID, quarter)
            relative = [part.standard_error / part.value for part in (measured, white)]
            return measured._replace(standard_error=measured.value * np.hypot(*relative))

        return of

    shares = [_each(found, share(at)) for at in range(4)]
    less = _each(found, lambda one: difference(share(0)(one), share(-1)(one)))
    crossover = float(crossover_curvature(s.learning_rate, s.num_examples // s.batch_size))
    claim = Claim(
        "Reshuffling makes weights fluctuate less in flat directions than in steep ones, against "
        "i.i.d. batches",
        EPOCHS,
        [
            claimed("reshuffled over i.i.d., flattest less steepest quarter", less, "<", 0.0),
            claimed("reshuffled over i.i.d., steepest quarter", shares[-1], "<", 1.0),
        ],
        why=(
            "Variance at any step of the epoch over that of i.i.d. batches, by quarters from flat "
            "to steep: "
            + ", ".join(f"{one.value:.3f}" for one in shares)
            + f". The crossover is at h = {crossover:.3g}; curvatures go from "
            f"{found[0].curvature[0]:.2g} to {found[0].curvature[-1]:.2g} on the first data set."
        ),
        origin="source",
        place="abstract: less variance in flat directions",
        data_sets=len(found),
        unit=unit(len(found)),
    )
    return claim.to_datatree()


def _constant_noise(found: Sequence[Fluctuations]) -> xr.DataTree:
    margin = found[0].settings.margin
    corrected = {
        name: over_data_sets(
            [
                one.over_law(name, one.quarters[0], one.law[name] + one.curvature_noise)
                for one in found
            ]
        )
        for name in (RANDOM, END)
    }
    looked: dict[str, Callable[[Fluctuations], Estimate]] = {
        "any step, four steepest": lambda one: one.over_law(RANDOM, one.quarters[-1][-4:]),
        "any step, flattest quarter": lambda one: one.over_law(RANDOM, one.quarters[0]),
        "epoch ends, flattest quarter": lambda one: one.over_law(END, one.quarters[0]),
    }
    claim = Claim(
        "Reshuffled variances are those of noise that is constant in the weights and "
        "anti-correlated within an epoch",
        EPOCHS,
        [
            claimed(f"variance over law, {which}", _each(found, read), "=", 1.0, margin)
            for which, read in looked.items()
        ],
        why=(
            "Curvature differs between batches too, and that noise does not cancel over an epoch: "
            "in flat directions, where the rest does, it is what is left. Counted to leading order "
            "(batch Hessians at the minimum, as if it were white, which overcounts it) the ratios "
            "in the flattest quarter become "
            + ", ".join(f"{one.value:.2f} ({name})" for name, one in corrected.items())
            + "."
        ),
        origin="reading",
        place="anti-correlated noise of epochs, read as constant in the weights",
        data_sets=len(found),
        unit=unit(len(found)),
    )
    return claim.to_datatree(_ratio_chart(found[0]))


def _ratio_chart(found: Fluctuations) -> Chart:
    groups = np.array_split(np.arange(len(found.curvature)), GROUPS)
    place = [float(np.exp(np.mean(np.log(found.curvature[group])))) for group in groups]
    series = []
    for name in found.squares:
        ratios = [found.over_law(name, group) for group in groups]
        series.append(points(name, place, ratios, group=name))
        if name != IID:
            extra = found.curvature_noise / found.law[name]
            more = [float(np.mean((1 + extra)[group])) for group in groups]
            series.append(
                Series(f"with curvature noise, {name}", place, more, look="line", group=name)
            )
    return Chart(
        "Variance over the law of constant noise, first data set",
        "curvature h + λ (loss/params²)",
        "ratio",
        tuple(series),
        log="xy",
        level=1.0,
    )
