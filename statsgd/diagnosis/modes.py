"""Curvature, force and noise at the checkpoint: along the leading modes, and in all directions."""

from typing import Any

import numpy as np
import xarray as xr

from statsgd.diagnosis.gradients import DRAWS, noise_draws, noise_trace, standing
from statsgd.diagnosis.part import Part
from statsgd.diagnosis.request import Request
from statsgd.diagnosis.stability import of_batches
from statsgd.laws.networks.checkpoint import checked
from statsgd.laws.networks.mode_law import ModeLaw
from statsgd.laws.networks.pilot import Pilot, PilotDivergedError
from statsgd.measures.curvature.eigenpairs import top_eigenpairs
from statsgd.problems import DENSE_LIMIT
from statsgd.problems.eigenpairs import Eigenpairs
from statsgd.problems.parameters import floating
from statsgd.problems.sums import hessian_product
from statsgd.reports.charts import Chart, Series

#: Random vectors for the trace of the Hessian.
TRACE_PROBES = 16
#: Replicas, other than those that are measured, at whose endpoints noise and curvature are read.
PILOTS = 8
#: Products that all traces take.
TRACE_PRODUCTS = TRACE_PROBES + DRAWS


def first_look(request: Request) -> xr.Dataset:
    """Loss, gradient and strength of the noise: what is known before anything long begins."""
    at = standing(request.problem, request.params)
    if not np.isfinite(at.loss) or not np.all(np.isfinite(at.gradient)):
        raise ValueError(f"params must have a finite loss and gradient, got the loss {at.loss}")
    force = at.gradient + request.decay * request.flat
    ask = request.problem, request.params, request.sgd.noise, at.gradient
    draws = noise_draws(*ask, request.seed)
    noise = noise_trace(*ask, draws)
    if noise.value <= 0:
        raise ValueError("sgd must have gradient noise at params, got none: every replica is alike")
    return xr.Dataset(
        {
            "loss": float(at.loss),
            "gradient_norm": float(np.linalg.norm(force)),
            "noise_trace": float(noise.value),
            "noise_trace_error": float(noise.standard_error),
            "distance_from_origin": float(np.linalg.norm(request.flat)),
        }
    )


def law_at(request: Request) -> ModeLaw:
    """The law in the leading modes, measured at the checkpoint and, by a pilot, around it."""
    modes: int | Eigenpairs = request.modes
    if request.problem.dimension > DENSE_LIMIT:
        # In half of the time; rounding in single precision is nothing beside the errors of noise.
        modes = top_eigenpairs(request.problem, request.params, request.modes, double=False)
    ask = request.problem, request.sgd, request.params, modes, request.steps
    try:
        return ModeLaw.from_checkpoint(
            *ask, pilot=PILOTS if of_batches(request) else None, seed=(request.seed + 1) % 2**32
        )
    except PilotDivergedError:
        return ModeLaw.from_checkpoint(*ask)


def kept_law(law: ModeLaw) -> xr.Dataset:
    """What a law in modes is made of, to be kept."""
    kept = xr.Dataset(
        {
            "curvature": ("mode", law.curvatures),
            "noise": ("mode", np.diagonal(law.noise_covariance)),
            "noise_covariance": (("mode", "other_mode"), law.noise_covariance),
            "gradient": ("mode", law.gradient),
            "residual": ("mode", np.asarray(law.residuals)),
            "direction": (("parameter", "mode"), np.asarray(law.modes)),
        },
        coords={"mode": np.arange(1, len(law.curvatures) + 1)},
    )
    if law.independent_noise is not None:
        kept = kept.assign(independent_noise=(("mode", "other_mode"), law.independent_noise))
    if law.noise_error is not None:
        kept = kept.assign(noise_covariance_error=(("mode", "other_mode"), law.noise_error))
    if law.pilot is None:
        return kept
    pilot = law.pilot
    of_each = "pilot", "mode", "other_mode"
    if pilot.endpoint_key_noises is not None:
        kept = kept.assign(pilot_key_noise=(of_each, pilot.endpoint_key_noises))
    return kept.assign(
        noise_growth=("mode", pilot.noise_growth.value),
        noise_growth_error=("mode", pilot.noise_growth.standard_error),
        curvature_growth=("mode", pilot.curvature_growth.value),
        curvature_growth_error=("mode", pilot.curvature_growth.standard_error),
        pilot_curvature=(("pilot", "mode"), pilot.endpoint_curvatures),
        pilot_noise_covariance=(of_each, pilot.endpoint_noises),
    )


