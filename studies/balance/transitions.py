"""Where laws of diagonal networks end: collapse at the critical noise, and modes that vanish."""

import numpy as np
import xarray as xr
from scipy.optimize import brentq

import statsgd
from statsgd import SGD, noise
from statsgd.comparison import Claim, Quantity
from statsgd.laws import DiagonalNetworkLaw
from statsgd.laws.networks import (
    DataMoments,
    bimodal_end,
    collapse_exponent,
    learning_regime,
    stationary_points,
)
from statsgd.measures import mean_over_clusters
from statsgd.problems import diagonal_linear_network
from statsgd.reports.charts import Chart, Map, Series
from studies.balance.pairs import BALANCE, MAXIMA, teacher_data
from studies.balance.slopes import critical_noise
from studies.measured import (
    claimed,
    endpoints,
    points,
    zero_crossing,
)


def transition_claims(
    *, signal: float, steps: int, replicas: int, seed: int, margin: float, progress: bool
) -> dict[str, xr.DataTree]:
    """The growth rate of a two-layer network at zero, a saddle, as the noise passes T_c."""
    start = 1e-8
    problem = diagonal_linear_network(*teacher_data(signal, seed), 2, 1, np.full((1, 2), start))
    critical = critical_noise(problem)
    rates = critical * np.linspace(0.5, 1.5, 6)
    run = statsgd.simulate(
        problem,
        statsgd.grid(SGD(critical, noise.Minibatch(1)), learning_rate=rates),
        steps=steps,
        replicas=replicas,
        seed=seed,
        progress=progress,
    )
    total = np.abs(endpoints(run)[..., 0, :].sum(-1))
    growth = np.log(total / (2 * start)) / steps
    rows = [mean_over_clusters(row) for row in growth / rates[:, None]]
    crossing = zero_crossing(rates, growth / rates[:, None])
    products = np.asarray(problem.inputs * problem.targets, dtype=np.float64)
    exact = brentq(lambda rate: collapse_exponent(products, rate), 0.7 * critical, 1.3 * critical)
    collapse = Claim(
        statement=(
            "A network of one hidden layer collapses to zero exactly when the noise exceeds "
            "T_c = E[xy]/Var(xy)."
        ),
        source=BALANCE,
        quantities=[
            claimed(
                "noise at which the growth rate at zero changes sign",
                crossing,
                "=",
                critical,
                margin,
            ),
            claimed("the same against the exact discrete criterion", crossing, "=", exact, margin),
            claimed("growth rate per unit of time at 0.5 T_c", rows[0], ">", 0.0),
            claimed("growth rate per unit of time at 1.5 T_c", rows[-1], "<", 0.0),
        ],
        why=(
            "Near zero a step multiplies u + w by 1 + 2ηxy, so its logarithm grows at "
            f"E ln|1 + 2ηxy|, which vanishes at η = {exact:.4f} here, against T_c = "
            f"{critical:.4f} for small steps."
        ),
        origin="source",
        place="the phase transition at the critical noise",
        data_sets=1,
        unit="runs",
    )
    descent = np.log1p(2 * rates * float(products.mean())) / rates
    slow = Claim(
        statement=(
            "SGD may take arbitrarily long to escape from a saddle, or never do so, where gradient "
            "descent escapes fast."
        ),
        source=f"{MAXIMA}, on the network of {BALANCE}",
        quantities=[
            claimed("growth rate at 0.9 T_c against a quarter of gradient descent's", rows[2], "<",
                   descent[2] / 4),
            claimed("growth rate at 0.9 T_c", rows[2], ">", 0.0),
            claimed("growth rate at 1.5 T_c", rows[-1], "<", 0.0),
        ],
        why=(
            "Zero is a saddle of the loss in (u, w). Gradient descent leaves it at "
            f"{descent[2]:.4f} per unit of time whatever its learning rate, SGD at "
            f"{rows[0].value:.4f}, {rows[1].value:.4f} and {rows[2].value:.4f} for T/T_c = 0.5, "
            "0.7 and 0.9: the time to leave diverges at T_c, and above it SGD converges to the "
            "saddle."
        ),
        origin="source",
        place="abstract, (2); here on a two-layer network",
        data_sets=1,
        unit="runs",
    )  # fmt: skip
    fine = np.linspace(rates[0], rates[-1], 50)
    chart = Chart(
        "Growth rate of a network near zero",
        "noise T/T_c (T = η, batches of one)",
        "growth rate of ln(u + w) per unit of time",
        (
            points("SGD", rates / critical, rows),
            Series(
                "exact, E ln|1 + 2ηxy|/η",
                fine / critical,
                [collapse_exponent(products, rate) / rate for rate in fine],
                look="line",
            ),
            Series(
                "diffusion limit, 2(b2 − T a3)",
                fine / critical,
                2 * signal * (1 - fine / critical),
                look="line",
            ),
            Series("gradient descent", rates / critical, descent, look="line"),
        ),
        level=0.0,
    )
    return {
        "collapse at the critical noise": collapse.to_datatree(chart),
        "escape from the saddle": slow.to_datatree(),
    }


