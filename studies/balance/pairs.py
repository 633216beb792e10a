"""What single steps and noise do to a symmetry's charge: identities, decay, and Langevin noise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

import statsgd
from statsgd import SGD, noise
from statsgd.comparison import Claim, Quantity
from statsgd.laws.balance import (
    charge,
    charge_trajectory,
    langevin_charge_growth,
    pair_balance_step,
    rescaling_generator,
)
from statsgd.laws.networks import DataMoments
from statsgd.measures import mean_over_clusters
from statsgd.problems import (
    Landscape,
    diagonal_linear_network,
    landscape,
    multilayer_perceptron,
)
from statsgd.reports.charts import Chart, Series
from studies.measured import claimed, observed

BALANCE = "Ziyin, Li, Ueda (2023), arXiv:2308.06671"
SYMMETRY = "Ziyin, Wang, Li, Wu (2024), arXiv:2402.07193"
MAXIMA = "Ziyin, Li, Simon, Ueda (2022), arXiv:2107.11774"
#: A pair of factors (u, w) far from balance.
PAIR = (1.5, 0.5)
GRADIENT_DESCENT, MINIBATCHES = "gradient descent", "minibatches of one"
ISOTROPIC = "isotropic noise of the same trace"


def teacher_data(
    signal: float, seed: int, examples: int = 442
) -> tuple[Float[Any, " n"], Float[Any, " n"]]:
    """x uniform, y = κx + ε with κ = `signal`; exactly E x = 0, E x² = 1, E xε = 0, E ε² = 1."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, examples)
    x = (x - x.mean()) / x.std()
    label_noise = rng.standard_normal(examples)
    label_noise -= label_noise @ x / (x @ x) * x
    return x, signal * x + label_noise / np.sqrt(np.mean(label_noise**2))


def identities(seed: int) -> xr.DataTree:
    """One-step identities on a ReLU network and on a diagonal network, in double precision."""
    rng = np.random.default_rng(seed)
    inputs, targets = rng.normal(size=(24, 3)), rng.normal(size=(24, 2))
    units = 4
    network = multilayer_perceptron(inputs, targets, (units,))
    generators = hidden_unit_generators(network)
    errors = {}
    labels = {}
    for momentum in (0.0, 0.9):
        eta, decay = (0.05, 0.01)[momentum > 0], 0.1
        sgd = SGD(eta, noise.Minibatch(4, "reshuffle"), momentum, decay)
        params, buffers = _record(network, sgd, steps=60, seed=seed)
        worst = 0.0
        for generator in generators:
            exact = charge(params, generator)
            predicted = charge_trajectory(exact[0], buffers[1:], generator, eta, momentum, decay)
            scale = np.max(np.sum(params**2 * np.abs(np.diag(generator)), axis=1))
            worst = max(worst, float(np.max(np.abs(predicted - exact[1:])) / scale))
        errors[momentum] = worst
        labels[momentum] = exact
    pairs = diagonal_linear_network(
        inputs[:, 0], targets[:, 0], 2, 2, np.array([[0.9, 0.2], [0.3, 0.6]])
    )
    params, _ = _record(pairs, SGD(0.1, noise.Minibatch(1)), steps=60, seed=seed)
    u, w = params.reshape(-1, 2, 2)[..., 0], params.reshape(-1, 2, 2)[..., 1]
    ratios = np.stack([(u + w)[:, 0] / (u + w)[:, 1], (u - w)[:, 0] / (u - w)[:, 1]])
    drift = float(np.max(np.abs(ratios / ratios[:, :1] - 1)))
    start = pair_balance_step(u[0], w[0], 0.0, 0.1)
    tolerance = 1e-10
    claim = Claim(
        statement=(
            "Every SGD step moves the charge of a symmetry by the noise of that step alone, "
            "exactly, at any learning rate, for any order of the data, with momentum and decay."
        ),
        source=f"derived, from {BALANCE}",
        quantities=[
            Quantity(
                "largest error of q, ReLU network, no momentum", errors[0.0], 0, 0, "=", tolerance
            ),
            Quantity(
                "largest error of q, ReLU network, momentum 0.9", errors[0.9], 0, 0, "=", tolerance
            ),
            Quantity(
                "largest drift of the ratios of two linear units", drift, 0, 0, "=", tolerance
            ),
        ],
        why=(
            "Sixty steps in double precision on reshuffled minibatches; q of each of the "
            f"{units} hidden units (bias on the incoming side) is computed from the momentum "
            "buffers alone and compared with the parameters. In a linear network of two units "
            "(u₁ ± w₁)/(u₂ ± w₂) stay at "
            f"{start.total[0] / start.total[1]:.4f} and "
            f"{start.difference[0] / start.difference[1]:.4f}."
        ),
        origin="derived",
        data_sets=1,
        unit="computed",
    )
    steps = np.arange(len(labels[0.9]))
    chart = Chart(
        "Charge of one hidden ReLU unit, momentum 0.9",
        "step",
        "q = |incoming|² − |outgoing|²",
        (
            Series("from the parameters", steps[::3], labels[0.9][::3], group="q"),
            Series("from the buffers alone", steps[1:], predicted, look="line", group="q"),
        ),
    )
    return claim.to_datatree(chart)