def law_from(kept: xr.Dataset, request: Request) -> ModeLaw:
    """The law that `kept_law` kept."""
    pilot = None
    if "pilot_curvature" in kept:
        pilot = Pilot(
            kept["pilot_noise_covariance"].values,
            _known(kept, "pilot_key_noise"),
            kept["pilot_curvature"].values,
            kept["noise"].values,
            kept["curvature"].values,
            request.steps,
        )
    return ModeLaw(
        kept["curvature"].values,
        kept["noise_covariance"].values,
        request.sgd.learning_rate,
        request.sgd.momentum,
        request.steps,
        gradient=kept["gradient"].values,
        num_batches=checked(request.problem, request.sgd),
        modes=kept["direction"].values,
        checkpoint=request.flat,
        residuals=kept["residual"].values,
        independent_noise=_known(kept, "independent_noise"),
        noise_error=_known(kept, "noise_covariance_error"),
        pilot=pilot,
    )


def _known(kept: xr.Dataset, name: str) -> Any:
    return kept[name].values if name in kept else None


def traces(request: Request, law: ModeLaw) -> xr.Dataset:
    """Tr H, and Tr HC over examples, with their errors: the modes exactly, the rest by probes."""
    product = hessian_product(request.problem, floating(request.params), double=True)
    modes, values = np.asarray(law.modes), law.curvatures - request.decay
    rng = np.random.default_rng(request.seed)
    d = len(modes)
    rest = []
    for _ in range(TRACE_PROBES):
        probe = rng.choice([-1.0, 1.0], size=d)
        probe -= modes @ (modes.T @ probe)
        rest.append(probe @ product(probe))
    force = standing(request.problem, request.params).gradient
    draws = noise_draws(request.problem, request.params, request.sgd.noise, force, request.seed)
    found = {
        "hessian_trace": values.sum() + np.mean(rest),
        "hessian_trace_error": np.std(rest, ddof=1) / np.sqrt(TRACE_PROBES),
    }
    squares = np.sum(draws**2, axis=1)
    if np.all(squares > 0):
        found |= _scaled(np.array([u @ product(u) for u in draws]), squares)
    return xr.Dataset({name: float(value) for name, value in found.items()})


def _scaled(forms: Any, squares: Any) -> dict[str, float]:
    """Tr HC over Tr C as a ratio of means over the same vectors: the error of either is shared."""
    ratio = forms.mean() / squares.mean()
    influence = (forms - ratio * squares) / squares.mean()
    error = influence.std(ddof=1) / np.sqrt(len(forms))
    return {"curvature_of_noise": float(ratio), "curvature_of_noise_error": float(error)}


def told_standing(look: xr.Dataset, whole: xr.Dataset, request: Request) -> Part:
    """Where training stands."""
    gradient, noise = float(look["gradient_norm"]), float(look["noise_trace"])
    ratio = gradient**2 / noise if noise > 0 else np.inf
    finding = (
        f"The loss is {float(look['loss']):.4g}. The gradient of the whole loss, weight decay "
        f"included, has the norm {gradient:.3g}; the noise of one stochastic gradient has the "
        f"root mean square norm {np.sqrt(noise):.3g}. The square of the first is {ratio:.3g} of "
        "that of the second."
    )
    if "curvature_of_noise" not in whole:
        return Part("Where training stands", finding)
    time = float(request.sgd.learning_rate) / (1 - float(request.sgd.momentum))
    settled = time / 2 * (float(whole["curvature_of_noise"]) + request.decay)
    if settled <= 0 or settled < time * float(whole["curvature_of_noise_error"]):
        return Part(
            "Where training stands",
            f"{finding} Along its noise the loss is not known to curve upwards (Tr HC/Tr C + λ = "
            f"{2 * settled / time:.3g} ± {float(whole['curvature_of_noise_error']):.1g}): there "
            "may be no level at which noise keeps the gradient here.",
            "Train longer before reading statements about the stationary law; those about the next "
            f"{request.steps} steps hold regardless.",
            "undecided: noise may lead downwards here, as at a saddle",
            "derived from the stationary law of the linear chain",
        )
    finding += (
        f" Once SGD with these settings has settled, its own wandering makes that about "
        f"{settled:.2g} (η Tr HC/(2(1−β) Tr C)): here it is {ratio / settled:.2g} times as much."
    )
    if ratio < _MOVING * settled:
        return Part(
            "Where training stands",
            finding,
            "Nothing: what is left of the gradient is what noise keeps alive. A lower loss needs a "
            "smaller learning rate or a larger batch, not more steps of this kind.",
            "settled: the gradient is what noise alone keeps up",
            "derived from the stationary law of the linear chain",
        )
    return Part(
        "Where training stands",
        finding,
        "Train longer before reading statements about the stationary law; those about the next "
        f"{request.steps} steps hold regardless.",
        f"moving: the gradient is {np.sqrt(ratio / settled):.2g} times what noise keeps up",
        "derived from the stationary law of the linear chain",
    )


