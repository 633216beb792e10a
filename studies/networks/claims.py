"""What the literature says of SGD around trained networks, on the numbers of `measured`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from statsgd.comparison import Claim, Quantity
from statsgd.diagnosis.spread import over_corrected
from statsgd.measures import jackknife
from statsgd.reports import Chart, Series
from studies.networks.displacements import (
    chart_of_exponents,
    displacement,
    exponent,
    kinks,
    rise,
)
from studies.networks.measured import MILD, Found, over_groups
from studies.networks.one_data_set import claim


def claims(name: str, found: Sequence[Found], config: Any) -> dict[str, xr.DataTree]:
    """What the literature says, on the numbers of one network."""
    made = {
        "variances": variances(name, found, config).to_datatree(chart_of_modes(found)),
        "variances with a pilot": with_a_pilot(name, found, config).to_datatree(),
        "linear twin": beside_twins(name, found, config).to_datatree(),
        "proportional noise": proportional(name, found, config).to_datatree(),
        "speed": speed(name, found, config).to_datatree(),
        "alignment": alignment(name, found).to_datatree(),
        "edge of stability": edge(name, found, config).to_datatree(),
    }
    if any(row.growth < MILD for one in found for row in one.settings):
        for pilot in (False, True):
            with_pilot = " with a pilot" if pilot else ""
            chart = chart_of_exponents(found, pilot)
            made[f"displacement{with_pilot}"] = displacement(
                name, found, config, pilot
            ).to_datatree()
            made[f"exponent{with_pilot}"] = exponent(name, found, pilot).to_datatree(chart)
            made[f"rise of the loss{with_pilot}"] = rise(name, found, config, pilot).to_datatree()
        made["kinks"] = kinks(name, found).to_datatree()
    if found[0].sharp is not None:
        made["large batches"] = large_batches(name, found).to_datatree()
        made["reshuffled epochs"] = epochs(name, found).to_datatree(chart_of_epochs(found))
    return made


def last_look(one: Found) -> xr.Dataset:
    """The spread of replicas after their last step."""
    return one.tree["spread"].to_dataset().isel(step=-1)


def ratios(found: Sequence[Found], predicted: Any) -> list[tuple[str, float, float]]:
    """Means over groups of measured variances over predicted ones, and their errors."""
    rows = []
    for index, one in enumerate(found):
        last = last_look(one)
        ratio = last["variance"].values / predicted(one, last)
        error = np.sqrt(2 / (int(last["replicas"]) - 1))
        for label, part in over_groups(ratio, ratio.size):
            width = error * np.sqrt(np.mean(part**2) / part.size)
            rows.append((f"network {index + 1}, {label}", float(part.mean()), float(width)))
    return rows


def variances(name: str, found: Sequence[Found], config: Any) -> Claim:
    """The chain with the network's own curvature and noise."""
    rows = ratios(found, lambda one, last: last["predicted_variance"].values)
    buffer = [
        float((spread["buffer_variance"] / spread["predicted_buffer_variance"]).mean())
        for spread in (one.tree["spread"].to_dataset() for one in found)
    ]
    return claim(
        "Replicas that leave a trained network spread along its leading modes as the linear chain "
        f"with the network's own curvature and noise does ({name}).",
        "Liu, Ziyin, Ueda (2021), arXiv:2012.03636; the transient is derived",
        [Quantity(*row, 1.0, "=", config.margin) for row in rows],
        f"Variance over that of the law after {config.steps} steps. The momentum buffer, which "
        f"follows the noise alone, has {', '.join(f'{value:.2f}' for value in buffer)} times the "
        "predicted variance: what that is off comes from noise that changes as replicas leave, "
        "the rest from curvature that does.",
        "extension",
        "law of the chain on a quadratic, here its transient around a network",
    )


def with_a_pilot(name: str, found: Sequence[Found], config: Any) -> Claim:
    """The chain with noise and curvature of the places where a few other replicas end."""
    rows, pilots = [], last_look(found[0]).sizes["pilot"]
    for index, one in enumerate(found):
        last = last_look(one)
        modes = np.arange(last.sizes["mode"])
        for label, part in over_groups(modes, modes.size):
            of_group = over_corrected(last, slice(part[0], part[-1] + 1))
            rows.append((f"network {index + 1}, {label}", *of_group))
    growth = [
        ", ".join(f"{float(last_look(one)[f'{of}_growth'].mean()):.2f}" for one in found)
        for of in ("noise", "curvature")
    ]
    return claim(
        "With noise and curvature measured where a few replicas end, the linear chain has the "
        f"variances of the others ({name}).",
        "derived",
        [Quantity(*row, 1.0, "=", config.margin, clusters=pilots) for row in rows],
        f"There noise is {growth[0]} times that of the checkpoint (one number a network), and "
        f"curvature {growth[1]} times. The factors say what the law without a pilot leaves out. "
        "Errors count those of the pilot's few replicas, by jackknife.",
        "derived",
        "",
    )


