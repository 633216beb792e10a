"""How noise is read that varies along a ring of minima: Itô, Stratonovich or anti-Itô."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

from statsgd.comparison import Claim, Quantity
from statsgd.laws import ValleyLaw
from statsgd.measures import mean_over_clusters
from statsgd.noise import Anisotropic
from statsgd.reports import Chart, Series
from studies.valleys.ring import A, Ring, RingSettings, curvature


class FollowingCurvature(eqx.Module):
    """C = diag(1/κ, 1) c e^(a cos x): noise proportional to the curvature across."""

    variance: Float[Any, ""]
    anisotropy: Float[Any, ""]

    def __call__(self, params: Float[Any, " 2"]) -> Float[Any, "2 2"]:
        """C at `params`."""
        across = self.variance * jnp.exp(A * jnp.cos(params[0]))
        return jnp.diag(jnp.stack([across / self.anisotropy, across]))


def parts(settings: RingSettings) -> Mapping[str, xr.DataTree]:
    """The claims about noise that follows curvature."""
    s, ratio = settings, 4.0
    noise = Anisotropic(
        FollowingCurvature(np.float64(2 * s.diffusion / s.learning_rate), np.float64(ratio))
    )
    params = Ring(settings).positions(noise, ratio)
    x, y = params[..., 0], params[..., 1]
    flat_side = mean_over_clusters(-np.cos(x).mean(axis=1))
    h = np.asarray(curvature(x))
    identity = mean_over_clusters(
        (h * y**2 * (1 - s.learning_rate * h / 2) / (s.diffusion * np.exp(A * np.cos(x)))).mean(1)
    )

    def across(x):
        return s.diffusion * jnp.exp(A * jnp.cos(x))

    def predicted(reading):
        law = ValleyLaw(
            curvature,
            across,
            lambda x: across(x) / ratio,
            learning_rate=s.learning_rate,
            reading=reading,
        )
        return law.expectation_along(lambda x: -np.cos(x))

    readings = {name: predicted(name) for name in ("ito", "stratonovich", "anti_ito")}

    def quantity(reading):
        return Quantity(
            f"E[−cos x], {reading}",
            float(flat_side.value),
            float(flat_side.standard_error),
            readings[reading],
            margin=s.margin,
        )

    why = (
        f"SGD evaluates the noise before the step, and so is Itô. With noise ∝ h it gives "
        f"{float(flat_side.value):.3f} ± {float(flat_side.standard_error):.3f}; the three "
        "readings, with the finite step: "
        + ", ".join(f"{name} {value:.3f}" for name, value in readings.items())
        + "."
    )
    published = Claim(
        "Where noise varies along the valley, SGD follows the flux Ap − D∇p (anti-Itô)",
        "Yang, Zhang, Ouyang, Tang, Tu, arXiv:2601.10962, for the flux",
        [quantity("anti_ito")],
        why,
        origin="source",
        place="the flux of the Fokker–Planck equation",
        data_sets=0,
        unit="runs",
    )
    derived = Claim(
        "Where noise varies along the valley, SGD is read as Itô",
        "derived",
        [
            quantity("ito"),
            Quantity(
                "E[hy²(1 − ηh/2)/D_y]",
                float(identity.value),
                float(identity.standard_error),
                1.0,
                margin=s.margin,
            ),
        ],
        f"{why} The second number is one for any noise that does not depend on y.",
        origin="derived",
        data_sets=0,
        unit="runs",
    )
    chart = Chart(
        "Three readings of noise that follows curvature",
        "exponent of D along the valley: 0 anti-Itô, ½ Stratonovich, 1 Itô",
        "E[−cos x]",
        (
            Series("readings", [1.0, 0.5, 0.0], list(readings.values()), look="line"),
            Series(
                "SGD",
                [0.0, 0.5, 1.0],
                [float(flat_side.value)] * 3,
                [float(flat_side.standard_error)] * 3,
                look="line",
            ),
        ),
    )
    return {
        "ring, anti-Itô": published.to_datatree(),
        "ring, Itô": derived.to_datatree(chart),
    }
