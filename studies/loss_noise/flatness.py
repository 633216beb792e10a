"""Where on a zero-loss set the stationary law puts its mass: noise that scales with the loss
against constant noise."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

import statsgd
from statsgd import SGD, noise
from statsgd.comparison import Claim, Quantity
from statsgd.estimate import Estimate
from statsgd.laws import ZeroLossCircleLaw
from statsgd.laws.loss_noise import flatness_weight
from statsgd.measures import jackknife, mean_over_runs
from statsgd.problems import landscape
from statsgd.reports.charts import Chart, Series
from studies.loss_noise.collapse import TWO
from studies.measured import claimed, observed

#: Three directions normal to the circle; curvature e^(cos ϕ) along it; noise ratio and saturation.
CIRCLE = (3, 1.0, 8.0, 1.0)


def circle_loss(params: Float[Any, "4"]) -> Float[Any, ""]:
    """½ e^(cos ϕ)|y|², θ = (ϕ, y): zero on a circle whose sharpness varies."""
    return 0.5 * jnp.exp(jnp.cos(params[0])) * jnp.sum(params[1:] ** 2)


def _cosine_and_distance(params: Float[Any, "4"]) -> Float[Any, " 2"]:
    return jnp.stack([jnp.cos(params[0]), jnp.sqrt(jnp.sum(params[1:] ** 2))])


def flatness_claims(
    *, replicas: int, time: float, tube: float, seed: int, margin: float, progress: bool
) -> dict[str, xr.DataTree]:
    """Flat and sharp parts of a circle of minima under both kinds of noise."""
    eta, epsilon = 0.005, CIRCLE[2]
    law = ZeroLossCircleLaw(*CIRCLE)
    temperature = 0.5
    rng = np.random.default_rng(seed)
    angles = rng.uniform(-np.pi, np.pi, (replicas, 1))
    start = np.concatenate([angles, np.full((replicas, 3), 0.7)], axis=1)
    steps = round(time / eta)
    seen = {}
    for name, kind in (
        ("loss-scaled", noise.LossScaled(epsilon / eta, saturation=CIRCLE[3])),
        ("constant", noise.Isotropic(2 * temperature / eta)),
    ):
        run = statsgd.simulate(
            landscape(circle_loss, start[0]),
            SGD(eta, kind),
            steps=steps,
            replicas=replicas,
            seed=seed,
            start=start,
            observe={"cosine_and_distance": _cosine_and_distance},
            observe_at=[round(steps * (49 + i) / 144) for i in range(96)],
            progress=progress,
        )
        seen[name] = observed(run, "cosine_and_distance")
    marginal = {name: mean_over_runs(values[..., 0]) for name, values in seen.items()}
    inside = {
        name: mean_where(values[..., 1] < tube, values[..., 0]) for name, values in seen.items()
    }
    expected = mean_cosine_within(law, tube)
    narrow = law.mean_cosine("distance")
    near_set = Claim(
        statement=(
            "Close to the zero-loss set SGD with loss-scaled noise prefers flat minima, where "
            "constant noise has no preference."
        ),
        source=f"{TWO}, for a different sense of flat; functional derived",
        quantities=[
            claimed(
                f"loss-scaled noise: E cos ϕ within |y| < {tube:g}",
                inside["loss-scaled"],
                "=",
                expected,
                2 * margin,
            ),
            claimed("loss-scaled noise against no preference", inside["loss-scaled"], "<", -0.25),
            claimed(
                f"constant noise: E cos ϕ within |y| < {tube:g}",
                inside["constant"],
                "=",
                0.0,
                2 * margin,
            ),
            claimed(
                "loss-scaled against constant noise", inside["loss-scaled"], "<", inside["constant"]
            ),
        ],
        why=(
            "A circle of minima, sharp at ϕ = 0 (curvature e), flat at ϕ = π (1/e). In a thin tube "
            f"L^(−α) weighs a point by A_α(H), which gives E cos ϕ → {narrow:.3f}, while the Gibbs "
            "density is the same all along the tube. The tube here is not infinitely thin, and the "
            f"predictions are for its width: {expected:.3f} and "
            f"{gibbs_cosine_within(temperature, tube):.3f}."
        ),
        origin="reading",
        place="flat minima in a sense of flat of its own, one of three readings",
        data_sets=0,
        unit="runs",
    )
    whole = law.mean_cosine("loss")
    everywhere = Claim(
        statement=(
            "Over the whole stationary law the preference of loss-scaled noise for flat minima "
            "differs from that of constant noise."
        ),
        source=f"one reading of {TWO}",
        quantities=[
            Quantity(
                "E cos ϕ, loss-scaled over constant noise beyond ±10 %",
                abs(marginal["loss-scaled"].value / marginal["constant"].value - 1),
                float(
                    np.hypot(
                        marginal["loss-scaled"].standard_error, marginal["constant"].standard_error
                    )
                    / abs(marginal["constant"].value)
                ),
                0.1,
                ">",
            ),
        ],
        why=(
            f"Both have E cos ϕ = {whole:.4f}: measured {marginal['loss-scaled'].value:.4f} ± "
            f"{marginal['loss-scaled'].standard_error:.4f} and {marginal['constant'].value:.4f} ± "
            f"{marginal['constant'].standard_error:.4f}. Whatever the law is as a function of the "
            "loss, it weighs a point of the set by det(H)^(−1/2); only at fixed distance do they "
            "differ."
        ),
        origin="reading",
        place="flat minima in a sense of flat of its own, one of three readings",
        data_sets=0,
        unit="runs",
    )
    edges = np.linspace(-1, 1, 21)
    middle = (edges[1:] + edges[:-1]) / 2
    series = []
    for name, values in seen.items():
        near = values[..., 1] < tube
        counts = np.histogram(values[..., 0][near], edges)[0]
        series.append(Series(f"SGD, {name} noise", middle, counts / counts.sum(), look="steps"))
    kappa = law.concentration("distance")
    phi = np.linspace(0, np.pi, 20001)
    for name, weight in (("A_α(H)", np.exp(-kappa * np.cos(phi))), ("uniform", np.ones(len(phi)))):
        share = np.histogram(np.cos(phi), edges, weights=weight)[0]
        series.append(Series(f"thin tube, {name}", middle, share / share.sum(), look="line"))
    chart = Chart(
        f"Where on the circle runs are that are within {tube:g} of it",
        "cos ϕ (−1 flat, 1 sharp)",
        "share of runs",
        tuple(series),
    )
    return {
        "flatness near the set": near_set.to_datatree(chart),
        "flatness of the whole law": everywhere.to_datatree(_weights_chart()),
    }


def mean_where(chosen: Bool[Any, "n t"], values: Float[Any, "n t"]) -> Estimate:
    """Mean of what is chosen of all runs and times."""
    sums = np.stack([np.sum(values * chosen, axis=1), np.sum(chosen, axis=1)], axis=1)
    return jackknife(lambda mean: mean[0] / mean[1], sums)


def mean_cosine_within(law: ZeroLossCircleLaw, tube: float) -> float:
    """E[cos ϕ | |y| < δ]: the von Mises marginal times P(L < h(ϕ)δ²/2)."""
    phi = np.linspace(0, np.pi, 4001)
    weight = np.exp(-law.concentration("loss") * np.cos(phi))
    weight *= law.loss_law.cdf(0.5 * law.curvature(phi) * tube**2)
    return float(np.sum(weight * np.cos(phi)) / np.sum(weight))


def gibbs_cosine_within(temperature: float, tube: float) -> float:
    """The same for exp(−L/τ): h^(−3/2) times P(χ²₃ < hδ²/τ)."""
    from scipy.stats import chi2

    phi = np.linspace(0, np.pi, 4001)
    curvature = np.exp(np.cos(phi))
    weight = curvature**-1.5 * chi2.cdf(curvature * tube**2 / temperature, 3)
    return float(np.sum(weight * np.cos(phi)) / np.sum(weight))


def _weights_chart() -> Chart:
    """A_α of Hessians of one determinant: it runs from no preference to the determinant."""
    alphas = np.linspace(0.02, 1.5, 40)
    spectra = ((4.0, 4.0, 4.0), (1.0, 8.0, 8.0), (0.25, 16.0, 16.0))
    return Chart(
        "Weight of minima of equal determinant in a thin tube",
        "exponent α = 1 + 2/ε (constant noise: 0; det^(−1/2): 3/2)",
        "A_α(H)·det(H)^(α/3)",
        tuple(
            Series(
                "H = ({:g}, {:g}, {:g})".format(*spectrum),
                alphas,
                [
                    flatness_weight(np.array(spectrum), alpha) * np.prod(spectrum) ** (alpha / 3)
                    for alpha in alphas
                ],
                look="line",
            )
            for spectrum in spectra
        ),
    )
