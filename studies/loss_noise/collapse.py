"""When SGD with noise proportional to the loss collapses onto the zero-loss set, and how fast."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

import statsgd
from statsgd import SGD, noise
from statsgd.comparison import Claim, Quantity
from statsgd.laws import SaturatingLossScaledLaw, StrataLaw
from statsgd.laws.loss_noise import (
    critical_noise_ratio,
    discrete_collapse_threshold,
    lyapunov_exponent,
    mean_loss_contraction,
)
from statsgd.measures import mean_over_clusters, mean_over_runs
from statsgd.problems import landscape, quadratic
from statsgd.reports.charts import Chart, Series
from studies.measured import claimed, endpoints, observed, points, share_of_runs, zero_crossing

ONE = "Wojtowytsch (2021), arXiv:2105.01650"
TWO = "Wojtowytsch (2021), arXiv:2106.02588"


def _log_distance(params: Float[Any, " q"]) -> Float[Any, ""]:
    # Squares of collapsed runs underflow long before their coordinates do.
    largest = jnp.max(jnp.abs(params))
    return jnp.log(largest) + 0.5 * jnp.log(jnp.sum((params / largest) ** 2))


def growth_rates(
    curvatures: Float[Any, " q"],
    ratios: Float[Any, " c"],
    *,
    learning_rate: float,
    time: float,
    replicas: int,
    seed: int,
    progress: bool,
) -> Float[Any, "c n"]:
    """Growth of ln|y| per unit of time under C = σL I, in every run, once directions have mixed."""
    q = len(curvatures)
    steps = max(10, round(time / learning_rate))
    late = {"log_distance": _log_distance}
    run = statsgd.simulate(
        quadratic(np.diag(curvatures)),
        statsgd.grid(
            SGD(learning_rate, noise.LossScaled(1.0)),
            {"noise.strength": ratios / learning_rate},
        ),
        steps=steps,
        replicas=replicas,
        seed=seed,
        start=np.full(q, q**-0.5),
        observe=late,
        observe_at=[steps // 5, steps],
        progress=progress,
    )
    values = observed(run, "log_distance")
    return (values[..., 1] - values[..., 0]) / (learning_rate * (steps - steps // 5))


def threshold_claims(
    *, replicas: int, time: float, seed: int, margin: float, progress: bool
) -> dict[str, xr.DataTree]:
    """The critical noise at several codimensions, and what is left of it at low codimension."""
    settings: dict[str, Any] = {"replicas": replicas, "seed": seed, "progress": progress}
    eta = 0.01
    scales = np.array([0.5, 0.75, 0.9, 1.1, 1.25, 1.5])
    theory = [lyapunov_exponent(np.ones(3), critical_noise_ratio(3) * scale) for scale in scales]
    quantities, series = [], []
    for codimension in (3, 4, 10):
        critical = critical_noise_ratio(codimension)
        curvatures = np.ones(codimension)
        rates = growth_rates(
            curvatures, critical * scales, learning_rate=eta, time=time, **settings
        )
        crossing = zero_crossing(critical * scales, rates)
        exact = discrete_collapse_threshold(codimension, eta)
        quantities += [
            claimed(
                f"critical ε at codimension {codimension}, against 4/(q−2)",
                crossing,
                "=",
                critical,
                margin,
            ),
            claimed(
                f"critical ε at codimension {codimension}, exact chain",
                crossing,
                "=",
                exact,
                margin,
            ),
        ]
        rows = [mean_over_clusters(row) for row in rates]
        series.append(points(f"SGD, codimension {codimension}", scales, rows))
    thresholds = Claim(
        statement=(
            "SGD with noise C = σL I collapses onto the zero-loss set if ησ < 4/(q−2), q its "
            "codimension, and is repelled by it above."
        ),
        source=f"derived, for the noise of {TWO}",
        quantities=quantities,
        why=(
            f"Growth rate of the distance to the set at η = {eta:g} over a time of {time:g}, where "
            "it changes sign. The chain's own threshold is a little lower: it leaves with smaller "
            "noise than the diffusion."
        ),
        origin="derived",
        data_sets=0,
        unit="runs",
    )
    chart = Chart(
        "Growth rate of the distance to the zero-loss set",
        "noise over its critical value, ε/ε_c",
        "mean of d ln|y|/dt",
        (*series, Series("diffusion, ε/ε_c − 1 at each", scales, theory, look="line")),
        level=0.0,
    )
    plane = 0.1
    limit = discrete_collapse_threshold(2, plane)
    low = growth_rates(
        np.ones(2), limit * np.array([0.6, 1.6]), learning_rate=plane, time=time, **settings
    )
    below, above = (mean_over_clusters(row) for row in low)
    never = Claim(
        statement="In codimension one or two SGD collapses at every strength of the noise.",
        source=f"derived, for the noise of {TWO}",
        quantities=[
            claimed(f"growth rate at codimension 2, ε = {0.6 * limit:.3g}", below, "<", 0.0),
            claimed(f"growth rate at codimension 2, ε = {1.6 * limit:.3g}", above, "<", 0.0),
        ],
        why=(
            f"True of the diffusion, false of the chain: at η = {plane:g} its growth rate changes "
            f"sign at ε = {limit:.4g}. As η → 0 that threshold goes to infinity."
        ),
        origin="derived",
        data_sets=0,
        unit="runs",
    )
    return {
        "critical noise": thresholds.to_datatree(chart),
        "low codimension": never.to_datatree(),
    }


def speed_claim(
    *, replicas: int, time: float, seed: int, margin: float, progress: bool
) -> xr.DataTree:
    """Speed of collapse for unequal curvatures, and the mean loss against typical runs."""
    eta, curvatures = 0.002, np.array([1.0, 4.0, 9.0])
    ratios = np.array([1.0, 2.0, 3.0])
    settings: dict[str, Any] = {"replicas": replicas, "seed": seed, "progress": progress}
    rates = growth_rates(curvatures, ratios, learning_rate=eta, time=time, **settings)
    rows = [mean_over_clusters(row) for row in rates]
    theory = [lyapunov_exponent(curvatures, ratio) for ratio in ratios]
    steps, ratio = 100, 2.0
    run = statsgd.simulate(
        quadratic(np.eye(3)),
        statsgd.grid(SGD(eta, noise.LossScaled(1.0)), {"noise.strength": np.full(3, ratio / eta)}),
        steps=steps,
        start=np.full(3, 3**-0.5),
        replicas=replicas,
        seed=seed,
        observe={"log_distance": _log_distance},
        observe_at=[steps // 5, steps],
        progress=progress,
    )
    loss = np.sum(endpoints(run)[0] ** 2, axis=1)
    mean = mean_over_clusters(loss)
    contraction = mean_loss_contraction(eta, 1.0, 2.0, 3 * ratio / eta) ** steps
    typical = mean_over_clusters(np.log(loss))
    claim = Claim(
        statement=(
            "Below the critical noise the loss goes to zero exponentially in almost every run, at "
            "a rate that the curvatures determine, even where the mean loss grows."
        ),
        source=f"{ONE}, for exponential convergence; rates derived",
        quantities=[
            *(
                claimed(
                    f"H = (1, 4, 9), ε = {ratio:g}: growth rate of ln|y|",
                    row,
                    "=",
                    value,
                    2 * margin,
                )
                for ratio, row, value in zip(ratios, rows, theory, strict=True)
            ),
            claimed("H = I, ε = 2: mean loss over its start", mean, "=", contraction, 2 * margin),
            claimed("H = I, ε = 2: growth of the mean loss", mean, ">", 1.0),
            claimed("H = I, ε = 2: mean of the log loss", typical, "<", 0.0),
        ],
        why=(
            f"Between ε = 4/q and 4/(q−2), here 1.33 and 4, a few runs carry a mean loss that "
            f"grows by {contraction:.3f} in {steps} steps, while the typical one falls by "
            f"{np.exp(typical.value):.3f}."
        ),
        origin="extension",
        place="exponential convergence; the rates are derived",
        data_sets=0,
        unit="runs",
    )
    return claim.to_datatree()


def ergodic_claim(
    *, replicas: int, time: float, seed: int, margin: float, progress: bool
) -> xr.DataTree:
    """The stationary law above the critical noise, on a quadratic with noise that saturates."""
    eta, ratios = 0.005, np.array([8.0, 12.0])
    steps = round(time / eta)
    run = statsgd.simulate(
        quadratic(np.eye(3)),
        statsgd.grid(
            SGD(eta, noise.LossScaled(1.0, saturation=1.0)), {"noise.strength": ratios / eta}
        ),
        steps=steps,
        replicas=replicas,
        seed=seed,
        start=np.full(3, 1.0),
        observe={"log_distance": _log_distance},
        observe_at=[round(steps * (9 + i) / 16) for i in range(8)],
        progress=progress,
    )
    losses = 0.5 * np.exp(2 * observed(run, "log_distance"))
    laws = [SaturatingLossScaledLaw(np.eye(3), ratio, 1.0).loss_law for ratio in ratios]
    quantities = []
    for ratio, row, law in zip(ratios, losses, laws, strict=True):
        mean = mean_over_runs(row)
        below = share_of_runs(row < law.quantile(0.5))
        quantities += [
            claimed(f"ε = {ratio:g}: mean loss", mean, "=", float(law.mean()), margin),
            claimed(
                f"ε = {ratio:g}: share of runs below the law's median", below, "=", 0.5, margin
            ),
        ]
    low = share_of_runs(losses[0] < 0.01)
    claim = Claim(
        statement=(
            "Above the critical noise SGD has a stationary law off the zero-loss set, a power of "
            "the loss up to where the noise saturates."
        ),
        source=f"{TWO}; saturating noise and law derived",
        quantities=quantities,
        why=(
            f"L = |y|²/2 in three dimensions, C = σL/(1 + L) I, η = {eta:g}. At small loss finite "
            f"steps are felt most: P(L < 0.01) is {low.value:.4f} ± "
            f"{low.standard_error:.4f} at ε = 8, the law has {float(laws[0].cdf(0.01)):.4f}."
        ),
        origin="extension",
        place="the power law of the loss, extended to noise that saturates",
        data_sets=0,
        unit="runs",
    )
    edges = np.linspace(-10, 4, 43)
    middle = (edges[1:] + edges[:-1]) / 2
    series = []
    for ratio, row, law in zip(ratios, losses, laws, strict=True):
        counts = np.histogram(np.log(row), edges)[0] / (row.size * np.diff(edges))
        density = np.diff(law.cdf(np.exp(edges))) / np.diff(edges)
        name = f"ε = {ratio:g}"
        series += [
            Series(f"SGD, {name}", middle, counts, group=name),
            Series(f"law, {name}", middle, density, look="line", group=name),
        ]
    chart = Chart(
        "Stationary law of the loss above the critical noise", "ln L", "density", tuple(series)
    )
    return claim.to_datatree(chart)


def strata_loss(params: Float[Any, "4"]) -> Float[Any, ""]:
    """Zero on a segment of codimension 3 and at a point of codimension 4; see `StrataLaw`."""
    return StrataLaw.loss(params)


def strata_claims(
    *, replicas: int, time: float, seed: int, margin: float, progress: bool
) -> dict[str, xr.DataTree]:
    """Which of two strata of the zero-loss set takes the mass."""
    eta, ratios = 0.01, np.array([1.5, 3.0, 4.5, 8.0, 12.0])
    steps = round(time / eta)
    start = np.array([0.3, 0.3, 0.3, 2.0])
    run = statsgd.simulate(
        landscape(strata_loss, start),
        statsgd.grid(
            SGD(eta, noise.LossScaled(1.0, saturation=1.0)), {"noise.strength": ratios / eta}
        ),
        steps=steps,
        replicas=replicas,
        seed=seed,
        observe={"params": _identity, "loss": strata_loss},
        observe_at=[round(steps * (9 + i) / 16) for i in range(8)],
        progress=progress,
    )
    z, loss = observed(run, "params")[..., 3], observed(run, "loss")
    absorbed = loss < 1e-4
    on_segment = [share_of_runs(row[:, -1]) for row in absorbed & (z < 1.5)]
    at_point = [share_of_runs(row[:, -1]) for row in absorbed & (z > 1.5)]
    stationary = [share_of_runs(row) for row in ((z >= 0) & (z <= 1))[-2:]]
    laws = [StrataLaw(ratio).segment_probability() for ratio in ratios[-2:]]
    wins = Claim(
        statement=(
            "Of two strata of the zero-loss set the one of lower codimension attracts and the "
            "other repels while ησ lies between their critical noises: flat means low codimension."
        ),
        source=f"derived, for the noise of {TWO}",
        quantities=[
            claimed("ε = 3: share on the segment (codimension 3)", on_segment[1], ">", 0.5),
            claimed("ε = 3: share at the point (codimension 4)", at_point[1], "<", 0.05),
            *(
                claimed(f"ε = {ratio:g}: P(0 ≤ z ≤ 1), both repel", row, "=", law, 2 * margin)
                for ratio, row, law in zip(ratios[-2:], stationary, laws, strict=True)
            ),
        ],
        why=(
            f"All {replicas} runs start next to the point, with the same curvatures as on the "
            f"segment. Critical noises are 2 and 4; η = {eta:g}, t = {time:g}. Above both, the "
            "stationary law spreads over both; finite steps take it off small losses a little."
        ),
        origin="derived",
        data_sets=0,
        unit="runs",
    )
    start_decides = Claim(
        statement="Below the critical noise of all strata SGD still selects the flattest one.",
        source=f"an extension of {TWO} beyond its regime",
        quantities=[
            Quantity(
                "ε = 1.5: share of collapsed runs at the point",
                at_point[0].value / (at_point[0].value + on_segment[0].value),
                at_point[0].standard_error / (at_point[0].value + on_segment[0].value),
                0.05,
                "<",
            ),
        ],
        why=(
            f"At ε = 1.5 both strata attract, and the start decides: {at_point[0].value:.2f} of "
            f"the runs end at the point, {on_segment[0].value:.2f} on the segment. There is no "
            "stationary law and no principle of selection."
        ),
        origin="extension",
        place="flat minima, extended to noise below the critical one",
        data_sets=0,
        unit="runs",
    )
    collapsed = Chart(
        f"Collapsed runs (L < 10⁻⁴) at t = {time:g}; critical noises 2 and 4",
        "noise ratio ε = ησ",
        "share of runs",
        (
            points("on the segment, codimension 3", ratios, on_segment),
            points("at the point, codimension 4, where runs start", ratios, at_point),
        ),
    )
    fine = np.linspace(4.1, 14, 40)
    chart = Chart(
        "Mass next to the segment, above both critical noises",
        "noise ratio ε = ησ",
        "P(0 ≤ z ≤ 1)",
        (
            points("SGD", ratios[-2:], stationary, group="mass"),
            Series(
                "law",
                fine,
                [StrataLaw(ratio).segment_probability() for ratio in fine],
                look="line",
                group="mass",
            ),
        ),
    )
    return {
        "strata": wins.to_datatree(collapsed, chart),
        "no selection below": start_decides.to_datatree(),
    }


def _identity(params: Float[Any, " d"]) -> Float[Any, " d"]:
    return params
