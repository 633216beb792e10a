"""A diagnosis of one's own network at a checkpoint, in one call."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import PyTree
from tqdm.auto import tqdm

from statsgd.description import describe
from statsgd.diagnosis import flatness, learning, modes, own_run, spread, stability, stationarity
from statsgd.diagnosis.cost import estimated
from statsgd.diagnosis.request import Request, checked, warn_if_far
from statsgd.diagnosis.saved import Saved, saved_in
from statsgd.dynamics.sgd import SGD
from statsgd.problems import Problem
from statsgd.progress import silent
from statsgd.provenance import provenance


def diagnose(
    problem: Problem,
    params: PyTree,
    sgd: SGD,
    *,
    modes: int = 32,
    replicas: int = 64,
    steps: int = 500,
    seed: int,
    store: str | Path | None = None,
    checkpoints: Any = None,
    identity: str | None = None,
    learning_coefficient: bool = True,
    progress: bool = True,
) -> xr.DataTree:
    """Where training by `sgd` stands at `params`, and what the laws say of what comes next.

    **Arguments:**

    - `problem`: with examples, such as `problems.empirical_risk` makes of one's own loss.
    - `params`: the checkpoint, a pytree of the problem's parameters or a whole trained model.
    - `sgd`: the `SGD` that trains, with its batches, momentum and weight decay.
    - `modes`: leading eigenvectors of the Hessian that are looked at; fewer than the parameters.
    - `replicas`, `steps`: fresh replicas that leave the checkpoint at rest, and their steps.
    - `store`: a folder. Parts are kept there as they are done, and the same call goes on from
      them; `identity` as in `simulate`.
    - `checkpoints`: parameters that the user saved on one run of their own, every `steps` steps,
      as a list or with a leading axis. They take the place of the replicas.
    - `learning_coefficient`: whether to estimate it too. Its chains take 12 000 steps in all, often
      half of the whole time.

    A cost estimate is printed before the long part begins, unless `progress` is false.

    **Returns** a `DataTree` whose groups hold the numbers and say in their attributes what these
    mean (`verdict`, `finding`, `advice`): `standing`, `curvature`, `spread` (or `own_run`),
    `stability`, `stationarity`, `flatness` and `learning_coefficient`. `report(tree, path)` makes
    a page of it.

    Raises `ValueError`, before anything long begins, for a loss that is not finite, no noise, a
    batch larger than the data, too many modes, fewer than 8 replicas, an optimiser or a sampling
    scheme without a law, and another run's store. Warns (`CheckpointWarning`) where the gradient of
    the whole loss is larger than the noise of a batch: the checkpoint is far from any minimum.

    >>> import numpy as np, statsgd
    >>> rng = np.random.default_rng(0)
    >>> inputs = rng.normal(size=(64, 2))
    >>> targets = inputs @ [1.0, 2.0] + rng.normal(size=64)
    >>> problem = statsgd.problems.linear_regression(inputs, targets)
    >>> at, sgd = statsgd.minimise(problem).params, statsgd.SGD(0.1, statsgd.noise.Minibatch(8))
    >>> short = {"modes": 1, "replicas": 8, "steps": 50, "learning_coefficient": False}
    >>> tree = statsgd.diagnose(problem, at, sgd, **short, seed=0, progress=False)
    >>> tree["stability"].attrs["verdict"]
    'stable: SGD uses 6% of its stability budget'
    """
    request = checked(
        problem, params, sgd, modes=modes, replicas=replicas, steps=steps, seed=seed,
        learning_coefficient=learning_coefficient, progress=progress,
    )  # fmt: skip
    points = None if checkpoints is None else own_run.saved_points(checkpoints, request)
    attributes = provenance(
        "diagnosis",
        identity=identity,
        layout=_LAYOUT,
        seed=request.seed,
        modes=request.modes,
        replicas=request.replicas,
        steps=request.steps,
        learning_coefficient=request.learning_coefficient,
        sgd=describe(sgd, code=identity is None),
        problem=describe(problem, code=identity is None) | {"dimension": problem.dimension},
        params=describe(params),
        checkpoints=describe(points),
    )
    with saved_in(store, attributes) as saved:
        parts = _parts(request, saved, points, identity)
    tree = xr.DataTree.from_dict(parts)
    tree.attrs = attributes | _head(request, parts)
    return tree


def _parts(
    request: Request, saved: Saved, points: Any, identity: str | None
) -> dict[str, xr.DataTree]:
    look = _known(saved.part("first_look", lambda: modes.first_look(request)))
    warn_if_far(float(look["gradient_norm"]), float(np.sqrt(look["noise_trace"])))
    number = 0 if points is not None else request.replicas
    if request.progress:
        print(f"diagnose: {estimated(request, number)}", flush=True)
    with tqdm(total=7, desc="diagnose", unit="part", disable=silent(request.progress)) as bar:

        def part(name: str, measure: Any) -> Any:
            bar.set_postfix_str(name)
            found = saved.part(name, measure)
            bar.update()
            return found

        kept = part("law", lambda: modes.kept_law(modes.law_at(request)))
        law = modes.law_from(kept, request)
        whole = part("traces", lambda: modes.traces(request, law))
        told = {
            "standing": modes.told_standing(look, whole, request).to_datatree(look),
            "curvature": modes.told_curvature(law, look, whole, request).to_datatree(
                kept.merge(whole)
            ),
        }
        if points is not None:
            seen = part("own_run", lambda: own_run.own_run(request, law, points))
            told["own_run"] = own_run.told(seen, request).to_datatree(seen)
            bar.update()
        else:
            options = saved.replicas | {"identity": identity, "allow_unstable": True}
            ensemble = spread.replicas(request, law, **options)
            seen = part("spread", lambda: spread.spread(request, law, ensemble))
            told["spread"] = spread.told(seen, look, request).to_datatree(seen)
            balance = part("stationarity",
                           lambda: stationarity.stationarity(request, law, ensemble))  # fmt: skip
            if balance is not None:
                told["stationarity"] = stationarity.told(balance, law, request).to_datatree(balance)
        budget = part("stability", lambda: stability.stability(request, law))
        told["stability"] = stability.told(budget, request).to_datatree(budget)
        around = part("flatness", lambda: flatness.flatness(request))
        told["flatness"] = flatness.told(around, look, whole).to_datatree(around)
        volume = part("learning_coefficient", lambda: learning.learning_coefficient(request, law))
        if volume is not None:
            told["learning_coefficient"] = learning.told(volume, request).to_datatree(volume)
    return {name: told[name] for name in _ORDER if name in told}


#: What parts consist of: a store of parts that consist of something else is refused.
_LAYOUT = 2

#: Parts in the order of the page.
_ORDER = (
    "standing", "stability", "spread", "own_run", "stationarity", "curvature", "flatness",
    "learning_coefficient",
)  # fmt: skip


def _known(found: xr.Dataset | None) -> xr.Dataset:
    assert found is not None
    return found


def _head(request: Request, parts: dict[str, xr.DataTree]) -> dict[str, str]:
    sgd = request.sgd
    advice = [f"{part.attrs['title']} – {part.attrs['advice']}" for part in parts.values()
              if part.attrs["verdict"] and part.attrs["advice"]]  # fmt: skip
    return {
        "title": "Diagnosis of a network at a checkpoint",
        "question": (
            f"{request.problem.dimension} parameters, trained by SGD with the learning rate η = "
            f"{float(sgd.learning_rate):g}, momentum β = {float(sgd.momentum):g}, weight decay λ = "
            f"{float(sgd.weight_decay):g} and {_said(sgd.noise)}. θ stands for all parameters, L "
            "for the loss, H for the matrix of its second derivatives, C for the covariance of one "
            "stochastic gradient, Tr for the sum over all directions; a mode is an eigenvector of "
            "H, h the curvature along it, c the variance of the gradient noise along it, K a "
            "number of steps. ± is one standard error."
        ),
        "finding": "\n".join(["What to do:", *advice]),
    }


def _said(noise: Any) -> str:
    size = getattr(noise, "batch_size", None)
    if size is None:
        return f"noise of the kind {type(noise).__name__}"
    return f"batches of {size} drawn by the scheme {noise.sampling!r}"
