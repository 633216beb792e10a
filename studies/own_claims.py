"""What the literature says of the numbers of `bring_your_own`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from statsgd.comparison import Claim, Quantity
from statsgd.estimate import Estimate
from studies.measured import claimed, over_data_sets, ratio, unit
from studies.own_charts import grid_map, ratio_chart, threshold_chart


class Cells(NamedTuple):
    """What is measured of a model: means over runs, arrays `(learning rate, batch size)`."""

    loss: Estimate
    sharpness: Estimate
    """h_max, the largest eigenvalue of the Hessian, weight decay included."""
    curvature: Estimate
    """Tr H."""
    noise: Estimate
    """Tr C of a batch."""
    alignment: Estimate
    """d Tr(HC)/(Tr H Tr C)."""
    spread: Estimate
    """Variance along the leading modes over that of the law, a mean over modes."""
    corrected: Estimate
    """The same with noise and curvature where replicas end."""
    imbalance: Estimate
    """Relative gap between the sides of the first fluctuation–dissipation relation."""
    shared: Estimate
    """Share of the square norm in common, arrays `(learning rate, batch size, 2)`: at the first
    and at the last look."""


def over_splits(found: Sequence[Cells]) -> Cells:
    """Means over splits, with the spread between them as their errors."""
    return Cells(*map(over_data_sets, zip(*found, strict=True)))


def claims(model: str, splits: Sequence[Cells], config: Any) -> Mapping[str, xr.DataTree]:
    """What the literature says of the numbers of one model."""
    found = over_splits(splits)
    return {
        "noise": aligned_noise(model, found, config).to_datatree(
            grid_map("Alignment of noise and curvature", "ratio", found.alignment, config),
            grid_map("Noise of a batch, Tr C", "loss²/params²", found.noise, config),
        ),
        "stability": stable(model, found, config).to_datatree(
            threshold_chart(found.sharpness, config)
        ),
        "law": predicted(model, found, config).to_datatree(
            grid_map("Variance along the leading modes over the law's", "1", found.spread, config)
        ),
        "stationarity": stationary(model, found, config).to_datatree(
            grid_map("Gap of the first relation", "relative", found.imbalance, config, 0.0)
        ),
        "flatness": flatter(model, splits, config).to_datatree(
            grid_map("Curvature at the end, Tr H", "loss/params²", found.curvature, config),
            grid_map("Loss at the end", "loss", found.loss, config),
        ),
        "ratio": only_the_ratio(model, splits, config).to_datatree(
            ratio_chart(found.curvature, config)
        ),
    }


def aligned_noise(model: str, found: Cells, config: Any) -> Claim:
    """Noise is stronger along curved directions."""
    return Claim(
        "Gradient noise is aligned with curvature: it climbs faster than isotropic noise of the "
        f"same strength ({model}).",
        "Zhu et al. (2019), arXiv:1803.00195",
        corners(found.alignment, config, 1.0, ">"),
        "d Tr(HC)/(Tr H Tr C) at the end of training, one for isotropic noise.",
        origin="reading",
        place="the alignment of noise and curvature, read at the end of training",
        data_sets=config.splits,
        unit=unit(config.splits),
    )


def stable(model: str, found: Cells, config: Any) -> Claim:
    """SGD ends where full-batch steps of its size would be stable."""
    half = np.asarray(config.learning_rates)[:, None] / 2
    threshold = 2 / found.sharpness.value
    steepness = found.sharpness._replace(
        value=half * found.sharpness.value, standard_error=half * found.sharpness.standard_error
    )
    return Claim(
        f"SGD ends at points where its learning rate is below the threshold 2/h_max ({model}).",
        "Wu, Ma, E (2018), NeurIPS; Cohen et al. (2021), arXiv:2103.00065",
        corners(steepness, config, 1.0, "<"),
        "η h_max/2, with the largest curvature at the end of training: at one full-batch steps "
        f"sit at the edge of stability. The threshold is {threshold[0, 0]:.2g} where the learning "
        f"rate is {config.learning_rates[0]:g} and {threshold[-1, 0]:.2g} where it is "
        f"{config.learning_rates[-1]:g} (S = {config.batch_sizes[0]}): training moves it.",
        origin="reading",
        place="linear stability, read for the end of training",
        data_sets=config.splits,
        unit=unit(config.splits),
    )


def predicted(model: str, found: Cells, config: Any) -> Claim:
    """The law in modes, at every checkpoint."""
    around = [
        f"{found.corrected.value[place]:.3f} ± {found.corrected.standard_error[place]:.2g}"
        for place in ((0, -1), (-1, 0))
    ]
    return Claim(
        "The linear chain with curvature and noise of one checkpoint says how far replicas that "
        f"leave it spread along its {config.modes} leading modes ({model}).",
        "exact transient of the linear chain, derived",
        corners(found.spread, config, 1.0, "=", config.gap),
        f"Variance of {config.leaving} replicas after {config.leaving_steps} steps over that of "
        "the law, a mean over modes. With noise and curvature read where a few other replicas end "
        f"it is {around[0]} where η/S is smallest, and {around[1]} where it is largest.",
        origin="derived",
        data_sets=config.splits,
        unit=unit(config.splits),
    )


def stationary(model: str, found: Cells, config: Any) -> Claim:
    """The first fluctuation–dissipation relation."""
    slowest, fastest = (
        1 / (rate * config.weight_decay)
        for rate in (config.learning_rates[0], config.learning_rates[-1])
    )
    quiet, noisy = (
        [
            f"{value:.3f} ± {error:.2g}"
            for value, error in zip(
                found.shared.value[place], found.shared.standard_error[place], strict=True
            )
        ]
        for place in ((0, -1), (-1, 0))
    )
    return Claim(
        f"Over the second half of training the runs are stationary: ⟨θ·∇⟩ = (η/2)⟨|m|²⟩ ({model}).",
        "Yaida (2018), arXiv:1810.00004",
        corners(found.imbalance, config, 0.0, "=", config.gap),
        f"Relative gap of the two sides, over {config.looks} looks at {config.replicas} runs on "
        "each data set. Directions that only weight decay bends forget their start in 1/(ηλ) "
        f"steps, {slowest:.0f} at the smallest learning rate and {fastest:.0f} at the largest, and "
        f"training takes {config.steps}. Directions that hardly anything bends take longer: the "
        f"runs, which start at one point, have {quiet[0]} of their square norm in common at the "
        f"first look and {quiet[1]} at the last where η/S is smallest, {noisy[0]} and {noisy[1]} "
        "where it is largest. While that share falls they still drift apart.",
        origin="reading",
        place="the first relation, read as a test of this training",
        data_sets=config.splits,
        unit=unit(config.splits),
    )


def flatter(model: str, splits: Sequence[Cells], config: Any) -> Claim:
    """Larger η/S ends at flatter points."""
    found = over_splits(splits)
    flatter_by = _ratio([one.curvature for one in splits], (-1, 0), (0, -1))
    noisy, calm = found.loss.value[-1, 0], found.loss.value[0, -1]
    return Claim(
        f"A larger ratio of learning rate to batch size ends at a flatter point ({model}).",
        "Keskar et al. (2017), arXiv:1609.04836; Jastrzębski et al. (2017), arXiv:1711.04623",
        [claimed("Tr H, largest over smallest η/S", flatter_by, "<", 1.0)],
        "Tr H where training ends, which is above the minimum that weight decay gives the loss: "
        f"the loss is {noisy:.3g} at the largest η/S and {calm:.3g} at the smallest.",
        origin="source",
        place="abstracts",
        data_sets=config.splits,
        unit=unit(config.splits),
    )


def only_the_ratio(model: str, splits: Sequence[Cells], config: Any) -> Claim:
    """Cells of equal η/S, as far apart as the grid has them."""
    rates, sizes = config.learning_rates, config.batch_sizes
    first = -min(len(rates), len(sizes))
    factor = sizes[-1] // sizes[first]
    quantities = []
    for name, field in (("h_max", "sharpness"), ("Tr H", "curvature"), ("loss", "loss")):
        cells = [getattr(one, field) for one in splits]
        title = f"{name}, ({factor}η, {factor}S) over (η, S)"
        found = _ratio(cells, (-1, -1), (first, first))
        quantities.append(claimed(title, found, "=", 1.0, config.margin))
    sharpness = over_splits(splits).sharpness
    edge = [rates[i] / 2 * sharpness.value[i, i] for i in (first, -1)]
    return Claim(
        f"Only the ratio of learning rate to batch size matters ({model}).",
        "Jastrzębski et al. (2017), arXiv:1711.04623; Smith, Le (2018), arXiv:1710.06451",
        quantities,
        f"η = {rates[first]:g}, S = {sizes[first]} against {factor} times both, after equally many "
        "steps. To leading order in η the ratio is all that matters, but larger learning rates "
        f"also drive training from sharp places: η h_max/2 is {edge[0]:.2g} at the smaller, and "
        f"{edge[1]:.2g} at the larger, where steps of full batches become unstable at one.",
        origin="reading",
        place="the ratio that sets the noise, read as all that matters at these steps",
        data_sets=config.splits,
        unit=unit(config.splits),
    )


def _ratio(cells: Sequence[Estimate], one: tuple[int, int], other: tuple[int, int]) -> Estimate:
    """One cell over another, on every split."""
    return over_data_sets([ratio(cell(found, one), cell(found, other)) for found in cells])


def cell(found: Estimate, place: tuple[int, int]) -> Estimate:
    """The number in one cell of the grid."""
    return Estimate(found.value[place], found.standard_error[place], found.clusters)


def corners(
    found: Estimate, config: Any, predicted: float, relation: str, margin: float = 0.0
) -> list[Quantity]:
    """The four corners of the grid."""
    return [
        claimed(
            f"η = {config.learning_rates[i]:g}, S = {config.batch_sizes[j]}",
            cell(found, (i, j)),
            relation,
            predicted,
            margin,
        )
        for i in (0, -1)
        for j in (0, -1)
    ]
