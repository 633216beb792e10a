"""Where networks come to rest on the orbits of their symmetries: balanced noise, not norms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float, PyTree

import statsgd
from statsgd import SGD, noise
from statsgd.comparison import Claim
from statsgd.laws.balance import linear_network_equilibrium
from statsgd.measures import jackknife, mean_over_runs
from statsgd.problems import linear_network, multilayer_perceptron
from statsgd.reports.charts import Chart, Series
from studies.balance.pairs import BALANCE, SYMMETRY
from studies.measured import claimed, observed, over_data_sets, unit

INPUT_COVARIANCE = np.diag([1.0, 0.25])
LABEL_COVARIANCE = np.diag([0.25, 0.0625])
#: Hidden units of the ReLU network.
UNITS = 8
TARGET = np.array([[1.0, 0.3], [-0.2, 0.8]])


def linear_network_claim(
    *, learning_rate: float, steps: int, replicas: int, seed: int, margin: float, progress: bool
) -> xr.DataTree:
    """A two-layer linear network from two starts far apart on the orbit of its minimum."""
    # Sixteen examples with exactly the stated covariances.
    signs = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1).T
    inputs = signs[:, :2] * np.sqrt(np.diag(INPUT_COVARIANCE))
    labels = signs[:, 2:] * np.sqrt(np.diag(LABEL_COVARIANCE))
    problem = linear_network(inputs, inputs @ TARGET.T + labels, (2,))
    left, s, right = np.linalg.svd(TARGET)
    first, second = np.sqrt(s)[:, None] * right, left * np.sqrt(s)  # equal norms
    scale = np.where(np.arange(replicas) % 2, 1.5, 1 / 1.5)[:, None, None]
    every = steps // 40
    run = statsgd.simulate(
        problem,
        SGD(learning_rate, noise.Minibatch(1)),
        steps=40 * every,
        replicas=replicas,
        seed=seed,
        start={"weights": [first * scale, second / scale]},
        observe={"outgoing": _outgoing, "incoming": _incoming},
        observe_at=every,
        progress=progress,
    )
    w, u = linear_network_equilibrium(INPUT_COVARIANCE, LABEL_COVARIANCE, TARGET)
    exact = {"outgoing": np.linalg.eigvalsh(u.T @ u), "incoming": np.linalg.eigvalsh(w @ w.T)}
    spectra = {name: observed(run, name) for name in exact}
    late = {name: values[:, 25:] for name, values in spectra.items()}
    equal = np.sort(s)
    quantities, gaps = [], []
    for name, matrix in (("outgoing", "UᵀU"), ("incoming", "WWᵀ")):
        for index, word in enumerate(("smaller", "larger")):
            value = mean_over_runs(late[name][..., index])
            law = float(exact[name][index])
            quantities.append(
                claimed(f"{word} eigenvalue of {matrix}", value, "=", law, 0.5 * margin)
            )
            gaps.append(f"{value.value / equal[index]:.2f}")
    for index, word in enumerate(("small", "large")):
        trace = mean_over_runs(late["outgoing"][index::2].sum(-1))
        quantities.append(
            claimed(
                f"tr UᵀU from {word} incoming weights",
                trace,
                "=",
                float(exact["outgoing"].sum()),
                0.5 * margin,
            )
        )
    claim = Claim(
        statement=(
            "A two-layer linear network trained by SGD has one noise equilibrium, whatever its "
            "start: tr(Σε) WΣxWᵀ = tr(Σx) UᵀΣεU."
        ),
        source=f"{SYMMETRY}; closed form derived",
        quantities=quantities,
        why=(
            f"η = {learning_rate:g}, {40 * every} steps from W, U scaled by 1.5 and 1/1.5 either "
            "way, the last three eighths averaged. Equal norms, the end of gradient descent with "
            f"weight decay, would give ratios of 1 to its spectrum; they are "
            f"{', '.join(gaps)}."
        ),
        origin="source",
        place="one noise equilibrium on every orbit; its closed form is derived",
        data_sets=1,
        unit="runs",
    )
    steps_at = every * np.arange(1, 41)
    smaller = spectra["incoming"][..., 0]
    starts = tuple(
        Series(f"{word} incoming weights at the start", steps_at, smaller[offset::2].mean(0))
        for offset, word in ((0, "small"), (1, "large"))
    )
    levels = tuple(
        Series(name, steps_at, np.full(len(steps_at), level), look="line")
        for name, level in (
            ("noise equilibrium", float(exact["incoming"][0])),
            ("equal norms", float(equal[0])),
        )
    )
    chart = Chart(
        "Incoming weights of a linear network",
        "step",
        "smaller eigenvalue of WWᵀ",
        (*starts, *levels),
    )
    return claim.to_datatree(chart)


def _outgoing(params: PyTree) -> Float[Any, " h"]:
    """Spectrum of UᵀU."""
    return jnp.linalg.eigvalsh(params["weights"][1].T @ params["weights"][1])


def _incoming(params: PyTree) -> Float[Any, " h"]:
    """Spectrum of WWᵀ."""
    return jnp.linalg.eigvalsh(params["weights"][0] @ params["weights"][0].T)


def relu_run(
    *, learning_rate: float, steps: int, replicas: int, seed: int, progress: bool
) -> tuple[Float[Any, "replica 40 4"], int]:
    """Traces of noise and squared norms, incoming and outgoing, at 40 looks; and runs diverged.

    Of a ReLU network that copies inputs through noise, from two starts on one orbit.
    """
    inputs, targets = noisy_copies(seed)
    problem = multilayer_perceptron(inputs, targets, (UNITS,), biases=False)
    base = problem.initial_params(jax.random.key(seed + 3))
    scale = np.where(np.arange(replicas) % 2, 1.5, 1 / 1.5)[:, None, None]
    start = {
        "weights": [np.asarray(base["weights"][0]) * scale, np.asarray(base["weights"][1]) / scale]
    }
    example_noise = noise.Minibatch(1)

    def traces(params: PyTree) -> Float[Any, " 4"]:
        """Noise and squared norm on the incoming and outgoing side, summed over units."""
        variances = problem.unflatten(jnp.diag(example_noise.covariance(problem, params)))
        layers = [*variances["weights"], *(weight**2 for weight in params["weights"])]
        return jnp.stack([jnp.sum(layer) for layer in layers])

    every = steps // 40
    run = statsgd.simulate(
        problem,
        SGD(learning_rate, noise.Minibatch(1)),
        steps=40 * every,
        replicas=replicas,
        seed=seed,
        start=start,
        observe={"traces": traces},
        observe_at=every,
        progress=progress,
    )
    return observed(run, "traces"), int(run["run"].to_dataset()["diverged"].sum())


def relu_claims(
    *, splits: int, learning_rate: float, steps: int, replicas: int, seed: int, margin: float,
    progress: bool,
) -> dict[str, xr.DataTree]:  # fmt: skip
    """Balance of noise and of norms of a ReLU network, on data and starts of several seeds."""
    every = steps // 40
    runs = [
        relu_run(learning_rate=learning_rate, steps=steps, replicas=replicas, seed=seed + 10 * i,
                 progress=progress)
        for i in range(splits)
    ]  # fmt: skip
    lost = sum(one for _, one in runs)
    lates = [values[:, 30:].mean(1) for values, _ in runs]
    noise_gap, *noise_gaps = (
        over_data_sets([jackknife(relative_gap, late[part, :2]) for late in lates])
        for part in (slice(None), slice(0, None, 2), slice(1, None, 2))
    )
    norm_gap = over_data_sets([jackknife(relative_gap, late[:, 2:]) for late in lates])
    values, _ = runs[0]
    first = [relative_gap(values[side::2, 0, :2].mean(0)) for side in (0, 1)]
    norms_over = np.mean([late[:, 2].sum() / late[:, 3].sum() for late in lates])
    shared = (
        f"3 inputs, {UNITS} hidden ReLU units, 3 outputs, y = x + ε, η = {learning_rate:g}, "
        f"batches of one, {40 * every} steps, last quarter averaged over {replicas} runs on each "
        f"of {splits} data sets ({lost} diverged). "
    )
    balanced = Claim(
        statement=(
            "SGD brings a ReLU network to where the gradient noise of incoming and outgoing "
            "weights is equal in trace."
        ),
        source=f"{SYMMETRY}; {BALANCE}",
        quantities=[
            claimed("relative gap of the noise traces, last quarter", noise_gap, "=", 0.0, margin),
            *(
                claimed(f"the same from {word} incoming weights", gap, "=", 0.0, 2 * margin)
                for word, gap in zip(("small", "large"), noise_gaps, strict=True)
            ),
        ],
        why=(
            f"{shared}At the first look the gaps were, on the first, {first[0]:.2f} and "
            f"{first[1]:.2f}. What is left decays with the charges, and the rest of the "
            "network keeps moving meanwhile."
        ),
        origin="source",
        place="the noise equilibrium; the experiment on a ReLU network",
        data_sets=splits,
        unit=unit(splits),
    )
    norms = Claim(
        statement=(
            "SGD equalises the norms of incoming and outgoing weights of a ReLU network, as it "
            "does for two scalar factors."
        ),
        source=f"scalar corollary of {BALANCE}, read for vectors",
        quantities=[
            claimed("relative gap of the squared norms, last quarter", norm_gap, "=", 0.0, margin),
        ],
        why=(
            f"{shared}The noise is balanced (gap {noise_gap.value:.3f}), the norms are not: "
            f"|incoming|² is {norms_over:.2f} times |outgoing|². Equal "
            "norms follow from equal noise only for scalar pairs or isotropic inputs and outputs."
        ),
        origin="reading",
        place="the scalar corollary of the law of balance, read for vectors",
        data_sets=splits,
        unit=unit(splits),
    )
    at = every * np.arange(1, 41)
    chart = Chart(
        "Balance of noise and of norms in a ReLU network, first data set",
        "step",
        "relative gap, 2(in − out)/(in + out)",
        tuple(
            Series(
                f"{what}, {word} incoming",
                at,
                relative_gap(values[offset::2, :, i : i + 2].mean(0)),
                look="line" if i else "points",
            )
            for i, what in ((0, "noise"), (2, "squared norm"))
            for offset, word in ((0, "small"), (1, "large"))
        ),
        level=0.0,
    )
    return {
        "noise balance of a ReLU network": balanced.to_datatree(chart),
        "norm balance of a ReLU network": norms.to_datatree(),
    }


def relative_gap(sides: Float[Any, "... 2"]) -> Any:
    """2(a − b)/(a + b) of the last two entries."""
    return 2 * (sides[..., 0] - sides[..., 1]) / (sides[..., 0] + sides[..., 1])


def noisy_copies(seed: int, examples: int = 512) -> tuple[Float[Any, "n d"], Float[Any, "n d"]]:
    """Inputs of unequal scales, and targets that are the inputs plus noise of unequal strength."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((examples, 3)) * [2.0, 1.0, 0.5]
    return inputs, inputs + rng.standard_normal((examples, 3)) * [1.0, 0.5, 0.1]
