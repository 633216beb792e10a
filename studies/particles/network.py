"""Two-layer networks of N neurons under mean-field Langevin dynamics."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.comparison.statistics import cluster_mean, cluster_variance
from statsgd.estimate import Estimate
from statsgd.kernels import MeanFieldFunctional, MeanFieldLangevin
from statsgd.laws import MeanFieldLaw
from statsgd.laws.mean_field import two_layer_mean_field
from statsgd.reports import Chart, Series
from studies.measured import claimed, over_data_sets, points, unit

#: Of the network on the diabetes data: weight decay, temperature, step.
DECAY, TEMPERATURE, STEP = 0.05, 0.01, 0.3
#: Weight decay, temperature and target of one tanh neuron read at one input.
SETTINGS = ((1.0, 0.1, 0.8), (0.5, 0.2, 0.5))
WIDTHS = (1, 2, 3, 5, 8, 13, 20, 40, 80)


class Trained(NamedTuple):
    """What networks of one width do."""

    spread: Estimate
    """Variance of the output over draws, mean over unseen patients (targets have variance 1)."""
    error: Estimate
    """Mean squared error on unseen patients of single draws."""
    balance: Estimate
    """⟨x·v⟩ − (η/2)⟨|v|²⟩ over τd, per particle: 1 exactly in the stationary state."""


class Patients(NamedTuple):
    """Measurements, with a constant, and progression; both standardised."""

    inputs: Float[Any, "n 11"]
    targets: Float[Any, " n"]


def diabetes(number: int, seed: int = 0) -> tuple[Patients, Patients]:
    """The first `number` patients of a random order to learn from, and the last 142 to test on."""
    from sklearn.datasets import load_diabetes

    inputs, progression = load_diabetes(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(inputs))
    inputs = (inputs / inputs.std(axis=0))[order]
    targets = ((progression - progression.mean()) / progression.std())[order]
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    return Patients(inputs[:number], targets[:number]), Patients(inputs[-142:], targets[-142:])


def neuron(particle: Any, example: Any) -> Any:
    """One neuron a·tanh(w·z) of x = (a, w)."""
    return particle[0] * jnp.tanh(particle[1:] @ example["inputs"])


def half_squared(output: Any, example: Any) -> Any:
    """½(output − target)²."""
    return 0.5 * (output - example["targets"]) ** 2


def functional(patients: Patients) -> MeanFieldFunctional:
    """The mean loss of a network whose output is the mean over neurons, with weight decay."""
    size = patients.inputs.shape[1] + 1
    return MeanFieldFunctional(neuron, half_squared, patients._asdict(), DECAY, size)


def train(
    width: int, patients: int, draws: int, chains: int, split: int, seed: int, progress: bool
) -> Trained:
    """Networks of one width past burn-in, on `patients` patients of one `split`."""
    seen, unseen = diabetes(patients, split)
    risk = functional(seen)
    rng = np.random.default_rng(seed)
    prior = np.sqrt(TEMPERATURE / DECAY)
    start = prior * rng.standard_normal((chains, width, risk.particle_dimension))
    # A start near zero would sit on a saddle: neurons of one sign with readouts of one sign.
    kernel = MeanFieldLangevin(functional=risk, step_size=STEP, temperature=TEMPERATURE)
    tree = statsgd.sample(
        None, kernel, warmup=int(6 / (STEP * DECAY)), draws=draws, thinning=20, chains=chains,
        seed=seed, starts={"x": start}, progress=progress, diagnose=False, devices=jax.devices(),
    )  # fmt: skip
    particles = tree["posterior"]["x"].values
    outputs, balance = (np.asarray(v, dtype=float) for v in _look(risk, unseen, particles))
    error = np.mean((outputs - unseen.targets) ** 2, axis=2)
    spread = cluster_variance(outputs)
    # Patients share their networks: the error of the mean is that of one mean over patients.
    deviation = np.mean((outputs - outputs.mean(axis=(0, 1))) ** 2, axis=2)
    shared = cluster_mean(deviation[..., None]).standard_error
    return Trained(
        Estimate(np.array([spread.value.mean()]), shared, chains),
        cluster_mean(error[..., None]),
        cluster_mean(balance[..., None]),
    )


@eqx.filter_jit
def _look(risk: Any, unseen: Any, particles: Any) -> Any:
    def one(x):
        outputs = jax.vmap(lambda z: jnp.mean(jax.vmap(neuron, (0, None))(x, {"inputs": z})))
        force = jax.grad(risk.potential)({"x": x})["x"]
        per_particle = jnp.sum(x * force) - 0.5 * STEP * jnp.sum(force**2)
        return outputs(unseen.inputs), per_particle / (TEMPERATURE * x.size)

    return jax.lax.map(jax.vmap(one), jnp.asarray(particles))


def claims(
    widths: Sequence[int], patients: int, draws: int, chains: int, splits: int, margin: float,
    seed: int, progress: bool,
) -> Mapping[str, xr.DataTree]:  # fmt: skip
    """What is claimed of networks."""
    found = {
        width: [
            train(width, patients, draws, chains, split, seed + i + len(widths) * split, progress)
            for split in range(splits)
        ]
        for i, width in enumerate(widths)
    }
    return {
        "free energy": free_energy(margin).to_datatree(gap_chart()),
        "real data": real_data(found, patients, margin).to_datatree(*charts(found)),
    }


def law(setting: tuple[float, float, float], width: int) -> MeanFieldLaw:
    """The law of N tanh neurons on one example."""
    decay, temperature, target = setting
    return two_layer_mean_field([1.0], [target], decay, temperature, width)


def free_energy(margin: float) -> Claim:
    """The particle error needs no log-Sobolev constant."""
    quantities, constants = [], []
    for setting in SETTINGS:
        decay, temperature, _ = setting
        name = f"λ = {decay:g}, τ = {temperature:g}"
        limit = law(setting, 1).limit
        variance = float(np.trace(limit.feature_covariance()))
        exact = -temperature * np.log(law(setting, WIDTHS[-1]).limit_acceptance())
        gaps = np.array([width * law(setting, width).free_energy_gap() for width in WIDTHS])
        largest = float(gaps.max() / (variance / 2))
        quantities += [
            Quantity(f"N × gap over its bound, {name}, largest", largest, 0.0, 1.0, "<"),
            Quantity(f"N × gap, N = {WIDTHS[-1]}, {name}", gaps[-1], 0.0, exact, "=", margin),
        ]
        constants.append(limit.log_sobolev_bound())
    return Claim(
        "The free energy a particle has above the mean-field limit is at most (b/2nN) tr Cov h, "
        "whatever the log-Sobolev constant.",
        "Nitanda (2024), arXiv:2405.15767, for a bound free of the constant; this form is derived",
        quantities,
        f"tanh neurons on one example, by quadrature (no sampling), N = {WIDTHS[0]} to "
        f"{WIDTHS[-1]}; the second numbers are held against (τ/2) ln det(I + Cov h/τ). Bounds on "
        f"the log-Sobolev constants are {constants[0]:.2g} and {constants[1]:.2g}.",
        origin="derived",
        data_sets=1,
        unit="computed",
    )


def real_data(found: Mapping[int, Sequence[Trained]], patients: int, margin: float) -> Claim:
    """Networks of several widths on splits of the diabetes data."""
    widths = np.array(list(found), dtype=float)
    splits = list(zip(*found.values(), strict=True))

    def exponent(trained: Sequence[Trained]) -> Estimate:
        spread = np.array([one.spread.value[0] for one in trained])
        error = np.array([one.spread.standard_error[0] for one in trained])
        return Estimate(*power(widths, spread, error))

    slope = over_data_sets([exponent(trained) for trained in splits])
    scores = {
        width: 1 - np.mean([one.error.value for one in each]) for width, each in found.items()
    }
    widest = max(found)
    return Claim(
        "On real data, too, networks of N neurons settle in one law, around which their outputs "
        "vary as 1/N.",
        "Suzuki, Wu, Nitanda (2023), arXiv:2306.07221",
        [
            claimed("exponent of the variance of outputs in N", slope, "=", -1.0, 2 * margin),
            *(
                claimed(f"energy balance, N = {width}", _first(over_data_sets(
                    [one.balance for one in each])), "=", 1.0, margin)
                for width, each in found.items()
            ),
        ],
        f"Progression of diabetes from ten measurements, {patients} patients to learn from and 142 "
        f"to test on; λ = {DECAY:g}, τ = {TEMPERATURE:g}, step {STEP:g}. Energy balance: "
        "⟨x·v⟩ − (η/2)⟨|v|²⟩ = τd holds exactly in the stationary state of the chain, at any N "
        f"and η. Single networks explain {100 * scores[min(found)]:.0f} % of the variance in "
        f"unseen patients at N = {min(found)} and {100 * scores[widest]:.0f} % at N = {widest}. "
        "Splits are of the same 442 patients, and overlap.",
        origin="reading",
        place="the stationary law and 1/N, read for networks on real data",
        data_sets=len(splits),
        unit=unit(len(splits)),
    )  # fmt: skip


def _first(one: Estimate) -> Estimate:
    return Estimate(one.value[0], one.standard_error[0], one.clusters)


def power(x: Any, y: Any, error: Any) -> tuple[float, float]:
    """Exponent of y in x by weighted least squares on logarithms, and its standard error."""
    weights = (y / error) ** 2
    centred = np.log(x) - np.average(np.log(x), weights=weights)
    information = np.sum(weights * centred**2)
    return float(np.sum(weights * centred * np.log(y)) / information), float(information**-0.5)


def gap_chart() -> Chart:
    """N times the free-energy gap."""
    number = np.array(WIDTHS, dtype=float)
    series = []
    for setting in SETTINGS:
        gaps = [width * law(setting, width).free_energy_gap() for width in WIDTHS]
        name = f"λ = {setting[0]:g}, τ = {setting[1]:g}"
        series.append(Series(name, number, gaps))
        limit = law(setting, 1)
        for label, value in (
            ("limit", -setting[1] * np.log(limit.limit_acceptance())),
            ("bound", np.trace(limit.limit.feature_covariance()) / 2),
        ):
            ends = number[[0, -1]]
            series.append(Series(f"its {label}", ends, [value, value], look="line", group=name))
    title = "Free energy above the limit, N tanh neurons"
    return Chart(title, "number of particles N", "N × gap (loss)", tuple(series), "x")


def charts(found: Mapping[int, Sequence[Trained]]) -> tuple[Chart, Chart]:
    """Spread and error against width, means over splits."""
    widths = np.array(list(found), dtype=float)
    spread, error = (
        [_first(over_data_sets([getattr(one, name) for one in each])) for each in found.values()]
        for name in ("spread", "error")
    )
    line = Series("1/N", widths, float(spread[-1].value) * widths[-1] / widths, look="line")
    x = "number of neurons N"
    return (
        Chart("Variance of the output, diabetes data", x, "variance over draws",
              (points("networks", widths, spread), line), "xy"),
        Chart("Error on unseen patients", x, "mean squared error (variance 1)",
              (points("single networks", widths, error),), "x"),
    )  # fmt: skip