def _told_alignment(whole: xr.Dataset, average: float, error: float) -> str:
    """Curvature along the noise beside that of all directions."""
    along, off = (float(whole[f"curvature_of_noise{end}"]) for end in ("", "_error"))
    told = f" Along the noise the loss curves by {along:.3g} ± {off:.1g} on average (Tr HC/Tr C)"
    if average <= 2 * error:
        return f"{told}; the average over all directions is not known to be positive."
    told += f", {along / average:.3g} times the average over all directions: "
    gap, reach = along - average, 2 * float(np.hypot(off, error))
    if gap > reach:
        return told + (
            "noise and curvature are aligned, so that noise climbs faster than if it were the same "
            "in all directions."
        )
    if gap < -reach:
        return told + (
            "noise avoids curvature, and climbs more slowly than if it were the same in all "
            "directions."
        )
    return told + "within the errors noise climbs as if it were the same in all directions."


#: Times the settled square gradient from which on a checkpoint counts as moving.
_MOVING = 4.0


def told_curvature(law: ModeLaw, look: xr.Dataset, whole: xr.Dataset, request: Request) -> Part:
    """Curvature and noise."""
    h, c = law.curvatures, np.diagonal(law.noise_covariance)
    k, d = len(h), request.problem.dimension
    trace, error = float(whole["hessian_trace"]), float(whole["hessian_trace_error"])
    noise = float(look["noise_trace"])
    finding = (
        f"The loss curves most along {k} direction{'s' * (k > 1)}, its leading "
        f"mode{'s' * (k > 1)}, out of {d} parameters: "
        f"curvatures h from {h.max():.4g} down to {h.min():.4g}, weight decay included. All "
        f"curvatures of the loss add up to {trace:.4g} ± {error:.2g}, of which the modes hold "
        f"{np.sum(h - request.decay) / trace:.0%}. They hold {c.sum() / noise:.0%} of the noise "
        f"of a stochastic gradient (Tr C = {noise:.3g})."
    )
    scale = np.exp(np.mean(np.log(np.maximum(c, 1e-300) / np.maximum(h, 1e-300))))
    span = (c / h) / scale
    if k > 1 and np.all(h > 0):
        finding += (
            f" Were the noise proportional to curvature, c/h would be the same in all modes; it is "
            f"{span.min():.2g} to {span.max():.2g} times its (geometric) mean."
        )
    if "curvature_of_noise" in whole:
        finding += _told_alignment(whole, trace / d, error / d)
    if law.noise_error is not None:
        relative = float(np.mean(np.diagonal(law.noise_error) / np.maximum(c, 1e-300)))
        finding += (
            " Noise along the modes is that of stochastic gradients drawn at the checkpoint, known "
            f"to {relative:.0%} in a mode."
        )
    worst = float(np.max(np.asarray(law.residuals)))
    finding += f" Relative residuals |Hv − hv|/h of the modes are at most {worst:.1g}."
    order = np.arange(1, k + 1)
    charts: tuple[Chart, ...] = (
        Chart("Curvature of the modes", "mode", "h (loss/params²)",
              (Series("", order, h),), "y" if np.all(h > 0) else ""),
        Chart("Noise and curvature", "curvature h", "noise c ((loss/params)²)",
              (Series("a mode", h, c), Series("proportional", h, scale * h, look="line")), "xy"),
    )  # fmt: skip
    if np.any(h <= 0) or np.any(c <= 0):
        charts = charts[:1]
    return Part("Curvature and noise", finding, charts=charts)
