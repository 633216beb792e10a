"""How fast SGD slides along a ring of minima, and the learning rate at which it is thrown out."""

import numpy as np
import xarray as xr

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.laws import max_stable_learning_rate
from statsgd.measures import first_exit, restricted_mean, trajectories
from statsgd.noise import Anisotropic
from statsgd.problems import Landscape
from statsgd.reports import Chart, Series
from studies.valleys.ring import (
    SOURCE,
    A,
    RingLoss,
    RingSettings,
    around,
    constant_noise,
    curvature,
    start,
)


def speed(settings: RingSettings) -> xr.DataTree:
    """The claim."""
    s, ratio = settings, 400.0
    x0, x1 = 0.5, 2.0
    strengths = s.diffusion * np.array([0.25, 0.5, 1.0])
    measured, predicted = [], []
    for strength in strengths:
        along = np.linspace(x0, x1, 2001)
        h = np.asarray(curvature(along))
        # dx/dt = D_y (ln F)'/(1 − ηh/2) with (ln F)' = (a/2) sin x.
        pace = strength * A / 2 * np.sin(along) / (1 - s.learning_rate * h / 2)
        steps = float(np.trapezoid(1 / pace, along)) / s.learning_rate
        looks = np.unique(np.linspace(1, 2.5 * steps, 200).astype(int))
        tree = statsgd.simulate(
            Landscape(RingLoss(np.float64(0.0)), start()),
            statsgd.SGD(s.learning_rate, constant_noise(strength, ratio, s.learning_rate)),
            steps=int(looks[-1]),
            replicas=s.replicas,
            seed=s.seed,
            start=np.tile([x0, 0.0], (s.replicas, 1)),
            keep=looks.tolist(),
            progress=False,
        )
        x = trajectories(tree).params[..., 0]
        held = np.concatenate([np.ones((len(x), 1), bool), x < x1], axis=1)
        exits = first_exit(held, np.append(0.0, looks))
        measured.append(restricted_mean(exits, float(looks[-1])))
        predicted.append(steps)
    claim = Claim(
        "The stronger the noise, the sooner SGD reaches the flat side: the time falls as 1/D_y",
        SOURCE,
        [
            Quantity(
                f"steps from x = {x0:g} to {x1:g}, D_y = {strength:g}",
                one.value,
                one.standard_error,
                law,
                margin=2 * s.margin,
            )
            for strength, one, law in zip(strengths, measured, predicted, strict=True)
        ],
        why=(
            "Mean first passage (Kaplan–Meier) against the drift D_y (ln F)′/(1 − ηh/2), κ = "
            f"{ratio:g}. Four times the noise takes {measured[0].value / measured[-1].value:.2f} "
            "times fewer steps."
        ),
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


def bound_of_noise(settings: RingSettings) -> xr.DataTree:
    """The claim."""
    s, ratio = settings, 4.0
    sharpest = float(curvature(0.0))
    bound = max_stable_learning_rate(sharpest).edge_of_stability
    factors = np.array([0.8, 0.95, 1.05, 1.2, 1.6, 2.4, 3.0])
    variance = 2 * s.diffusion / s.learning_rate * 1e-2
    sgd = statsgd.SGD(0.1, Anisotropic(np.diag([variance / ratio, variance])))
    tree = statsgd.simulate(
        Landscape(RingLoss(np.float64(0.0)), start()),
        statsgd.grid(sgd, learning_rate=bound * factors),
        steps=2000,
        replicas=min(s.replicas, 256),
        seed=s.seed,
        start=around(min(s.replicas, 256), s.seed),
        allow_unstable=True,
        progress=False,
    )
    gone = tree["run"].to_dataset()["diverged"].values
    share = gone.mean(axis=1)
    error = np.sqrt(
        (share * gone.shape[1] + 1)
        / (gone.shape[1] + 2)
        * (1 - (share * gone.shape[1] + 1) / (gone.shape[1] + 2))
        / gone.shape[1]
    )
    above = int(np.argmax(factors > 1.1))
    claim = Claim(
        "Training fails to converge where the noise or the learning rate is above 2/h of the "
        "sharpest stretch of the valley",
        f"{SOURCE}, for the existence of a bound; this one is derived",
        [
            Quantity("share diverged, η = 0.8 · 2/h_max", share[0], error[0], 0.05, "<"),
            Quantity(
                f"share diverged, η = {factors[above]:g} · 2/h_max",
                share[above],
                error[above],
                0.5,
                ">",
            ),
        ],
        why=(
            f"2/h_max = {bound:.3f}, 2/h_min = {2 / float(curvature(np.pi)):.3f}. Diverged within "
            "2000 steps: "
            + ", ".join(f"{v:.2f} at {f:g}" for f, v in zip(factors, share, strict=True))
            + " times 2/h_max. Where the sharp side throws a walker up the wall, the force along "
            "the valley throws it to the flat side, where it comes down again: the bound that "
            "counts lies between the two."
        ),
    )
    chart = Chart(
        "Runs that diverge",
        "η h_max/2",
        "share diverged",
        (Series("SGD", factors, share, error),),
        level=None,
    )
    return claim.to_datatree(chart)
