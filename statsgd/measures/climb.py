"""Escaping efficiency: how far the loss climbs above where an ensemble was let go."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from statsgd.arguments import finite_array
from statsgd.measures.measured import Measured, mean_over_clusters
from statsgd.measures.trajectories import label, observed


def loss_climb(losses: Float[Any, "replica step"], start_loss: Any) -> Measured:
    """E[L(θ_k) − L(θ_0)] at every recorded step, with its error over replicas.

    At a quadratic minimum with constant noise this is `laws.minimum.escape_efficiency`: ½η² Tr(HC)
    after
    one step, so that at equal Tr C noise along sharp directions climbs fastest. Errors at different
    steps belong to the same replicas, and are correlated.

    **Arguments:** `start_loss` L(θ_0), one number or `(replica,)`. Unit: loss.

    Raises `ValueError` for shapes that do not fit, non-finite losses and fewer than two replicas.

    Source: Zhu, Wu, Yu, Wu, Ma (2019), arXiv:1803.00195.
    """
    values = np.asarray(finite_array("losses", losses, ndim=2), dtype=np.float64)
    begin = np.asarray(finite_array("start_loss", start_loss), dtype=np.float64)
    if begin.shape not in ((), (len(values),)):
        raise ValueError(f"start_loss must have shape () or ({len(values)},), got {begin.shape}")
    return mean_over_clusters(values - (begin if begin.ndim == 0 else begin[:, None]))


def loss_climb_dataset(
    tree: xr.DataTree, loss: str = "loss", start_loss: Any = None, prediction: Any = None
) -> xr.Dataset:
    """`loss_climb` of `simulate(…, observe={"loss": problem.loss})`, along the coordinate `step`.

    `start_loss` is by default the loss recorded at step 0. With a `prediction` `(step,)`, such as
    `laws.minimum.escape_efficiency` at these steps, it and the deviation in standard errors stand
    beside.

    Raises `ValueError` without the observable, and without a record at step 0 or a `start_loss`.
    """
    record = observed(tree, loss)
    losses, steps = record.values.astype(np.float64), record["step"].values
    if start_loss is None:
        if steps[0] != 0:
            raise ValueError(
                f"start_loss must be given where step 0 was not observed, got steps from {steps[0]}"
            )
        start_loss = losses[:, 0]
    climb = loss_climb(losses, start_loss)
    found = label({"climb": climb}, ("step",), {"step": steps})
    found.attrs["kind"] = "loss_climb"
    if prediction is not None:
        expected = np.asarray(finite_array("prediction", prediction), dtype=np.float64)
        if expected.shape != steps.shape:
            raise ValueError(f"prediction must have shape {steps.shape}, got {expected.shape}")
        gap = np.asarray(climb.value) - expected
        scale = np.where(climb.standard_error > 0, climb.standard_error, np.nan)
        found["prediction"] = ("step", expected)
        found["deviation"] = ("step", gap / scale)
    return found