def hidden_unit_generators(network: Any) -> list[Float[Any, "d d"]]:
    """The rescaling of each hidden unit of a perceptron with one hidden layer."""
    params = network.initial_params(jax.random.key(0))
    d = network.dimension
    tags = network.unflatten(jnp.arange(d, dtype=float))
    first, second = (np.asarray(layer, dtype=int).tolist() for layer in tags["weights"])
    biases = np.asarray(tags["biases"][0], dtype=int).tolist() if "biases" in params else []
    return [
        rescaling_generator(
            d,
            [*incoming, *biases[unit : unit + 1]],
            [outgoing[unit] for outgoing in second],
        )
        for unit, incoming in enumerate(first)
    ]


def _record(problem: Any, sgd: SGD, *, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Flat parameters and momentum buffers of one run at steps 0 … `steps`, in double precision."""
    with jax.enable_x64(True):
        key = jax.random.key(seed)
        state = jax.jit(lambda key: sgd.init(problem, problem.initial_params(key)))(key)
        step = jax.jit(lambda key, state: sgd.step(key, problem, state))
        states = [state]
        for _ in range(steps):
            states.append(step(key, states[-1]))
        flat = [
            [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(part)]) for part in parts]
            for parts in ((state.params, state.momentum_buffer) for state in states)
        ]
    params, buffers = (np.stack(rows) for rows in zip(*flat, strict=True))
    return params, buffers


def pair_claims(
    *, learning_rate: float, time: float, replicas: int, seed: int, margin: float, progress: bool
) -> dict[str, xr.DataTree]:
    """How imbalance moves under gradient descent, minibatches, and noise of Langevin type."""
    problem = diagonal_linear_network(*teacher_data(1.0, seed), 2, 1, np.array([PAIR]))
    moments = DataMoments.of_data(problem.inputs, problem.targets)
    best = float(moments.b2 / moments.b1)
    # Per coordinate, the trace of the minibatch covariance at the balanced minimum.
    variance = 4 * float(moments.noise(best)) * best
    steps = round(time / learning_rate)
    every = max(1, steps // 100)
    mean = mean_loss(moments)
    decay = 0.05
    # Only the isotropic noise spreads q² widely; gradient descent needs no second run.
    kinds = {
        GRADIENT_DESCENT: (mean, noise.NoNoise(), 1, [0.0]),
        MINIBATCHES: (problem, noise.Minibatch(1), replicas, [0.0, decay]),
        ISOTROPIC: (mean, noise.Isotropic(variance), 4 * replicas, [0.0]),
    }
    factors = {}
    for name, (loss, kind, runs, decays) in kinds.items():
        run = statsgd.simulate(
            loss,
            statsgd.grid(SGD(learning_rate, kind), weight_decay=decays),
            steps=steps // every * every,
            replicas=runs,
            seed=seed,
            observe={"factors": _factors},
            observe_at=every,
            progress=progress,
        )
        values = observed(run, "factors")
        first = np.broadcast_to(PAIR, (*values.shape[:2], 1, 2))
        factors[name] = np.concatenate([first, values], axis=2)
    times = learning_rate * every * np.arange(steps // every + 1)
    charges = {name: values[..., 0] ** 2 - values[..., 1] ** 2 for name, values in factors.items()}
    law, whole = _rates(factors[MINIBATCHES], moments, learning_rate, times, decay)
    q = charges[MINIBATCHES]
    measured = -np.log(np.abs(q[:, :, -1] / q[:, :, 0])) / times[-1]
    kept = charges[GRADIENT_DESCENT][0, 0, -1] / charges[GRADIENT_DESCENT][0, 0, 0]
    slowest = 4 * learning_rate * float(moments.delta / moments.a1)
    rows = [mean_over_clusters(row) for row in measured]
    expected = [mean_over_clusters(row) for row in law]
    balance = Claim(
        statement=(
            "SGD removes the imbalance q = u² − w² of two factors exponentially, at the rate "
            "T Var[dℓ/d(uw)] + 2λ, while gradient descent keeps it."
        ),
        source=BALANCE,
        quantities=[
            *(
                claimed(f"decay rate of |q|, λ = {strength:g}", row, "=", prediction, margin)
                for strength, row, prediction in zip((0.0, decay), rows, expected, strict=True)
            ),
            claimed(
                "decay rate of |q|, λ = 0, finite steps included",
                rows[0],
                "=",
                mean_over_clusters(whole[0]),
                margin,
            ),
            claimed(
                "decay rate against the least noise of any slope, 4TΔ/a1", rows[0], ">", slowest
            ),
            Quantity("q kept by gradient descent", kept, 0, 1.0, "=", margin),
        ],
        why=(
            f"η = T = {learning_rate:g}, from q = 2 for a time t = ηk of {times[-1]:g}. The "
            "prediction uses Var[dℓ/d(uw)] = 4g(f) along each run; g changes with the slope f, so "
            "the decay is exponential once f has settled. A finite step adds the square of the "
            "mean gradient, T E[dℓ/d(uw)]²."
        ),
        origin="source",
        place="the law of balance and its scalar corollary",
        data_sets=1,
        unit="runs",
    )
    lines = tuple(
        Series(name, times, np.median(charge[0], axis=0), look="line")
        for name, charge in charges.items()
        if name != ISOTROPIC
    )
    growth = mean_over_clusters(charges[ISOTROPIC][0, :, -1] ** 2)
    squares = np.sum(factors[ISOTROPIC][0] ** 2, axis=-1)
    tau = learning_rate * variance / 2
    integral = np.cumsum((squares[:, 1:] + squares[:, :-1]) / 2 * np.diff(times), axis=1)
    predicted = langevin_charge_growth(2.0, tau, integral)
    final = mean_over_clusters(predicted[:, -1])
    sgd_end = mean_over_clusters(q[0, :, -1] ** 2)
    langevin = Claim(
        statement=(
            "Isotropic noise of the same strength does the opposite of SGD: it drives the factors "
            "apart without end, E q² = q₀² + 8τ∫E(u² + w²)dt."
        ),
        source=f"{BALANCE}, formula derived",
        quantities=[
            claimed("E q² under isotropic noise", growth, "=", final, 2 * margin),
            claimed("E q² under isotropic noise against the start", growth, ">", 4.0),
            claimed("E q² under minibatch noise against the start", sgd_end, "<", 4.0),
        ],
        why=(
            "Both noises have the same trace at the balanced minimum "
            f"(c = {variance:.3g}, τ = {tau:.3g}); only that of minibatches knows the symmetry. "
            "The Gibbs law of this loss is improper without weight decay."
        ),
        origin="derived",
        data_sets=1,
        unit="runs",
    )
    spread = np.mean(charges[ISOTROPIC][0] ** 2, axis=0)
    shown = Chart(
        "Imbalance of two factors over time",
        "time t = ηk",
        "median of q = u² − w²",
        (
            *lines,
            Series("law of balance", times, 2 * np.exp(-expected[0].value * times), look="line"),
        ),
    )
    squared = Chart(
        "Mean square imbalance",
        "time t = ηk",
        "E q²",
        (
            Series("isotropic noise", times[::5], spread[::5], group="isotropic"),
            Series(
                "q₀² + 8τ∫E(u² + w²)dt",
                times[1:],
                predicted.mean(0),
                look="line",
                group="isotropic",
            ),
            Series("minibatches", times[::5], np.mean(q[0] ** 2, axis=0)[::5]),
        ),
    )
    return {
        "decay of imbalance": balance.to_datatree(shown),
        "Langevin noise": langevin.to_datatree(squared),
    }


def _rates(
    factors: Float[Any, "c n t 2"],
    moments: DataMoments,
    noise_scale: float,
    times: Float[Any, " t"],
    decay: float,
) -> tuple[Float[Any, "c n"], Float[Any, "c n"]]:
    """T⟨Var G⟩ + 2λ and T⟨E G²⟩ + 2λ of every run, G = dℓ/d(uw), ⟨·⟩ the mean over its time."""
    slopes = factors[..., 0] * factors[..., 1]
    variance = 4 * moments.noise(slopes)
    squared_mean = 4 * (float(moments.b1) * slopes - float(moments.b2)) ** 2
    decays = 2 * np.array([0.0, decay])[:, None]
    means = [
        np.trapezoid(values, times, axis=-1) / times[-1]
        for values in (variance, variance + squared_mean)
    ]
    return noise_scale * means[0] + decays, noise_scale * means[1] + decays


def mean_loss(moments: DataMoments) -> Landscape:
    """The mean loss of a pair, b1(uw)² − 2b2 uw: cheaper than the mean over all examples."""
    b1, b2 = float(moments.b1), float(moments.b2)

    def loss(params: Float[Any, "1 2"]) -> Float[Any, ""]:
        slope = params[0, 0] * params[0, 1]
        return b1 * slope**2 - 2 * b2 * slope

    return landscape(loss, np.array([PAIR]))


def _factors(params: Float[Any, "1 2"]) -> Float[Any, " 2"]:
    return params[0]