def regimes_claim() -> xr.DataTree:
    """The published end T* of the bimodal regimes against the roots of the mode equation."""
    weak = DataMoments.teacher(1, 2, 0.1, 1)
    strong = DataMoments.teacher(1, 2, 1, 1)
    noise_scale = 0.05
    law = DiagonalNetworkLaw(2, 1, weak, noise_scale)
    roots = stationary_points(weak, noise_scale)
    claim = Claim(
        statement=(
            "Above a third of the critical noise the law of the shallow network keeps a mode at a "
            "positive slope up to T = T*, a closed function of the data."
        ),
        source=BALANCE,
        quantities=[
            Quantity(
                "κ = 1, σ = 1: positive modes at T = 0.15 < T*",
                float(np.sum(stationary_points(strong, 0.15) > 0) > 0),
                0,
                0.5,
                ">",
            ),
            Quantity(
                "κ = 1, σ = 1: positive modes at T = 0.21 > T*",
                float(np.sum(stationary_points(strong, 0.21) > 0) > 0),
                0,
                0.5,
                "<",
            ),
            Quantity(
                f"κ = 0.1, σ = 1: positive modes at T = {noise_scale:g} < T*",
                float(len(law.density_modes())),
                0,
                0.5,
                ">",
            ),
        ],
        why=(
            "T* is where the mode equation loses its real roots; it says nothing of their sign. "
            f"For κ = 0.1, T* = {bimodal_end(weak):.4f} lies above T = {noise_scale:g} > T_c/3 = "
            f"{float(weak.b2 / weak.a3) / 3:.4f}, and both roots ({roots[0]:.3f}, "
            f"{roots[1]:.3f}) are negative: there is no mode. A bimodal regime needs "
            "10 a2 b2 > 3 a3 b1."
        ),
        origin="source",
        place="the phases of learning, and T*",
        data_sets=0,
        unit="computed",
    )
    ratios = np.round(np.geomspace(0.25, 4, 9), 2)
    scales = np.round(np.linspace(0.1, 1.3, 7), 2)
    names = np.empty((len(scales), len(ratios)), dtype=object)
    order = ["III", "IIb", "IIa", "Ib", "Ia"]
    for j, ratio in enumerate(ratios):
        moments = DataMoments.teacher(1, 2, ratio, 1)
        critical = float(moments.b2 / moments.a3)
        for i, scale in enumerate(scales):
            names[i, j] = learning_regime(moments, scale * critical)
    values = np.vectorize(order.index)(names)
    diagram = Map(
        "Regimes of learning: I collapsed, II diverging at zero, III one mode; b with a positive "
        "mode",
        "signal to noise κ/σ",
        "noise T/T_c",
        ratios,
        scales,
        values,
        unit="regime",
        words=names,
    )
    return claim.to_datatree(diagram)
