"""Claims on how far replicas go from near a minimum, along all directions."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from statsgd.comparison import Claim, Quantity
from statsgd.reports import Chart, Series
from studies.networks.measured import MILD, Found, Setting
from studies.networks.one_data_set import claim

#: Difference of exponents that counts as none.
EXPONENT = 0.05
#: Said where replicas left from elsewhere when the claim was first put.
FIRST_FORM = (
    " In its first form units had kinks and replicas left from where a descent ends; the page of "
    "claims has what was found then."
)
#: Difference of curvatures between two places and on the way that counts as none.
KINKS = 0.05


def displacement(name: str, found: Sequence[Found], config: Any, pilot: bool) -> Claim:
    """E|θ_K − θ₀|² over the grid."""
    return claim(
        "How far replicas go along all directions follows from the spectrum of curvature and noise "
        f"{place_of(pilot)} ({name}).",
        "derived" if pilot else "derived; Kunin et al. (2021), arXiv:2107.09133, for C = σ²H",
        over_settings(found, "displacement", lambda _: config.margin, pilot, divided=True),
        f"E|θ−θ₀|² after {config.steps} steps from near the minimum, over tr(C f(H)) by "
        f"quadrature{told_pilots(pilot)}. {left_out(found, 'displacement')}{FIRST_FORM}",
        *("derived", "") if pilot else ("extension", "mean squared displacement at stationarity"),
    )


def exponent(name: str, found: Sequence[Found], pilot: bool) -> Claim:
    """Its exponent."""
    return claim(
        "The exponent of the displacement follows from the spectrum of curvature and noise "
        f"{place_of(pilot)}, and from the hyper-parameters ({name}).",
        "derived" if pilot else "Kunin et al. (2021), arXiv:2107.09133",
        over_settings(found, "exponent", lambda predicted: EXPONENT / abs(predicted), pilot),
        f"Slope of ln E|θ_K−θ₀|² on ln K over the last nine tenths of the steps, to {EXPONENT}"
        f"{told_pilots(pilot)}. {left_out(found, 'exponent')}{FIRST_FORM}",
        *("derived", "")
        if pilot
        else (
            "extension",
            "exponents of diffusion that depend on learning rate, batch size and momentum",
        ),
    )


def rise(name: str, found: Sequence[Found], config: Any, pilot: bool) -> Claim:
    """E L(θ_K) − L(θ₀)."""
    return claim(
        f"Tr HC {place_of(pilot)}, moved on by the linear chain, says how much the loss rises "
        f"({name}).",
        "derived" if pilot else "Zhu et al. (2019), arXiv:1803.00195",
        over_settings(found, "rise", lambda _: config.margin, pilot, divided=True),
        f"Rise of the loss with weight decay after {config.steps} steps, over ½ Tr(CHf(H)) and "
        f"what the mean gains on its way{told_pilots(pilot)}. "
        f"{left_out(found, 'rise')}{FIRST_FORM}",
        *("derived", "")
        if pilot
        else ("extension", "the indicator Tr(HC) of one step, here summed over steps"),
    )


def place_of(pilot: bool) -> str:
    """Where noise and curvature are measured."""
    return "where a few others end" if pilot else "where they leave"


def told_pilots(pilot: bool) -> str:
    """What a pilot's errors are."""
    return (
        "; errors of the prediction are the scatter between two of them and between starts of the "
        "quadrature" if pilot else ""
    )  # fmt: skip


def over_settings(
    found: Sequence[Found],
    field: str,
    margin: Callable[[float], float],
    pilot: bool = False,
    divided: bool = False,
) -> list[Quantity]:
    """Measured against predicted of every mild setting; `divided` for their ratio."""
    quantities = []
    for index, one in enumerate(found):
        for row in (row for row in one.settings if row.growth < MILD):
            of = getattr(row, field)
            seen, law = of.measured, of.piloted if pilot else of.plain
            error = float(np.hypot(seen.standard_error, law.standard_error))
            predicted = float(law.value)
            scale = abs(predicted) if divided else 1.0
            title = f"network {index + 1}, {titled(row)}"
            numbers = float(seen.value) / scale, error / scale, predicted / scale
            quantities.append(Quantity(title, *numbers, "=", margin(predicted)))
    return quantities


def kinks(name: str, found: Sequence[Found]) -> Claim:
    """Curvature between two places over the mean on the way."""
    return claim(
        "Curvature between two places is that of the places on the way: second derivatives leave "
        f"nothing out ({name}).",
        "derived",
        [
            Quantity(f"network {index + 1}, {titled(row)}", row.kinks, 0.0, 1.0, "=", KINKS)
            for index, one in enumerate(found)
            for row in one.settings
        ],
        "Change of the gradient from where a replica leaves to where it ends, along its way, over "
        "the mean of the curvature at five places on it. Above one where units have kinks, which "
        "carry curvature that no second derivative sees.",
        "derived",
        "",
    )


def titled(row: Setting) -> str:
    """Its hyper-parameters."""
    return f"η = {row.learning_rate:g}, S = {row.batch_size}, β = {row.momentum:g}"


def left_out(found: Sequence[Found], field: str) -> str:
    """What was found where noise grows too much for a law with constant noise."""
    hot = [
        f"{titled(row)}: {float(seen.value):.3g} against {float(law.value):.3g}, noise "
        f"{row.growth:.2g} times (network {index + 1})"
        for index, one in enumerate(found)
        for row in one.settings
        if row.growth >= MILD
        for seen, law, _ in [getattr(row, field)]
    ]
    if not hot:
        return f"Noise grows by less than {MILD:g} on the way everywhere."
    return f"Not judged, as noise grows by {MILD:g} or more on the way: {'; '.join(hot)}."


def chart_of_exponents(found: Sequence[Found], pilot: bool) -> Chart:
    """Measured exponents over predicted ones, of the mild settings."""
    rows = [row.exponent for one in found for row in one.settings if row.growth < MILD]
    seen = [float(row.measured.value) for row in rows]
    law = [float(of.value) for row in rows if (of := row.piloted if pilot else row.plain)]
    errors = [float(row.measured.standard_error) for row in rows]
    ends = [min(law), max(law)]
    series = Series("a setting", law, seen, errors), Series("equal", ends, ends, look="line")
    return Chart("Exponent of the displacement", "predicted", "measured", series)