def beside_twins(name: str, found: Sequence[Found], config: Any) -> Claim:
    """Replicas over their linear twins, which know how noise grows to first order."""
    rows = []
    for index, one in enumerate(found):
        for label, modes in over_groups(np.arange(one.twins.shape[2]), one.twins.shape[2]):
            ratio = jackknife(lambda mean: np.mean(mean[0] / mean[1]), one.twins[..., modes])
            title, error = f"network {index + 1}, {label}", float(ratio.standard_error)
            pairs = ratio.clusters
            rows.append(
                Quantity(title, float(ratio.value), error, 1.0, "=", config.margin, clusters=pairs)
            )
    return claim(
        "Replicas spread along the leading modes as their linear twins do, whose batches have the "
        f"gradients and Hessians of the checkpoint ({name}).",
        "derived",
        rows,
        f"Variance over that of twins on the same batches after {config.steps} steps; errors are "
        "the jackknife's over pairs. What the law with constant noise is off beyond that is the "
        "noise's growth to first order.",
        "derived",
        "",
    )


def proportional(name: str, found: Sequence[Found], config: Any) -> Claim:
    """The same with C = σ²H."""

    def predicted(one: Found, last: xr.Dataset) -> Any:
        seen = one.tree["curvature"].to_dataset()
        sigma = float(one.tree["standing"].to_dataset()["noise_trace"]) / float(
            seen["hessian_trace"]
        )
        h = seen["curvature"].values - config.weight_decay
        return last["predicted_variance"].values * sigma * h / seen["noise"].values

    rows = ratios(found, predicted)
    return claim(
        f"It is enough to know curvature: noise is proportional to it, C = σ²H ({name}).",
        "Kunin et al. (2021), arXiv:2107.09133",
        [Quantity(*row, 1.0, "=", config.margin) for row in rows],
        "Variance over that of the law with σ² = Tr C/Tr H in place of the measured noise.",
        "reading",
        "the noise of the model",
    )


def speed(name: str, found: Sequence[Found], config: Any) -> Claim:
    """⟨|m|²⟩ = Tr C/(1−β²)."""
    quantities = []
    for index, one in enumerate(found):
        spread = one.tree["spread"].to_dataset()
        noise = float(one.tree["standing"].to_dataset()["noise_trace"])
        quantities.append(
            Quantity(
                f"network {index + 1}, η²⟨|m|²⟩",
                config.learning_rate**2 * float(spread["square_buffer"]),
                config.learning_rate**2 * float(spread["square_buffer_error"]),
                config.learning_rate**2 * noise / (1 - config.momentum**2),
                "=",
                config.margin,
            )
        )
    return claim(
        f"The mean square step is η² Tr C/(1−β²), with the noise of the checkpoint ({name}).",
        "Kunin et al. (2021), arXiv:2107.09133, there with C = σ²H/S",
        quantities,
        "Mean square of the last step of the replicas; the force of the loss adds little to it.",
        "extension",
        "the stationary speed, with the noise that is measured",
    )


def alignment(name: str, found: Sequence[Found]) -> Claim:
    """d Tr(HC)/(Tr H Tr C) above one."""
    quantities = []
    for index, one in enumerate(found):
        seen = one.tree["curvature"].to_dataset()
        value, trace = float(seen["curvature_of_noise"]), float(seen["hessian_trace"])
        ratio = value * one.dimension / trace
        relative = np.hypot(
            float(seen["curvature_of_noise_error"]) / value,
            float(seen["hessian_trace_error"]) / trace,
        )
        quantities.append(
            Quantity(f"network {index + 1}", ratio, float(ratio * relative), 1.0, ">")
        )
    return claim(
        f"Gradient noise is aligned with curvature ({name}).",
        "Zhu et al. (2019), arXiv:1803.00195",
        quantities,
        "d Tr(HC)/(Tr H Tr C), one for isotropic noise.",
        "source",
        "abstract",
        "networks",
    )


