"""The stationary law of the slope of diagonal networks, at several depths and noises."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

import statsgd
from statsgd import SGD, noise
from statsgd.comparison import Claim, Quantity
from statsgd.laws import DiagonalNetworkLaw
from statsgd.laws.networks import DataMoments
from statsgd.problems import DiagonalLinearNetwork, diagonal_linear_network
from statsgd.problems.networks import slope
from statsgd.reports.charts import Chart, Series
from studies.balance.pairs import BALANCE, teacher_data
from studies.measured import (
    claimed,
    observed,
    points,
    share_of_runs,
    variance_over_runs,
)

#: Noise scales in units of the critical one, T_c = b2/a3.
SCALES = (0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 1.25)
DEPTHS = (0, 1, 3)
# How much longer a depth takes to forget its start: deep networks move slowly near zero.
_PATIENCE = {0: 0.2, 1: 1.0, 3: 8.0}


def networks(signal: float, seed: int) -> dict[int, DiagonalLinearNetwork]:
    """The same data for regression (depth 0) and networks of one and three hidden layers.

    The network of one hidden layer has three units, unequal and unbalanced at the start.
    """
    data = teacher_data(signal, seed)
    units = np.array([[0.15, 0.1], [0.1, 0.15], [0.1, 0.1]])
    return {
        0: diagonal_linear_network(*data, 1, 1, np.array([[signal]])),
        1: diagonal_linear_network(*data, 2, 3, units),
        3: diagonal_linear_network(*data, 4, 1, np.full((1, 4), signal**0.25)),
    }


def critical_noise(problem: DiagonalLinearNetwork) -> float:
    """T_c = b2/a3 of the data, for one hidden layer."""
    moments = DataMoments.of_data(problem.inputs, problem.targets)
    return float(moments.b2 / moments.a3)


def late_slopes(
    problem: DiagonalLinearNetwork,
    rates: Any,
    *,
    time: float,
    replicas: int,
    seed: int,
    progress: bool,
) -> Float[Any, "c n t"]:
    """Slopes of SGD on single examples, at eight late times of every run and learning rate.

    `time` is that of the slowest cell; the same number of steps takes the others further.
    """
    steps = round(time / min(rates))
    run = statsgd.simulate(
        problem,
        statsgd.grid(SGD(min(rates), noise.Minibatch(1)), learning_rate=rates),
        steps=steps,
        replicas=replicas,
        seed=seed,
        observe={"slope": slope},
        observe_at=[round(steps * (9 + i) / 16) for i in range(8)],
        progress=progress,
    )
    return observed(run, "slope")


def slope_claims(
    *, signal: float, time: float, replicas: int, seed: int, margin: float, progress: bool
) -> dict[str, xr.DataTree]:
    """Densities at three depths, fluctuations, and the deep network above T_c."""
    problems = networks(signal, seed)
    critical = critical_noise(problems[1])
    scales = {0: (0.5,), 1: SCALES, 3: (0.5, 1.5)}
    slopes = {
        depth: late_slopes(
            problems[depth],
            critical * np.array(scales[depth]),
            time=time * _PATIENCE[depth],
            replicas=replicas,
            seed=seed,
            progress=progress,
        )
        for depth in DEPTHS
    }
    laws = {
        (depth, scale): DiagonalNetworkLaw.from_sgd(
            problems[depth], SGD(scale * critical, noise.Minibatch(1))
        )
        for depth in DEPTHS
        for scale in scales[depth]
    }
    half = {depth: slopes[depth][scales[depth].index(0.5)] for depth in DEPTHS}
    density = Claim(
        statement=(
            "The slope of a diagonal linear network trained by SGD follows the closed stationary "
            "density of its depth, whatever the width: here 0, 1 and 3 hidden layers."
        ),
        source=BALANCE,
        quantities=[
            quantity
            for depth in DEPTHS
            for quantity in _shares(f"depth {depth}", half[depth], laws[depth, 0.5], margin)
        ],
        why=(
            f"The same {len(problems[0].inputs)} examples (κ = {signal:g}, σ = 1) at "
            f"T = η = T_c/2 = {critical / 2:.4f}, batches of one. The shallow network has three "
            "units of different size. Compared are "
            "the shares of runs below the law's median and between its quartiles."
        ),
        origin="source",
        place="the stationary density of deep diagonal networks",
        data_sets=1,
        unit="runs",
    )
    spread = [variance_over_runs(row) for row in slopes[1][:-1]]
    predicted = [float(laws[1, scale].covariance()[0, 0]) for scale in SCALES[:-1]]
    middle = SCALES.index(0.5)
    inversion = Claim(
        statement=(
            "With one hidden layer the fluctuations of the model first grow and then shrink with "
            "the noise: the variance of the slope has its maximum at about half the critical noise."
        ),
        source=BALANCE,
        quantities=[
            *(
                claimed(f"variance of f at T = {scale:g} T_c", row, "=", law, 2 * margin)
                for scale, row, law in zip(SCALES[:-1], spread, predicted, strict=True)
            ),
            claimed("variance at T_c/2 over that at T_c/10", spread[middle], ">", spread[0]),
            claimed("variance at 3T_c/4 against that at T_c/2", spread[-1], "<", spread[middle]),
        ],
        why=(
            "Both ends are quiet: at small T little noise enters, near T_c the network spends its "
            "time close to zero, where its gradient vanishes. In regression, depth 0, the variance "
            "only grows."
        ),
        origin="source",
        place="fluctuation inversion, with one hidden layer",
        data_sets=1,
        unit="runs",
    )
    deep = slopes[3][1]
    shallow = slopes[1][-1]
    (low,) = laws[3, 1.5].quantile(0.05)
    above = share_of_runs(deep > low)
    gone = share_of_runs(shallow[:, -1] > low)
    depths = Claim(
        statement=(
            "Networks of more than one hidden layer have no critical noise: their law stays proper "
            "where a shallow network has collapsed."
        ),
        source=f"derived, from {BALANCE}",
        quantities=[
            *_shares("depth 3, T = 1.5 T_c", deep, laws[3, 1.5], margin),
            claimed(
                f"depth 3, T = 1.5 T_c: share of runs with f > {low:.3g}", above, "=", 0.95, margin
            ),
            claimed("depth 1, T = 1.25 T_c: the same share", gone, "<", 0.05),
        ],
        why=(
            "With P factors the density vanishes at 0 like exp(−const f^(2/P−1)) for P > 2: the "
            "gradient dies out faster than noise can take the network to zero. T_c = b2/a3 belongs "
            "to P = 2 alone."
        ),
        origin="derived",
        data_sets=1,
        unit="runs",
    )
    fine = np.linspace(0.02, 0.98, 60)
    curve = [
        float(DiagonalNetworkLaw(2, 1, laws[1, 0.5].moments, t * critical).covariance()[0, 0])
        for t in fine
    ]
    charts = [_histogram(depth, half[depth], laws[depth, 0.5]) for depth in DEPTHS]
    fluctuations = Chart(
        "Fluctuations of the shallow network against noise",
        "noise T/T_c",
        "variance of the slope f",
        (
            points("SGD", SCALES[:-1], spread, group="variance"),
            Series("law", fine, curve, look="line", group="variance"),
        ),
    )
    return {
        "stationary density": density.to_datatree(*charts),
        "fluctuation inversion": inversion.to_datatree(fluctuations),
        "deep networks above T_c": depths.to_datatree(
            _histogram(3, deep, laws[3, 1.5], "at 1.5 T_c")
        ),
    }


def _shares(
    name: str, slopes: Float[Any, "n t"], law: DiagonalNetworkLaw, margin: float
) -> list[Quantity]:
    """Shares of runs below the law's median and between its quartiles: halves, if it is right."""
    first, median, third = law.quantile([0.25, 0.5, 0.75])[:, 0]
    below = share_of_runs(slopes < median)
    between = share_of_runs((slopes > first) & (slopes < third))
    return [
        claimed(f"{name}: share {where}", row, "=", 0.5, margin)
        for where, row in (
            ("below the law's median", below),
            ("between the law's quartiles", between),
        )
    ]


def _histogram(
    depth: int, slopes: Float[Any, "n t"], law: DiagonalNetworkLaw, where: str = "at T_c/2"
) -> Chart:
    low, high = law.quantile([0.004, 0.985])[:, 0]
    low = min(low, 0.0) if depth == 0 else 0.0
    edges = np.linspace(low, high, 33)
    counts = np.stack([np.histogram(column, edges)[0] for column in slopes.T])
    width = edges[1] - edges[0]
    middle = (edges[1:] + edges[:-1]) / 2
    inside = np.linspace(edges[0] + width / 8, edges[-1], 200)
    return Chart(
        f"Slope of the network of depth {depth} {where}",
        "slope f",
        "density",
        (
            Series("SGD", middle, counts.sum(0) / (slopes.size * width), look="steps"),
            Series("law", inside, np.exp(law.log_density(inside[:, None])), look="line"),
        ),
    )
