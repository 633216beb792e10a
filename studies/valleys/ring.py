"""A ring of minima whose curvature varies: where SGD dwells.

L(x, y) = b(1 − cos x) + ½h(x)y² with h = h₀e^(a cos x): sharp at x = 0, flat at x = π.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.estimate import Estimate
from statsgd.laws import ValleyLaw
from statsgd.measures import jackknife, mean_over_clusters, trajectories
from statsgd.noise import Anisotropic
from statsgd.problems import Landscape
from statsgd.problems.landscapes import like
from statsgd.reports import Chart, Series

SOURCE = "Yang, Tang, Tu (2023), arXiv:2206.01246"
H0, A = 2.0, 0.5
RATIOS = (1.0, 4.0, 10.0)  # κ
LOOKS, BURN_IN, SPACING = 40, 5.0, 0.25  # in relaxation times along the valley, κ/(ηD_y) steps


@dataclasses.dataclass(frozen=True)
class RingSettings:
    """Runs on the ring: D_y across and D_y/κ along."""

    learning_rate: float
    diffusion: float
    replicas: int
    margin: float
    seed: int


class RingLoss(eqx.Module):
    """b(1 − cos x) + ½h₀e^(a cos x)y²."""

    height: Float[Any, ""]

    def __call__(self, params: Float[Any, " 2"]) -> Float[Any, ""]:
        """The loss at `params`."""
        x, y = params
        return like(params, self.height) * (1 - jnp.cos(x)) + curvature(x) * y**2 / 2


def curvature(x: Any) -> Any:
    """h(x)."""
    return H0 * jnp.exp(A * jnp.cos(x))


def constant_noise(diffusion: float, anisotropy: float, learning_rate: float) -> Anisotropic:
    """D_y = ηC_yy/2 = `diffusion`, D_x = D_y/κ."""
    variance = 2 * diffusion / learning_rate
    return Anisotropic(np.diag([variance / anisotropy, variance]))


class Ring:
    """Stationary runs on the ring, from everywhere on it."""

    def __init__(self, settings: RingSettings):
        self.settings = settings

    def positions(
        self, noise: Any, anisotropy: float, height: float = 0.0
    ) -> Float[Any, "replica look 2"]:
        """Parameters at looks past burn-in."""
        s = self.settings
        relaxation = anisotropy / (s.learning_rate * s.diffusion)
        first, gap = int(BURN_IN * relaxation), max(int(SPACING * relaxation), 1)
        looks = [first + gap * i for i in range(LOOKS)]
        tree = statsgd.simulate(
            Landscape(RingLoss(np.float64(height)), start()),
            statsgd.SGD(s.learning_rate, noise),
            steps=looks[-1],
            replicas=s.replicas,
            seed=s.seed,
            start=around(s.replicas, s.seed),
            keep=looks,
            progress=False,
        )
        return trajectories(tree).params

    def preference(self, anisotropy: float, height: float = 0.0) -> tuple[Estimate, Any]:
        """E[−cos x], which is positive on the flat side, and all x."""
        s = self.settings
        noise = constant_noise(s.diffusion, anisotropy, s.learning_rate)
        x = self.positions(noise, anisotropy, height)[..., 0]
        return mean_over_clusters(-np.cos(x).mean(axis=1)), x

    def predicted(self, anisotropy: float, height: float = 0.0) -> float:
        """E[−cos x] by the law, with the second order of averaging and the finite step."""
        d, eta = self.settings.diffusion, self.settings.learning_rate

        def flat_side(**options):
            law = ValleyLaw.ring(H0, A, d, anisotropy, height, **options)
            return law.expectation_along(lambda x: -np.cos(x))

        return _with_shift(flat_side, eta)


def _with_shift(reading: Callable[..., float], learning_rate: float) -> float:
    """What a law says to second order in D_y, shifted by what the finite step adds to first."""
    return reading(second_order=True) + reading(learning_rate=learning_rate) - reading()


def parts(settings: RingSettings) -> Mapping[str, xr.DataTree]:
    """The claims about the ring."""
    ring = Ring(settings)
    found = {ratio: ring.preference(ratio) for ratio in RATIOS}
    return {
        "ring, flatness": _flatness(ring, found),
        "ring, effective loss": _effective_loss(ring, found),
        "ring, floor": _floor(ring),
    }


def _flatness(ring: Ring, found: Mapping[float, tuple[Estimate, Any]]) -> xr.DataTree:
    s, laws = ring.settings, {ratio: ring.predicted(ratio) for ratio in RATIOS}
    claim = Claim(
        "In a valley of equal minima SGD dwells where it is flat, with density F^κ for noise "
        "anisotropy κ and flatness F",
        SOURCE,
        [
            Quantity(
                f"E[−cos x] − law, κ = {ratio:g}",
                float(one.value) - laws[ratio],
                float(one.standard_error),
                0.0,
                margin=s.margin,
            )
            for ratio, (one, _) in found.items()
        ],
        why=(
            f"η = {s.learning_rate:g}, D_y = {s.diffusion:g}. The prediction counts the finite "
            "step and the second order of averaging: "
            + ", ".join(f"{law:.3f} at κ = {ratio:g}" for ratio, law in laws.items())
            + " (to leading order "
            + ", ".join(f"{_leading(s, ratio):.3f}" for ratio in RATIOS)
            + "). κ = 1 is Boltzmann, where entropy alone prefers the flat side."
        ),
        origin="source",
        place="the density along a degenerate valley",
        data_sets=0,
        unit="runs",
    )
    bins = np.linspace(-np.pi, np.pi, 25)
    middle, fine = (bins[1:] + bins[:-1]) / 2, np.linspace(-np.pi, np.pi, 201)
    series = []
    for ratio, (_, x) in found.items():
        wrapped = (x + np.pi) % (2 * np.pi) - np.pi
        counts = np.array([np.histogram(row, bins)[0] for row in wrapped])
        density = mean_over_clusters(counts / (x.shape[1] * (bins[1] - bins[0])))
        law = ValleyLaw.ring(H0, A, s.diffusion, ratio, learning_rate=s.learning_rate)
        name = f"κ = {ratio:g}"
        series += [
            Series(f"SGD, {name}", middle, density.value, density.standard_error, group=name),
            Series(f"law, {name}", fine, np.exp(law.log_marginal(fine)), look="line", group=name),
        ]
    chart = Chart(
        "Where SGD dwells on the ring", "x (sharp at 0, flat at ±π)", "density", tuple(series)
    )
    return claim.to_datatree(chart)


def _effective_loss(ring: Ring, found: Mapping[float, tuple[Estimate, Any]]) -> xr.DataTree:
    s = ring.settings

    def drop(log_odds: Any) -> Any:
        """L_SGD of the sharp quarter of the ring above that of the flat one."""
        return s.diffusion * (boltzmann - log_odds)

    def by_law(ratio: float) -> float:
        def log_odds(**options):
            law = ValleyLaw.ring(H0, A, s.diffusion, ratio, **options)
            sharp = law.expectation_along(lambda x: np.cos(x) > 0.5**0.5)
            flat = law.expectation_along(lambda x: np.cos(x) < -(0.5**0.5))
            return float(np.log(sharp / flat))

        return _with_shift(log_odds, s.learning_rate)

    boltzmann = by_law(1.0)  # entropy across the valley alone
    rows, strengths = [], np.array(RATIOS)
    for ratio in RATIOS:
        cosine = np.cos(found[ratio][1])
        quarters = np.stack([cosine > 0.5**0.5, cosine < -(0.5**0.5)], axis=-1).mean(axis=1)
        rows.append(jackknife(lambda p: drop(np.log(p[0] / p[1])), quarters))
    predicted = [drop(by_law(ratio)) for ratio in RATIOS]
    values, errors = [float(r.value) for r in rows], [float(r.standard_error) for r in rows]
    claim = Claim(
        "Anisotropic noise adds an effective loss that falls with flatness, of strength D_y(κ − 1)",
        SOURCE,
        [
            Quantity(
                f"L_SGD, sharp less flat quarter, κ = {ratio:g}",
                values[i],
                errors[i],
                predicted[i],
                margin=2 * s.margin,
            )
            for i, ratio in enumerate(RATIOS)
        ],
        why=(
            "−D_y ln of the density along the valley, less what entropy across it explains "
            "(κ = 1), over the sharp and the flat quarter of the ring. The prediction counts the "
            f"step η = {s.learning_rate:g} and the second order of averaging."
        ),
        origin="source",
        place="the effective loss of anisotropic noise",
        data_sets=0,
        unit="runs",
    )
    chart = Chart(
        "Effective loss of the sharp side above the flat side",
        "noise anisotropy κ − 1",
        "L_SGD, sharp less flat (loss)",
        (
            Series("SGD", strengths - 1, values, errors, group="all"),
            Series("law", strengths - 1, predicted, look="line", group="all"),
        ),
    )
    return claim.to_datatree(chart)


def _leading(settings: RingSettings, ratio: float) -> float:
    return ValleyLaw.ring(H0, A, settings.diffusion, ratio).expectation_along(lambda x: -np.cos(x))


def _floor(ring: Ring) -> xr.DataTree:
    s, ratio = ring.settings, 4.0
    balance = s.diffusion * A / 2
    heights = balance * np.array([0.5, 1.0, 2.0])
    found = [ring.preference(ratio, height)[0] for height in heights]
    predicted = [ring.predicted(ratio, height) for height in heights]
    claim = Claim(
        "Noise adds a loss that falls with flatness: SGD leaves the lowest minima for flatter ones "
        "where D_y is above 2b/a, whatever κ",
        f"{SOURCE}; the threshold is derived",
        [
            Quantity(
                "E[−cos x], D_y twice the threshold",
                float(found[0].value),
                float(found[0].standard_error),
                0.0,
                ">",
            ),
            Quantity(
                "E[−cos x], D_y half the threshold",
                float(found[2].value),
                float(found[2].standard_error),
                0.0,
                "<",
            ),
            *[
                Quantity(
                    f"E[−cos x] − law, b = {height:g}",
                    float(one.value) - law,
                    float(one.standard_error),
                    0.0,
                    margin=s.margin,
                )
                for height, one, law in zip(heights, found, predicted, strict=True)
            ],
        ],
        why=(
            f"The floor rises by 2b from the sharp side x = 0 to the flat side; κ = {ratio:g}, "
            f"D_y = {s.diffusion:g}. At the threshold the law leaves "
            f"{predicted[1]:.3f}, from the finite step, which favours the flat side."
        ),
        origin="extension",
        place="the effective loss; the threshold is derived",
        data_sets=0,
        unit="runs",
    )
    sweep = np.linspace(0, 2.5 * balance, 26)
    chart = Chart(
        "Floor against flatness",
        "height of the floor b over its balance aD_y/2",
        "E[−cos x]",
        (
            Series(
                "SGD",
                heights / balance,
                [float(one.value) for one in found],
                [float(one.standard_error) for one in found],
                group="all",
            ),
            Series(
                "law",
                sweep / balance,
                [ring.predicted(ratio, b) for b in sweep],
                look="line",
                group="all",
            ),
        ),
        level=0.0,
    )
    return claim.to_datatree(chart)


def start() -> Any:
    """The start of the problem; runs are given their own."""
    return statsgd.problems.landscape(RingLoss(np.float64(0.0)), np.zeros(2)).start


def around(replicas: int, seed: int) -> Float[Any, "replica 2"]:
    """Starts on the floor, uniform in x."""
    x = np.random.default_rng(seed).uniform(-np.pi, np.pi, replicas)
    return np.stack([x, np.zeros(replicas)], axis=1)