def edge(name: str, found: Sequence[Found], config: Any) -> Claim:
    """η h_max/(2(1+β)) near one."""
    shares = [float(one.tree["stability"].to_dataset()["mean_share"].max()) for one in found]
    budget = config.learning_rate / (2 * (1 + config.momentum))
    below = ", ".join(f"{budget * one.below:.2g}" for one in found)
    return claim(
        f"Training ends at the edge of stability ({name}).",
        "Cohen et al. (2021), arXiv:2103.00065, for steps of the whole loss",
        [
            Quantity(f"network {i + 1}, η h_max/(2(1+β))", share, 0.0, 1.0, "=", config.margin)
            for i, share in enumerate(shares)
        ],
        "One at the edge. With small batches and weight decay noise keeps SGD in places that are "
        f"flatter than that. Nearer to the minimum below it is {below}"
        f"{told_unstable(found, config)}.",
        "extension",
        "abstract, there of full-batch descent",
        "networks",
    )


def large_batches(name: str, found: Sequence[Found]) -> Claim:
    """h_max with the large batch over that with the small one."""
    quantities = []
    for index, one in enumerate(found):
        assert one.sharp is not None
        own = float(one.tree["curvature"].to_dataset()["curvature"].max())
        for value, equal in zip(one.sharp, ("steps", "epochs"), strict=True):
            title = f"network {index + 1}, h_max after equal {equal}, large over small batch"
            quantities.append(Quantity(title, value / own, 0.0, 1.0, ">"))
    return claim(
        f"Large batches end in sharper places, after as many steps or as many epochs ({name}).",
        "Keskar et al. (2017), arXiv:1609.04836",
        quantities,
        "Largest curvature, weight decay included, at the last iterate of one run each.",
        "reading",
        "abstract, there at the end of training",
        "networks",
    )


def epochs(name: str, found: Sequence[Found]) -> Claim:
    """Variance under reshuffled epochs over that with batches drawn independently."""
    quantities, told = [], []
    for index, one in enumerate(found):
        assert one.reshuffled is not None
        law = one.reshuffled["variance"] / one.reshuffled["predicted_variance"]
        told.append(f"{float(law.mean()):.2f}")
        white = last_look(one)
        ratio = one.reshuffled["variance"].values / white["variance"].values
        error = np.sqrt(4 / (int(white["replicas"]) - 1) / ratio.size)
        mean = float(ratio.mean())
        quantities.append(Quantity(f"network {index + 1}", mean, float(mean * error), 1.0, "<"))
    return claim(
        f"Reshuffled epochs spread less along the modes than independent batches ({name}).",
        "Kühn, Rosenow (2023), arXiv:2306.05300",
        quantities,
        "Mean over the modes of the ratio of variances after the last step. Over the law of "
        f"reshuffled epochs from rest the variances are {', '.join(told)}.",
        "reading",
        "abstract, there of flat directions",
    )


def chart_of_modes(found: Sequence[Found]) -> Chart:
    """Variance of replicas over law, mode by mode."""
    series = []
    for index, one in enumerate(found):
        last = last_look(one)
        ratio = (last["variance"] / last["predicted_variance"]).values
        error = ratio * np.sqrt(2 / (int(last["replicas"]) - 1))
        series.append(Series(f"network {index + 1}", last["mode"].values, ratio, error))
    return Chart("Variance, replicas over law", "mode", "ratio", tuple(series), level=1.0)


def chart_of_epochs(found: Sequence[Found]) -> Chart:
    """Variance under reshuffled epochs over that of independent batches, mode by mode."""
    series = []
    for index, one in enumerate(found):
        assert one.reshuffled is not None
        white, group = last_look(one), f"network {index + 1}"
        mode = white["mode"].values
        ratio = one.reshuffled["variance"].values / white["variance"].values
        law = one.reshuffled["predicted_variance"].values / white["predicted_variance"].values
        error = ratio * np.sqrt(4 / (int(white["replicas"]) - 1))
        series += [
            Series(group, mode, ratio, error, group=group),
            Series(f"{group}, laws", mode, law, look="line", group=group),
        ]
    title = "Variance, reshuffled over independent batches"
    return Chart(title, "mode", "ratio", tuple(series), "y", level=1.0)


def told_unstable(found: Sequence[Found], config: Any) -> str:
    """For how many settings of the grid replicas could not leave from there."""
    whole = len(config.grid(found[0].sharp is not None))
    missing = [whole - len(one.settings) for one in found]
    if not any(missing):
        return ""
    return (
        f": {', '.join(map(str, missing))} of the {whole} settings of the grid (one number a "
        "network) are unstable there, and nothing is said of how far their replicas go"
    )
