"""Whether the replicas have become stationary along the modes."""

import numpy as np
import xarray as xr

from statsgd.diagnosis.gradients import standing
from statsgd.diagnosis.part import Part, judged
from statsgd.diagnosis.request import Request
from statsgd.diagnosis.spread import groups, too_few
from statsgd.ensembles import endpoint_trajectories
from statsgd.laws.networks.mode_law import ModeLaw
from statsgd.measures.motion.fluctuations import first_fluctuation_relation
from statsgd.reports.charts import Chart, Series

#: Relative gap that counts as none.
GAP = 0.2


def stationarity(request: Request, law: ModeLaw, ensemble: xr.DataTree) -> xr.Dataset | None:
    """Both sides of ⟨x g⟩ = (η/2)(1+β)⟨m²⟩ along every mode, at the replicas' ends.

    None where too few of them survive.
    """
    if too_few(ensemble):
        return None
    problem = request.problem
    ends = endpoint_trajectories(ensemble, problem.names, condition_on_survival=True)
    modes = np.asarray(law.modes)
    forces = []
    for point in ends.params[:, 0]:  # of which there are few: digits of double are not needed
        gradient = standing(problem, problem.unflatten(point), double=False).gradient
        forces.append((gradient + request.decay * point) @ modes)
    assert ends.momentum_buffer is not None
    x, m = (ends.params - request.flat) @ modes, ends.momentum_buffer @ modes
    found = first_fluctuation_relation(
        x,
        np.stack(forces)[:, None],
        m,
        request.sgd.learning_rate,
        request.sgd.momentum,
        np.eye(modes.shape[1]),
    )
    sides = {"left": found.left, "right": found.right, "gap": found.gap}
    values = {name: ("mode", side.value) for name, side in sides.items()}
    errors = {f"{name}_error": ("mode", side.standard_error) for name, side in sides.items()}
    return xr.Dataset(values | errors, coords={"mode": np.arange(1, modes.shape[1] + 1)})


def told(numbers: xr.Dataset, law: ModeLaw, request: Request) -> Part:
    """How far the modes are from what stationarity implies."""
    right = float(numbers["right"].sum())
    # Errors of modes are of the same replicas, but their noises hardly correlate.
    relative = _over(float(numbers["gap"].sum()), right)
    error = _over(float(np.sqrt(np.sum(numbers["gap_error"].values ** 2))), right)
    times = law.curvatures * request.time
    short = int(np.sum(times < 3))
    finding = (
        "In a stationary state the pull of the loss balances the push of the noise along every "
        "direction: ⟨x g⟩ = (η/2)(1+β)⟨m²⟩ for the distance x, the gradient g and the momentum "
        f"buffer m. Summed over the modes the two sides differ by {relative:+.0%} ± {error:.0%}. "
        f"{len(times) - short} of {len(times)} modes had at least three of their relaxation times "
        f"(1−β)/(ηh) within the {request.steps} steps."
    )
    series = []
    for name, part in groups(len(times)).items():
        side = {of: float(numbers[of].values[part].sum()) for of in ("gap", "right")}
        spread = float(np.sqrt(np.sum(numbers["gap_error"].values[part] ** 2)))
        series.append((name, _over(side["gap"], side["right"]), _over(spread, side["right"])))
    names, gaps, errors = zip(*series, strict=True)
    chart = Chart(
        "Imbalance of pull and push",
        "modes",
        "relative gap",
        (Series("", np.arange(len(names)), gaps, errors),),
        level=0.0,
        names=names,
    )
    word = judged(relative, error, GAP, "settled", "moving")
    advice = (
        "" if word != "moving" else
        "The modes are still filling up or emptying: give replicas more steps before reading "
        "stationary statements, or read those about the next steps."
    )  # fmt: skip
    verdict = f"{word}: pull and push along the modes differ by {relative:+.0%} ± {error:.0%}"
    return Part(
        "Stationarity", finding, advice, verdict, "Yaida (2018), arXiv:1810.00004", (chart,)
    )


def _over(part: float, whole: float) -> float:
    """Not a number where nothing pushes, as without any noise."""
    return part / whole if whole else float("nan")
