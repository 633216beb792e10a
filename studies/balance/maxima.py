"""SGD that settles on maxima: the random walk of the log-distance against real runs."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

import statsgd
from statsgd import SGD, OptaxDynamics, noise
from statsgd.comparison import Claim
from statsgd.estimate import Estimate
from statsgd.laws import LogMultiplicativeWalk
from statsgd.laws.loss_noise import collapse_window
from statsgd.measures import mean_over_clusters
from statsgd.problems import EmpiricalRisk, empirical_risk
from statsgd.reports.charts import Chart, Series
from studies.balance.pairs import MAXIMA
from studies.measured import claimed, endpoints, points, share_of_runs

#: Curvatures of the two examples; their mean −0.1 makes w = 0 a maximum.
MAXIMUM = (1.0, -1.2)
_NEAR = 1e-3


def common_point(curvatures: tuple[float, float]) -> EmpiricalRisk:
    """Two examples with losses h w²/2 + w⁴/4: w = 0 is stationary for both."""
    return empirical_risk(_example_loss, np.array(curvatures), np.array([0.3]))


def _example_loss(params: Float[Any, " 1"], curvature: Float[Any, ""]) -> Float[Any, ""]:
    return 0.5 * curvature * params[0] ** 2 + params[0] ** 4 / 4


def maxima_claims(
    *, steps: int, replicas: int, seed: int, margin: float, progress: bool
) -> dict[str, xr.DataTree]:
    """Collapse onto a maximum, its loss by batching, sharp against flat, and AMSGrad."""
    settings: dict[str, Any] = {"replicas": replicas, "seed": seed, "progress": progress}
    rates = np.array([0.05, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.9])
    edges = np.array([0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 1.2, 1.45])
    a = MAXIMUM[1] + 1
    window = collapse_window(a)
    growth = _growth(MAXIMUM, edges, settings)
    ends = {size: _at_maximum(size, rates, steps, settings) for size in (1, 4)}
    confined = {size: shares for size, (shares, _) in ends.items()}
    lost = ends[1][1][-1]
    inside = [i for i, rate in enumerate(edges) if window[0] < rate < window[1]]
    outside = [i for i in range(len(edges)) if i not in inside]
    small, middle = 0, list(rates).index(0.5)
    stuck = confined[1][middle]
    free = confined[1][small]
    collapse = Claim(
        statement=(
            "With a constant large learning rate SGD converges to a local maximum, for learning "
            "rates in a window that the data determine."
        ),
        source=f"{MAXIMA}; window derived",
        quantities=[
            *(
                claimed(
                    f"growth rate of ln|w| at η = {edges[i]:g}, inside the window",
                    growth[i],
                    "<",
                    0.0,
                )
                for i in inside
            ),
            *(
                claimed(f"growth rate of ln|w| at η = {edges[i]:g}, outside", growth[i], ">", 0.0)
                for i in outside
            ),
            claimed("share of runs at the maximum, η = 0.5", stuck, "=", 1.0, margin),
            claimed("share of runs at the maximum, η = 0.05", free, "<", 0.5),
        ],
        why=(
            f"Losses h w²/2 + w⁴/4 with h = {MAXIMUM[0]:g} or {MAXIMUM[1]:g}: w = 0 is a maximum "
            f"of the mean. ln|w| walks at random with mean E ln|1 − ηh|, negative for "
            f"{window[0]:.4f} < η < {window[1]:.4f}: w → 0 in probability, while E w and E w² "
            f"grow. From w = 0.3, {lost:.1%} of the runs at η = {rates[-1]:g} leave to infinity "
            "first, over the quartic walls."
        ),
        origin="source",
        place="abstract, (1); the window is derived",
        data_sets=0,
        unit="runs",
    )
    fine = np.linspace(0.02, 1.5, 300)
    exact = [walk_rate(MAXIMUM, rate) for rate in fine if abs(rate - 1) > 0.01]
    kept = fine[np.abs(fine - 1) > 0.01]
    growths = Chart(
        "Growth rate of the distance to a maximum",
        "learning rate η",
        "mean of ln|w_k/w₀|/k",
        (
            points("SGD", edges, growth, group="rate"),
            Series("E ln|1 − ηh|", kept, exact, look="line", group="rate"),
        ),
        level=0.0,
    )
    shares = Chart(
        f"Runs within {_NEAR:g} of the maximum after {steps} steps",
        "learning rate η",
        "share of runs",
        tuple(points(f"batches of {size}", rates, confined[size]) for size in confined),
    )
    batched = confined[4][middle]
    batching = Claim(
        statement="Larger batches remove the collapse onto the maximum at every learning rate.",
        source=MAXIMA,
        quantities=[
            claimed("share of runs at the maximum, η = 0.5, batches of 4", batched, "<", 0.5),
            claimed(
                "share of runs at the maximum, η = 0.9, batches of 4", confined[4][-1], "<", 0.5
            ),
        ],
        why=(
            f"For batches of 4 the growth rate at η = 0.5 is {walk_rate(MAXIMUM, 0.5, 4):+.4f} "
            f"against {walk_rate(MAXIMUM, 0.5, 1):+.4f} for single examples, but at η = 0.9 it is "
            f"{walk_rate(MAXIMUM, 0.9, 4):+.4f}: batching moves the window to larger learning "
            "rates and narrows it, and does not always close it."
        ),
        origin="extension",
        place="abstract, (1), extended to batches of several examples",
        data_sets=0,
        unit="runs",
    )
    return {
        "collapse onto a maximum": collapse.to_datatree(growths, shares),
        "batching": batching.to_datatree(),
        "sharp over flat": _sharp_over_flat(edges, settings),
        "AMSGrad": _amsgrad(settings, margin),
    }


def _growth(
    curvatures: tuple[float, float],
    rates: Float[Any, " c"],
    settings: dict[str, Any],
    steps: int = 24,
) -> list[Estimate]:
    """Growth rate of ln|w| per step, so close to 0 that the quartic term is not felt."""
    start = 1e-8
    run = statsgd.simulate(
        common_point(curvatures),
        statsgd.grid(SGD(0.1, noise.Minibatch(1)), learning_rate=rates),
        steps=steps,
        start=np.array([start]),
        # Few steps are cheap, and rates near the edges of the window are small.
        **{**settings, "replicas": 4 * settings["replicas"]},
    )
    growth = np.log(np.abs(endpoints(run)[..., 0]) / start) / steps
    return [mean_over_clusters(row) for row in growth]


def _at_maximum(
    size: int, rates: Float[Any, " c"], steps: int, settings: dict[str, Any]
) -> tuple[list[Estimate], Float[Any, " c"]]:
    """Share of runs that end near the maximum, and share that diverge."""
    run = statsgd.simulate(
        common_point(MAXIMUM),
        statsgd.grid(SGD(0.1, noise.Minibatch(size)), learning_rate=rates),
        steps=steps,
        **settings,
    )
    lost = run["run"].to_dataset()["diverged"].values.mean(axis=-1)
    shares = [share_of_runs(row < _NEAR) for row in np.abs(endpoints(run)[..., 0])]
    return shares, lost


def walk_rate(curvatures: tuple[float, float], learning_rate: float, batch_size: int = 1) -> float:
    """E ln|1 − η mean(h)| over batches of the two examples."""
    walk = LogMultiplicativeWalk.of_batches(np.array(curvatures), learning_rate, 1, batch_size)
    return float(walk.growth_rate())


def _sharp_over_flat(rates: Float[Any, " c"], settings: dict[str, Any]) -> xr.DataTree:
    flat, sharp = (-2.0, 3.0), (1.4, 1.6)
    # Few steps: at the sharp minimum single precision would run out of small numbers.
    rows = {kind: _growth(kind, rates, settings, steps=8) for kind in (flat, sharp)}
    at = list(rates).index(0.7)
    claim = Claim(
        statement="SGD may leave a flat minimum and stay in a sharp one.",
        source=MAXIMA,
        quantities=[
            claimed("growth rate at a flat minimum, E h = 0.5, η = 0.7", rows[flat][at], ">", 0.0),
            claimed(
                "growth rate at a sharp minimum, E h = 1.5, η = 0.7", rows[sharp][at], "<", 0.0
            ),
        ],
        why=(
            "The flat minimum is one only on average, h = −2 or 3 for its two examples; at the "
            "sharp one they nearly agree, h = 1.4 or 1.6. What counts is E ln|1 − ηh|, here "
            f"{walk_rate(flat, 0.7):+.3f} and {walk_rate(sharp, 0.7):+.3f}, and not E h."
        ),
        origin="source",
        place="abstract, (3)",
        data_sets=0,
        unit="runs",
    )
    fine = np.linspace(0.03, 1.45, 120)
    chart = Chart(
        "Growth rate at a flat and at a sharp minimum",
        "learning rate η",
        "mean of ln|w_k/w₀|/k",
        tuple(
            series
            for kind, word in ((flat, "flat, noisy"), (sharp, "sharp, quiet"))
            for series in (
                points(f"SGD, {word}", rates, rows[kind], group=word),
                Series(
                    "E ln|1 − ηh|",
                    fine,
                    [walk_rate(kind, rate) for rate in fine],
                    look="line",
                    group=word,
                ),
            )
        ),
        level=0.0,
    )
    return claim.to_datatree(chart)


def _amsgrad(settings: dict[str, Any], margin: float) -> xr.DataTree:
    """AMSGrad without first moment, on the same maximum."""
    rates = np.array([0.01, 0.03, 0.1, 0.2, 0.3, 0.5])
    dynamics = OptaxDynamics(_without_first_moment, noise.Minibatch(1), learning_rate=0.01)
    run = statsgd.simulate(
        common_point(MAXIMUM),
        statsgd.grid(dynamics, {"hyperparameters.learning_rate": rates}),
        steps=4000,
        start=np.array([0.5]),
        **settings,
    )
    shares = [share_of_runs(row < _NEAR) for row in np.abs(endpoints(run)[..., 0])]
    claim = Claim(
        statement="AMSGrad too converges to a local maximum at a large learning rate.",
        source=MAXIMA,
        quantities=[
            claimed("share of runs at the maximum, η = 0.5", shares[-1], "=", 1.0, margin),
            claimed("share of runs at the maximum, η = 0.01", shares[0], "<", 0.5),
        ],
        why=(
            "Without first moment and with b2 = 0.9. The step η/√v̂ divides by the largest second "
            "moment seen, which does not change any more near w = 0: from then on it is SGD with a "
            "constant learning rate, and may lie in the window."
        ),
        origin="source",
        place="abstract, (4)",
        data_sets=0,
        unit="runs",
    )
    return claim.to_datatree()


def _without_first_moment(learning_rate: Any) -> Any:
    import optax

    return optax.amsgrad(learning_rate, b1=0.0, b2=0.9, eps=1e-12)
