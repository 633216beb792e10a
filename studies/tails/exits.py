"""Claims on first exits from a well: one jump against Kramers, and recorded noise against both."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

import statsgd
from statsgd.comparison import Claim
from statsgd.dynamics.noise import GradientNoise
from statsgd.estimate import Estimate
from statsgd.laws.heavy_tails import stable_exit, stable_exit_steps
from statsgd.measures import first_passage, restricted_mean, tail_index
from statsgd.noise import Empirical, Stable
from statsgd.problems import Problem, landscape
from statsgd.reports import Chart, Series
from studies.measured import claimed, points

NGUYEN = "Nguyen, Şimşekli, Gürbüzbalaban, Richard (2019), arXiv:1906.09069"
ETA, ALPHA, SCALE = 0.1, 1.5, 0.1
#: Of the normal noise beside it, which would otherwise never leave.
NORMAL_SCALE = 0.6
WIDTHS = (0.5, 0.7, 1.0, 1.4, 2.0)


class ExitSettings(NamedTuple):
    """Runs out of wells."""

    replicas: int
    margin: float
    seed: int


def well(curvature: float) -> Problem:
    """½hθ²."""
    return landscape(lambda params: 0.5 * curvature * jnp.sum(params**2), np.zeros(1))


def mean_steps(
    noise: GradientNoise, curvature: float, width: float, settings: ExitSettings, most: int
) -> Estimate:
    """Mean steps to |θ| > width, from the bottom."""
    exits = first_passage(
        well(curvature), statsgd.SGD(ETA, noise), lambda params: jnp.abs(params[0]) < width,
        steps=most, replicas=settings.replicas, seed=settings.seed,
    )  # fmt: skip
    return restricted_mean(exits, most)


def log_slope(x: Float[np.ndarray, " n"], rows: list[Estimate]) -> Estimate:
    """Slope of the logarithm of independent numbers on ln x, weighted by their errors."""
    logs = np.log([row.value for row in rows])
    weight = np.array([row.value / row.standard_error for row in rows]) ** 2
    place = np.log(x) - weight @ np.log(x) / weight.sum()
    total = weight @ place**2
    return Estimate(float(weight * place @ logs / total), float(total**-0.5))


def parts(settings: ExitSettings, recorded: Float[np.ndarray, " n"]) -> dict[str, xr.DataTree]:
    """The claims on exits; `recorded` is noise of single examples along one direction."""
    noise = Stable(ALPHA, SCALE)
    widths = np.array(WIDTHS)
    limits = np.array([stable_exit(w, w, ALPHA, SCALE, ETA).steps for w in widths])
    found = [
        mean_steps(noise, 1.0, w, settings, int(20 * limit))
        for w, limit in zip(widths, limits, strict=True)
    ]
    steep = mean_steps(noise, 3.0, 1.0, settings, int(20 * limits[2]))
    exact = [stable_exit_steps(w, w, ALPHA, SCALE, ETA, 1.0) for w in widths]
    return {
        "exits, width": _width(widths, found, exact, limits, settings.margin),
        "exits, height": _height(found[2], steep, settings.margin),
        "exits, recorded noise": _recorded(recorded, settings),
    }


def _width(
    widths: Float[np.ndarray, " n"],
    found: list[Estimate],
    exact: list[float],
    limits: Float[np.ndarray, " n"],
    margin: float,
) -> xr.DataTree:
    claim = Claim(
        "Under stable noise SGD leaves a well by one jump, in a time that grows as the width to "
        "the power α",
        f"{NGUYEN}; Imkeller, Pavlyukevich (2006)",
        [
            claimed("slope of ln steps on ln width", log_slope(widths, found), "=", ALPHA, margin),
            claimed(f"mean steps, width {widths[-1]:g}", found[-1], "=", float(limits[-1]), margin),
        ],
        why=f"α = {ALPHA:g}, η = {ETA:g}, s = {SCALE:g}. The limit is one of small jumps: times of "
        "narrow wells lie below.",
        origin="source",
        place="theorem on first exits",
        data_sets=0,
        unit="runs",
    )
    normal = [w for w in widths if w < 1.2]
    steps = [stable_exit_steps(w, w, 2.0, NORMAL_SCALE, ETA, 1.0) for w in normal]
    chart = Chart(
        "Steps to leave a well", "half-width of the well", "mean steps",
        (points("SGD, α = 1.5", widths, found, "stable"),
         Series("exact chain", widths, exact, look="line", group="stable"),
         Series("one jump", widths, limits, look="line"),
         Series("exact chain, normal noise of six times the scale", normal, steps, look="line")),
        log="xy",
    )  # fmt: skip
    return claim.to_datatree(chart)


def _height(flat: Estimate, steep: Estimate, margin: float) -> xr.DataTree:
    ratio = steep.value / flat.value
    relative = np.hypot(steep.standard_error / steep.value, flat.standard_error / flat.value)
    normal = [stable_exit_steps(0.7, 0.7, 2.0, NORMAL_SCALE, ETA, h) for h in (1.0, 3.0)]
    return Claim(
        "Under stable noise the time to leave a well does not depend on its height",
        NGUYEN,
        [
            claimed("steps out of a well three times as high, over those of the other",
                    Estimate(ratio, ratio * relative), "=", 1.0, margin)
        ],
        why="Both of half-width 1, h = 1 and 3. Under normal noise of variance "
        f"{2 * NORMAL_SCALE**2:g} the same factor in a well of half-width 0.7 makes "
        f"{normal[0]:.3g} steps {normal[1]:.3g}.",
        origin="source", place="introduction", data_sets=0, unit="runs",
    ).to_datatree()  # fmt: skip


def _recorded(recorded: Float[np.ndarray, " n"], settings: ExitSettings) -> xr.DataTree:
    unit = recorded / recorded.std()
    index = tail_index(unit, "block", block=10)
    noise = Empirical(unit[:, None])
    spread = np.sqrt(ETA / (2 - ETA))
    widths = spread * np.array([2.5, 3.0, 3.5, 4.0])
    normal = np.array([stable_exit_steps(w, w, 2.0, 0.5**0.5, ETA, 1.0) for w in widths])
    found = [
        mean_steps(noise, 1.0, w, settings, int(20 * n))
        for w, n in zip(widths, normal, strict=True)
    ]
    claim = Claim(
        "With the noise of a network SGD leaves a well as with stable noise of the estimated "
        "index: in a time that grows as the width to the power α",
        f"derived from {NGUYEN}",
        [
            claimed("slope of ln steps on ln width", log_slope(widths, found), "=",
                    float(index.value), 2 * settings.margin)
        ],
        why="Noise of single examples along the leading direction, at the end of training, drawn "
        f"again at every step; its block estimate is {index.value:.2f}. At {widths[-1] / spread:g} "
        f"stationary deviations it leaves after {found[-1].value:.0f} steps where normal noise of "
        f"equal variance takes {normal[-1]:.0f}: it is heavy over a range of sizes, which ends at "
        f"the largest example, {np.max(np.abs(unit)):.0f} deviations.",
        origin="derived", data_sets=1, unit="runs",
    )  # fmt: skip
    chart = Chart(
        "Steps to leave a well, noise of a network's examples",
        "half-width over the stationary deviation", "mean steps",
        (points("recorded noise", widths / spread, found),
         Series("exact chain, normal noise of equal variance", widths / spread, normal,
                look="line")),
        log="y",
    )  # fmt: skip
    return claim.to_datatree(chart)
