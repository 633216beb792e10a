"""Claims on escape from a well: with momentum, and with noise shaped by the curvature."""

import jax
import numpy as np
import xarray as xr

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.laws import Gibbs
from statsgd.laws.gibbs import (
    PiecewiseDiffusion,
    curvature_noise_escape_time,
    gibbs_temperature,
    kramers_escape_time,
    langer_escape_time,
    mean_first_passage_1d,
    relaxation_gap_1d,
)
from statsgd.measures import mean_over_clusters, trajectories
from statsgd.problems import landscapes
from statsgd.reports import Chart, Series
from studies.batch_size.wells import DAI

LANGER = "Langer (1969); Dai, Zhu (2021), arXiv:2112.00987"
XIE = "Xie, Sato, Sugiyama (2021), arXiv:2002.03495"
_RATE, _BETA, _VARIANCE = 0.01, 0.9, 2.0


def momentum_claims(
    *, replicas: int, margin: float, seed: int, progress: bool
) -> dict[str, xr.DataTree]:
    """Heavy-ball SGD in the symmetric quartic wells, from the left one."""
    problem = landscapes.quartic_wells()
    noise = statsgd.noise.Isotropic(_VARIANCE)
    sgd = statsgd.SGD(_RATE, noise, _BETA)
    looks = [111, 222, 333, 444, 666, 888, 1332, 1776, 2664]
    tree = statsgd.simulate(
        problem, sgd, steps=looks[-1], replicas=replicas, seed=seed, start=np.array([-1.0]),
        keep=looks, progress=progress, devices=jax.devices(),
    )  # fmt: skip
    found = trajectories(tree)
    x, m = found.params[..., 0], np.asarray(found.momentum_buffer)[..., 0]
    crossed = mean_over_clusters((x > 0).astype(float))
    temperature = float(gibbs_temperature(_RATE, _VARIANCE, _BETA))
    place, top = np.array([-1.0]), np.array([0.0])
    langer = langer_escape_time(problem, place, top, temperature, _RATE, _BETA) / _RATE**0.5
    slowed = (1 - _BETA) / _RATE * kramers_escape_time(problem, place, top, temperature)
    gap_langer = 2 / langer
    gap = float(relaxation_gap_1d(problem, temperature)) * _RATE / (1 - _BETA)
    steps = np.asarray(looks)

    def reached(rate: float) -> np.ndarray:
        return 0.5 * (1 - np.exp(-rate * steps))

    laws = {"Langer": reached(gap_langer), "SGD at η/(1−β)": reached(gap)}
    judged = [looks.index(444), looks.index(888)]
    chart = Chart(
        "Share that crossed, with momentum", "steps", "share right of the saddle",
        (Series("SGD with momentum", steps, crossed.value, crossed.standard_error),
         *(Series(name, steps, values, look="line") for name, values in laws.items())),
        level=0.5,
    )  # fmt: skip

    def quantities(name: str) -> list[Quantity]:
        return [
            Quantity(f"share right of the saddle after {looks[i]} steps", float(crossed.value[i]),
                     float(crossed.standard_error[i]), float(laws[name][i]), margin=margin)
            for i in judged
        ]  # fmt: skip

    law = Gibbs(problem, temperature)
    square = mean_over_clusters(x[:, -1] ** 2)
    # ⟨θ·∇L⟩ = τ under the law, and at stationarity it is (1+β)/2 E z² (Yaida), whatever the loss:
    # finite steps multiply E z² by 2/(1+β), which is divided out.
    speed = mean_over_clusters(m[:, -1] ** 2 * _RATE * (1 + _BETA) / 2)
    stationary = Claim(
        "With momentum the long-run law is that of SGD at the effective learning rate η/(1−β): "
        "exp(−(L + z²/2)/τ), z = −√η m, τ = ηc/(2(1−β))",
        DAI,
        [
            Quantity("share right of the saddle", float(crossed.value[-1]),
                     float(crossed.standard_error[-1]), 0.5, margin=margin),
            Quantity("E x²", float(square.value), float(square.standard_error),
                     float(law.covariance()[0, 0] + law.mean()[0] ** 2), margin=margin),
            Quantity("E z² (1+β)/2", float(speed.value), float(speed.standard_error), temperature,
                     margin=margin),
        ],
        f"After {looks[-1]} steps, {looks[-1] * gap_langer:.1f} relaxation times. At finite "
        f"steps momentum has 2/(1+β) = {2 / (1 + _BETA):.3f} times the E z² of the law, which is "
        "divided out.",
        origin="source",
        place="momentum SGD as an SDE, and its long-run law",
        data_sets=0,
        unit="runs",
    )  # fmt: skip
    overdamped = Claim(
        "With momentum SGD moves between wells as SGD without does at the effective learning rate "
        "η/(1−β)",
        f"derived from {DAI}",
        quantities("SGD at η/(1−β)"),
        f"The temperature is the same and the motion over the barrier is not: the friction "
        f"(1−β)/√η = {(1 - _BETA) / _RATE**0.5:.2f} is not large against √|h_s| = 1. Kramers' "
        f"escape time at the effective rate is {slowed:.0f} steps and Langer's {langer:.0f}.",
        origin="extension",
        place="the effective learning rate, extended to motion between wells",
        data_sets=0,
        unit="runs",
    )  # fmt: skip
    langers = Claim(
        "The escape time of SGD with momentum is Langer's, (2π/(λ₊√η))√(|h_s|/h_a) exp(ΔL/τ) steps",
        LANGER,
        quantities("Langer"),
        "The share right of the saddle is ½(1 − exp(−2k/T)) with both wells alike; T is "
        f"{langer:.0f} steps.",
        origin="source",
        place="the escape rate with friction",
        data_sets=0,
        unit="runs",
    )
    return {
        "momentum, long run": stationary.to_datatree(),
        "momentum, effective learning rate": overdamped.to_datatree(chart),
        "momentum, Langer": langers.to_datatree(),
    }


