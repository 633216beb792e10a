"""How fast SGD slides along a ring of minima, and the learning rate at which it is thrown out."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.laws import ValleyLaw
from statsgd.laws.valleys import max_stable_learning_rate
from statsgd.measures import first_passage, restricted_mean
from statsgd.noise import Anisotropic
from statsgd.problems import Landscape
from statsgd.reports import Chart, Series
from studies.valleys.ring import (
    H0,
    SOURCE,
    A,
    RingLoss,
    RingSettings,
    around,
    constant_noise,
    curvature,
    start,
)

BOUND_STEPS = 2000


class Before(eqx.Module):
    """Whether x is below a place on the ring."""

    place: Float[Any, ""]

    def __call__(self, params: Float[Any, " 2"]) -> Bool[Any, ""]:
        """At `params`."""
        return params[0] < self.place


def speed(settings: RingSettings) -> xr.DataTree:
    """The claim about convergence time."""
    s, ratio = settings, 1600.0
    x0, x1 = 0.5, 2.0
    strengths = s.diffusion * np.array([0.25, 0.5, 1.0])
    h = float(curvature(x0)) * (1 - s.learning_rate * float(curvature(x0)) / 2)
    across = np.random.default_rng(s.seed).normal(size=s.replicas)
    measured, predicted = [], []
    for strength in strengths:
        law = ValleyLaw.ring(H0, A, strength, ratio, learning_rate=s.learning_rate)
        steps = law.slide_time(x0, x1) / s.learning_rate
        exits = first_passage(
            Landscape(RingLoss(np.float64(0.0)), start()),
            statsgd.SGD(s.learning_rate, constant_noise(strength, ratio, s.learning_rate)),
            Before(np.float64(x1)),
            steps=int(3 * steps),
            replicas=s.replicas,
            seed=s.seed,
            start=np.stack([np.full(s.replicas, x0), across * (strength / h) ** 0.5], axis=1),
        )
        measured.append(restricted_mean(exits, float(exits.time.max())))
        predicted.append(steps)
    claim = Claim(
        "The stronger the noise, the sooner SGD reaches the flat side: the time falls as 1/D_y",
        SOURCE,
        [
            Quantity(
                f"steps from x = {x0:g} to {x1:g}, D_y = {strength:g}",
                one.value,
                one.standard_error,
                slide,
                margin=s.margin,
            )
            for strength, one, slide in zip(strengths, measured, predicted, strict=True)
        ],
        why=(
            "Mean first passage (Kaplan–Meier) against the drift D_y (ln F)′/(1 − ηh/2), κ = "
            f"{ratio:g}. Four times the noise takes {measured[0].value / measured[-1].value:.2f} "
            "times fewer steps."
        ),
        origin="source",
        place="the drift to flat stretches",
        data_sets=0,
        unit="runs",
    )
    chart = Chart(
        "Steps to slide from the sharp to the flat side",
        "D_y (loss/time)",
        "steps",
        (
            Series(
                "SGD",
                strengths,
                [one.value for one in measured],
                [one.standard_error for one in measured],
                group="all",
            ),
            Series("drift", strengths, predicted, look="line", group="all"),
        ),
        log="xy",
    )
    return claim.to_datatree(chart)


def bound_of_noise(settings: RingSettings) -> Mapping[str, xr.DataTree]:
    """The claims about an upper bound."""
    s, ratio, replicas = settings, 4.0, min(settings.replicas, 256)
    sharp, flat = (max_stable_learning_rate(float(curvature(x))).smallest for x in (0.0, np.pi))
    factors = np.append([0.8, 0.95, 1.1, 1.3, 1.6, 2.0, 2.4], 1.2 * flat / sharp)
    variance = 2 * s.diffusion / s.learning_rate * 1e-2
    sgd = statsgd.SGD(0.1, Anisotropic(np.diag([variance / ratio, variance])))
    tree = statsgd.simulate(
        Landscape(RingLoss(np.float64(0.0)), start()),
        statsgd.grid(sgd, learning_rate=sharp * factors),
        steps=BOUND_STEPS,
        replicas=replicas,
        seed=s.seed,
        start=around(replicas, s.seed),
        allow_unstable=True,
        progress=False,
    )
    share = tree["run"].to_dataset()["diverged"].values.mean(axis=1)
    smoothed = (share * replicas + 1) / (replicas + 2)  # never zero
    error = np.sqrt(smoothed * (1 - smoothed) / replicas)
    chart = Chart(
        f"Runs that diverge within {BOUND_STEPS} steps on the ring",
        "learning rate over 2/h of the sharpest place",
        "share of runs",
        (Series("SGD", factors, share, error),),
    )
    shares = ", ".join(f"{v:.2f} at {f:.2f}" for f, v in zip(factors, share, strict=True))

    def diverged(index: int, level: float, relation: str) -> Quantity:
        name = f"share diverged, η = {factors[index]:.2f} · 2/h_max"
        return Quantity(name, share[index], error[index], level, relation)

    exists = Claim(
        "There is an upper bound of the noise, by its learning rate, beyond which training does "
        "not converge",
        f"{SOURCE}, for the existence of a bound",
        [diverged(0, 0.05, "<"), diverged(-1, 0.5, ">")],
        why=(
            f"2/h is {sharp:.3f} at the sharpest place and {flat:.3f}, {flat / sharp:.2f} times as "
            f"much, at the flattest. Share diverged, by η over the first: {shares}."
        ),
        origin="source",
        place="the upper bound of the noise",
        data_sets=0,
        unit="runs",
    )
    sharpest = Claim(
        "The bound is the edge of stability 2/h of the sharpest stretch of the valley",
        "derived, as a sufficient condition",
        [diverged(1, 0.05, "<"), diverged(3, 0.5, ">")],
        why=(
            f"Share diverged, by η over 2/h_max: {shares}. Below that bound none diverge, but it "
            "is not necessary: where the sharp side throws a walker up its wall, the force along "
            "the valley, −½h′y², throws it to the flat side, where it comes down again."
        ),
        origin="derived",
        data_sets=0,
        unit="runs",
    )
    return {
        "ring, upper bound": exists.to_datatree(chart),
        "ring, sharpest stretch": sharpest.to_datatree(),
    }
