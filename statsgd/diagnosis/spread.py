"""Replicas that leave the checkpoint together, against what the law in modes says of them."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float, PyTree

from statsgd.diagnosis.part import Part, judged
from statsgd.diagnosis.request import LEAST_REPLICAS, Request
from statsgd.diagnosis.stability import of_batches
from statsgd.diagnosis.ways import told_ways, ways
from statsgd.dynamics.ensemble import simulate
from statsgd.ensembles import counting_overflow, endpoint_trajectories
from statsgd.laws.networks.mode_law import ModeLaw
from statsgd.reports.charts import Chart, Series

#: Looks at the replicas on their way, and relative difference that counts as agreement.
LOOKS, AGREEMENT = 7, 0.1

_TITLE = "The law of the next steps"


class Along(eqx.Module):
    """x = Vᵀ(θ − θ₀) and |θ − θ₀|² of parameters θ: an observable."""

    modes: Float[Any, "k d"]
    origin: Float[Any, " d"]

    def __call__(self, params: PyTree) -> Float[Any, " k_and_one"]:
        """The distances along the modes, and last the square of the whole distance."""
        leaves = [leaf.ravel().astype(self.origin.dtype) for leaf in jax.tree.leaves(params)]
        away = jnp.concatenate(leaves) - self.origin
        along = jnp.matmul(self.modes, away, precision=jax.lax.Precision.HIGHEST)
        return jnp.append(along, away @ away)


def replicas(request: Request, law: ModeLaw, **options: Any) -> xr.DataTree:
    """Fresh replicas from the checkpoint, looked at along the modes."""
    # Differences from θ₀ are of its rounding where params have 16 bits.
    dtype = jnp.promote_types(jnp.result_type(*jax.tree.leaves(request.params)), jnp.float32)
    along = Along(*(np.asarray(part, dtype) for part in (np.asarray(law.modes).T, request.flat)))
    run = simulate(
        request.problem,
        request.sgd,
        steps=request.steps,
        replicas=request.replicas,
        seed=request.seed,
        start=request.params,
        observe={"along": along},
        observe_at=look_steps(request.steps),
        progress=request.progress,
        devices=jax.devices(),
        **options,
    )
    return counting_overflow(run)


def too_few(ensemble: xr.DataTree) -> bool:
    """Whether fewer replicas survive than say anything."""
    return int((~ensemble["run"].to_dataset()["diverged"].values).sum()) < LEAST_REPLICAS


def look_steps(steps: int) -> list[int]:
    """Steps of the looks, evenly spaced in their logarithm, the last one among them."""
    return np.unique(np.geomspace(max(1, steps / 64), steps, LOOKS).round().astype(int)).tolist()


def spread(request: Request, law: ModeLaw, ensemble: xr.DataTree) -> xr.Dataset:
    """Means and variances of the surviving replicas along the modes, and those of the law.

    How many survived, and nothing else, where these are too few.
    """
    run = ensemble["run"].to_dataset()
    alive = ~run["diverged"].values
    if too_few(ensemble):
        return xr.Dataset({"replicas": int(alive.sum()), "diverged": int((~alive).sum())})
    along = ensemble["observables"].to_dataset()["along"]
    seen = np.asarray(along.transpose("replica", "step", ...).values, np.float64)[alive]
    steps = along["step"].values
    x, square = seen[..., :-1], seen[..., -1]
    ends = endpoint_trajectories(ensemble, request.problem.names, condition_on_survival=True)
    assert ends.momentum_buffer is not None
    whole = np.sum(ends.momentum_buffer[:, 0] ** 2, axis=1)
    buffers = ends.momentum_buffer[:, 0] @ np.asarray(law.modes)
    laws = [law.after(int(step)) for step in steps]
    number, k = len(x), x.shape[2]
    loss = run["loss"].values[alive].astype(np.float64)
    over_modes = ("step", "mode")
    found = xr.Dataset(
        {
            "mean": (over_modes, x.mean(0)),
            "predicted_mean": (over_modes, np.stack([np.asarray(one.mean()) for one in laws])),
            "variance": (over_modes, x.var(0, ddof=1)),
            "predicted_variance": (over_modes, np.stack([_variance(one, k)[0] for one in laws])),
            "buffer_variance": ("mode", buffers.var(0, ddof=1)),
            "predicted_buffer_variance": ("mode", _variance(laws[-1], k)[1]),
            "square_buffer": whole.mean(),
            "square_buffer_error": whole.std(ddof=1) / np.sqrt(number),
            "square_distance": ("step", square.mean(0)),
            "square_distance_error": ("step", square.std(0, ddof=1) / np.sqrt(number)),
            "loss": loss.mean(),
            "loss_error": loss.std(ddof=1) / np.sqrt(number),
            "replicas": number,
            "diverged": int((~alive).sum()),
        },
        coords={"step": steps, "mode": np.arange(1, k + 1)},
    )
    found = found.merge(ways(request, ends.params[:, 0]))
    if law.pilot is None:
        return found
    corrected = law.corrected
    around = np.stack([_variance(corrected.after(int(step)), k)[0] for step in steps])
    others = [_variance(one, k)[0] for one in law.corrected_without_each()]
    return found.assign(
        corrected_variance=(over_modes, around),
        corrected_variance_without=(("pilot", "mode"), np.stack(others)),
        noise_growth=("mode", law.pilot.noise_growth.value),
        curvature_growth=("mode", law.pilot.curvature_growth.value),
    )


def over_corrected(last: xr.Dataset, part: slice = slice(None)) -> tuple[float, float]:
    """Mean over modes of the last variance over that of the corrected law, and its error.

    Of the replicas, whose variances are those of normal laws, and of the pilot's, by jackknife.
    """
    variance = last["variance"].values[part]
    ratio = variance / last["corrected_variance"].values[part]
    others = np.mean(variance / last["corrected_variance_without"].values[:, part], axis=1)
    of_pilot = np.sqrt((len(others) - 1) * others.var())
    of_replicas = np.sqrt(2 / (int(last["replicas"]) - 1) * np.mean(ratio**2) / ratio.size)
    return float(ratio.mean()), float(np.hypot(of_pilot, of_replicas))


def _variance(law: ModeLaw, k: int) -> tuple[Any, Any]:
    diagonal = np.diagonal(law.joint)
    return diagonal[:k], diagonal[k:]


def groups(k: int) -> dict[str, slice]:
    """Modes 1–4, 5–8, 9–16, 17–32, … up to k: averages over all would hide opposite errors."""
    ends = [0, 4, *(8 * 2**i for i in range(60))]
    cuts = [end for end in ends if end < k] + [k]
    pairs = itertools.pairwise(cuts)
    return {f"{low + 1}–{high}" if high > low + 1 else f"{high}": slice(low, high)
            for low, high in pairs}  # fmt: skip


def told(numbers: xr.Dataset, look: xr.Dataset, request: Request) -> Part:
    """How well the law predicts the spread, and what it means."""
    if "variance" not in numbers:
        return _told_diverged(numbers, request)
    last = numbers.isel(step=-1)
    ratio = (last["variance"] / last["predicted_variance"]).values
    n, k = int(numbers["replicas"]), len(ratio)
    one = np.sqrt(2 / (n - 1))
    mean, error = float(ratio.mean()), float(one * ratio.mean() / np.sqrt(k))
    by_group = [
        f"modes {name}: {ratio[part].mean():.2f} ± "
        f"{one * ratio[part].mean() / np.sqrt(ratio[part].size):.2f}"
        for name, part in groups(k).items()
    ]
    first = numbers.isel(step=0)
    early = (first["variance"] / first["predicted_variance"]).values.mean()
    buffer = (numbers["buffer_variance"] / numbers["predicted_buffer_variance"]).values.mean()
    square, inside = float(last["square_distance"]), float(np.sum(last["variance"]))
    share = inside / square if square > 0 else 0.0
    finding = (
        f"{n} replicas left the checkpoint together and took {request.steps} steps. Their variance "
        f"along the modes over that of the law, which knows only curvature and noise at the "
        f"checkpoint, is {mean:.2f} ± {error:.2f} on average after the last step "
        f"({'; '.join(by_group)}) and {early:.2f} after {int(first['step'])} steps. The variance "
        f"of the momentum buffer, which follows the noise alone, is {buffer:.2f} times the law's. "
        f"The modes hold {share:.0%} of the replicas' mean square distance from the "
        f"checkpoint, {square:.3g}. Their loss is {float(numbers['loss']):.4g} ± "
        f"{float(numbers['loss_error']):.1g}, at the checkpoint {float(look['loss']):.4g}."
    )
    if int(numbers["diverged"]):
        finding += f" {int(numbers['diverged'])} replicas diverged and are left out."
    words = f"variance along the modes is {mean:.2f} ± {error:.2f} times the law's"
    if "corrected_variance" in numbers:
        mean, error = over_corrected(last)
        growth = {of: float(numbers[f"{of}_growth"].mean()) for of in ("noise", "curvature")}
        finding += (
            f" A few other replicas met {growth['noise']:.2f} times the noise and "
            f"{growth['curvature']:.2f} times the curvature of the checkpoint where they ended: "
            f"with these the ratio is {mean:.2f} ± {error:.2f}, the error of those few included."
        )
        words += f", {mean:.2f} ± {error:.2f} times with noise and curvature where replicas end"
    elif of_batches(request):
        finding += " Of the few replicas that were to tell how noise and curvature change, too few "
        finding += "stayed finite."
    finding += told_ways(numbers)
    word = judged(mean - 1, error, AGREEMENT, "predicted", "off")
    advice = {
        "predicted": "The spread along sharp directions can be computed from one checkpoint; "
        "replicas are not needed for it.",
        "undecided": f"Noise and curvature change as replicas leave, and too few were looked at to "
        f"know by how much within {AGREEMENT:.0%}. A smaller learning rate makes it matter less.",
        "off": "Where the momentum buffer's ratio is off by the same factor, noise changes as "
        "replicas leave: read the law with the noise measured where they end. Where only the "
        "variance is off, curvature does; a smaller learning rate brings both closer to the law. "
        "Where the finding names kinks, smooth units (GELU, softplus) have none.",
    }[word]
    verdict = f"{word}: {words}"
    return Part(
        _TITLE, finding, advice, verdict,
        "exact transient of the linear chain, derived; Liu, Ziyin, Ueda (2021), arXiv:2012.03636",
        (_by_mode(ratio, one), _by_step(numbers, one)),
    )  # fmt: skip


def _told_diverged(numbers: xr.Dataset, request: Request) -> Part:
    """Too few replicas stayed finite."""
    left, lost = int(numbers["replicas"]), int(numbers["diverged"])
    return Part(
        _TITLE,
        f"Of {left + lost} replicas that left the checkpoint {lost} diverged within "
        f"{request.steps} steps: {left} are too few to say how they spread.",
        "Lower the learning rate, or raise the batch size: SGD with these settings is unstable "
        "here, whatever its mean gradient does.",
        f"off: {lost} of {left + lost} replicas diverged",
    )


def _by_mode(ratio: Any, one: float) -> Chart:
    order = np.arange(1, len(ratio) + 1)
    series = (Series("", order, ratio, one * ratio),)
    return Chart("Variance, replicas over law", "mode", "ratio after the last step", series,
                 level=1.0)  # fmt: skip


def _by_step(numbers: xr.Dataset, one: float) -> Chart:
    series = []
    steps = numbers["step"].values
    for name, part in groups(numbers.sizes["mode"]).items():
        seen, law = (
            numbers[of].values[:, part].sum(1) for of in ("variance", "predicted_variance")
        )
        weights = numbers["variance"].values[:, part] / seen[:, None]
        error = one * seen * np.sqrt(np.sum(weights**2, axis=1))
        series += [Series(f"modes {name}", steps, seen, error, group=name),
                   Series("", steps, law, look="line", group=name)]  # fmt: skip
    return Chart("Variance on the way (lines: law)", "steps K", "sum of variances (params²)",
                 tuple(series), "xy")  # fmt: skip