def curvature_claim(margin: float) -> xr.DataTree:
    """Exponential preference under noise proportional to the Hessian, by exact integrals."""
    problem = landscapes.tilted_quartic()
    place, top = -2.9035340278, 0.1567312568
    sharp, unstable, inflection, part = 34.5830591, 15.8526119, -1.6329931619, 0.4396628
    scales = np.array([0.5, 0.4, 0.3, 0.25, 0.2])

    def passage(scale: float, factor: float = 1.0) -> float:
        """Mean steps over time scale to the saddle, D = q̂|H| at either end, H times `factor`."""
        diffusion = PiecewiseDiffusion(
            scale * sharp * factor, scale * unstable * factor, inflection
        )
        return mean_first_passage_1d(problem, diffusion, place, top, breaks=(inflection,))

    exact = np.array([passage(scale) for scale in scales])
    published = np.array([
        0.5 * curvature_noise_escape_time(problem, np.array([place]), np.array([top]), scale,
                                          switch=part)
        for scale in scales
    ])  # fmt: skip
    slope = np.polyfit(1 / scales, np.log(exact), 1)[0]
    predicted = np.polyfit(1 / scales, np.log(published), 1)[0]
    factors = np.array([1.0, 1.5, 2.0])
    curved = np.array([passage(0.3, factor) for factor in factors])
    white = np.array([mean_first_passage_1d(problem, 6.0, place, top) for _ in factors]) / factors
    inverse = np.polyfit(1 / factors, np.log(curved), 1)[0]
    claim = Claim(
        "Under noise proportional to the Hessian the escape time is exponential in the batch size "
        "and in the inverse curvature of the well",
        XIE,
        [
            Quantity("slope of log time on 1/q̂ = 2S/(ηκ)", float(slope), 0.0, float(predicted),
                     margin=margin),
            Quantity("slope of log time on 1/curvature, q̂ = 0.3", float(inverse), 0.0,
                     float(predicted / 0.3), margin=margin),
        ],
        "Exact mean passage times to the saddle, with D constant on either side of the inflection: "
        "taken literally, D = q̂|H| vanishes there and the diffusion cannot pass. The barrier stays "
        "as it is while the curvature that makes the noise is scaled.",
        origin="source",
        place="abstract: exponential preference for flat minima",
        data_sets=0,
        unit="computed",
    )  # fmt: skip
    return claim.to_datatree(
        Chart("Escape under curvature noise", "1/q̂, in proportion to the batch size",
              "mean time ηk to the saddle",
              (Series("exact", 1 / scales, exact),
               Series("published", 1 / scales, published, look="line")), log="y"),
        Chart("Escape from sharper wells of one height", "factor of the curvature",
              "mean time, relative to factor 1",
              (Series("curvature noise", factors, curved / curved[0]),
               Series("white noise", factors, white / white[0], look="line")), log="y"),
    )  # fmt: skip
