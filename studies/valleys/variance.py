"""Variance of the weights of a digits network against flatness, i.i.d. and reshuffled batches."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float, PyTree

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.estimate import Estimate
from statsgd.laws import EpochNoiseGaussian, HeavyBallGaussian
from statsgd.laws.minimum import MinimumGaussian, crossover_curvature
from statsgd.laws.networks import log_loss_flatness
from statsgd.measures import jackknife, mean_over_clusters, power_law_fit, trajectories
from statsgd.noise import Minibatch
from statsgd.precision import in_double_precision
from statsgd.reports import Chart, Series
from studies.digits_network import digits_network

SOURCE = "Feng, Tu (2021), arXiv:2001.01678"
EPOCHS = "Kühn, Rosenow (2023), arXiv:2306.05300"
IID, RANDOM, END = "i.i.d.", "reshuffled, any step", "reshuffled, epoch ends"
BURN_IN, SPACING = 3.0, 0.25  # in relaxation times of the flattest direction
DESCENT = statsgd.SGD(1.0, statsgd.noise.NoNoise(), 0.9)  # finds the minimum
GROUPS = 10  # of directions of like curvature, in figures


@dataclasses.dataclass(frozen=True)
class VarianceSettings:
    """SGD at a minimum of a network for digits with wrong labels and weight decay."""

    num_examples: int
    hidden: int
    corrupted: float
    weight_decay: float
    learning_rate: float
    batch_size: int
    replicas: int
    looks: int
    margin: float
    seed: int


class Fluctuations:
    """Variance about one minimum, along every eigenvector of the Hessian that has noise."""

    def __init__(self, settings: VarianceSettings):
        self.settings = s = settings
        self.problem = digits_network(s.num_examples, s.hidden, s.corrupted, s.seed).problem
        self.minimum = self._minimum()
        white = self._sgd("without_replacement")
        shuffled = self._sgd("reshuffle")
        iid_law = HeavyBallGaussian.from_sgd(self.problem, white, self.minimum)
        laws: dict[str, MinimumGaussian] = {
            IID: iid_law,
            RANDOM: EpochNoiseGaussian.from_sgd(self.problem, shuffled, self.minimum, "random"),
            END: EpochNoiseGaussian.from_sgd(self.problem, shuffled, self.minimum, 0),
        }
        noise = iid_law.noise_covariance
        curvatures, vectors = np.linalg.eigh(iid_law.hessian)
        # Shifting all outputs changes nothing: no noise there, and nothing to compare.
        noisy = _along(noise, vectors) > 1e-6 * np.max(_along(noise, vectors))
        self.vectors = vectors[:, noisy]
        self.curvature = curvatures[noisy] + s.weight_decay  # of what is trained
        self.covariance = np.asarray(laws[RANDOM].covariance())
        self.law = {name: _along(law.covariance(), self.vectors) for name, law in laws.items()}
        relaxation = 1 / (s.learning_rate * self.curvature[0])
        batches = s.num_examples // s.batch_size
        first = int(np.ceil(BURN_IN * relaxation / batches)) * batches
        gap = max(int(SPACING * relaxation / batches), 1) * batches
        ends = [first + gap * i for i in range(s.looks)]
        # One step further in the epoch at every look, so that all phases are seen alike.
        anywhere = [end + i % batches for i, end in enumerate(ends)]
        start = np.asarray(laws[END].draw(jax.random.key(s.seed), (s.replicas,)))
        both = sorted({*ends, *anywhere})
        reshuffled = self._positions(shuffled, start, both)
        iid = self._positions(
            white, np.asarray(laws[IID].draw(jax.random.key(s.seed), (s.replicas,))), ends
        )
        self.squares = {
            IID: _squares(iid),
            RANDOM: _squares(reshuffled[:, [both.index(step) for step in anywhere]]),
            END: _squares(reshuffled[:, [both.index(step) for step in ends]]),
        }

    def _sgd(self, sampling: str) -> statsgd.SGD:
        s = self.settings
        noise = Minibatch(s.batch_size, sampling)
        return statsgd.SGD(s.learning_rate, noise, weight_decay=s.weight_decay)

    def _minimum(self) -> PyTree:
        descent = dataclasses.replace(DESCENT, weight_decay=np.float64(self.settings.weight_decay))
        run = statsgd.simulate(
            self.problem, descent, steps=1000, replicas=1, seed=self.settings.seed, progress=False
        )
        ends = run["endpoints"].to_dataset()
        leaves = [ends[name].values[0] for name in self.problem.names]
        return jax.tree.unflatten(jax.tree.structure(self.problem.template), leaves)

    def _positions(
        self, sgd: statsgd.SGD, start: Float[Any, "replica d"], looks: list[int]
    ) -> Float[Any, "replica look k"]:
        tree = statsgd.simulate(
            self.problem,
            sgd,
            steps=looks[-1],
            replicas=len(start),
            seed=self.settings.seed,
            start=jax.vmap(self.problem.unflatten)(start),
            keep=looks,
            progress=False,
        )
        return trajectories(tree, self.problem.names).params @ self.vectors

    @property
    def flatness(self) -> Float[Any, " k"]:
        """Width of every direction, over which the logarithm of the loss rises by one."""
        flat = self.problem.flatten(self.minimum)
        decay = self.settings.weight_decay * float(np.sum(np.asarray(flat) ** 2)) / 2
        return log_loss_flatness(float(self.problem.loss(self.minimum)) + decay, self.curvature)

    def exponent(self, name: str) -> Estimate:
        """ψ of σ² ∝ F^(−ψ), F ∝ h^(−1/2)."""
        return jackknife(self._psi, self.squares[name])

    def predicted_exponent(self, name: str) -> float:
        """The same of the law's variances."""
        return self._psi(self.law[name])

    def _psi(self, variances: Float[Any, " k"]) -> float:
        return 2 * power_law_fit(self.curvature, variances).exponent

    def over_law(self, name: str, directions: Any, law: Any = None) -> Estimate:
        """Variance over the law's, averaged over `directions`."""
        expected = self.law[name] if law is None else law
        return mean_over_clusters((self.squares[name] / expected)[:, directions].mean(axis=1))

    @functools.cached_property
    def quarters(self) -> list[np.ndarray]:
        """Directions by curvature, flat ones first."""
        return np.array_split(np.arange(len(self.curvature)), 4)

    @functools.cached_property
    def curvature_noise(self) -> Float[Any, " k"]:
        """Variance that fluctuating curvature of the batches adds, to leading order: ηc/(2h).

        c = φ uᵀ mean[(H_n − H) P (H_n − H)] u, P the covariance that constant noise gives: white
        from epoch to epoch, since it depends on where the walker is.
        """
        s, problem = self.settings, self.problem

        def scatter(flat, covariance):
            def one(example):
                return jax.hessian(lambda v: problem.example_loss(problem.unflatten(v), example))(
                    flat
                )

            rows = jax.lax.map(one, problem.examples, batch_size=8)
            off = rows - rows.mean(axis=0)
            return (off @ covariance @ off).mean(axis=0)

        flat = np.asarray(problem.flatten(self.minimum), dtype=np.float64)
        found = np.asarray(in_double_precision(scatter, flat, self.covariance))
        n = s.num_examples
        share = (n - s.batch_size) / (s.batch_size * (n - 1))
        return s.learning_rate * share * _along(found, self.vectors) / (2 * self.curvature)


def parts(settings: VarianceSettings) -> Mapping[str, xr.DataTree]:
    """The claims about the variance of weights."""
    found = Fluctuations(settings)
    return {
        "variance, inverse relation": _relation(found),
        "variance, i.i.d.": _iid(found),
        "variance, reshuffling": _reshuffling(found),
        "variance, constant noise": _constant_noise(found),
    }


def _relation(found: Fluctuations) -> xr.DataTree:
    exponents = {name: found.exponent(name) for name in found.squares}
    claim = Claim(
        "In SGD weights vary less in flatter directions, σ² ∝ F^(−ψ) with ψ above one, however "
        "batches are drawn",
        SOURCE,
        [
            Quantity(f"ψ, {name}", float(one.value), float(one.standard_error), 1.0, ">")
            for name, one in exponents.items()
        ],
        why=(
            "One network, one minimum, one batch size. Measured: "
            + ", ".join(
                f"{name} {one.value:.2f} ± {one.standard_error:.2f}"
                for name, one in exponents.items()
            )
            + "; the published exponent is about 4. It is reshuffling that makes the relation: "
            "noise of one epoch sums to zero, and the flatter a direction the longer it remembers. "
            "Noise proportional to the curvature would give ψ = 0 with i.i.d. batches; that of the "
            f"data gives {found.predicted_exponent(IID):.2f}."
        ),
    )
    return claim.to_datatree(_figure(found))


def _figure(found: Fluctuations) -> Chart:
    groups = np.array_split(np.arange(len(found.curvature)), GROUPS)
    width = [float(np.exp(np.mean(np.log(found.flatness[group])))) for group in groups]
    series = []
    for name, squares in found.squares.items():
        inside = [mean_over_clusters(squares[:, group].mean(axis=1)) for group in groups]
        law = [float(np.mean(found.law[name][group])) for group in groups]
        series += [
            Series(
                name,
                width,
                [float(one.value) for one in inside],
                [float(one.standard_error) for one in inside],
                group=name,
            ),
            Series(f"law, {name}", width, law, look="line", group=name),
        ]
    return Chart(
        f"Variance of weights along Hessian eigenvectors, means over {GROUPS} groups of them",
        "flatness F (params)",
        "variance (params²)",
        tuple(series),
        log="xy",
    )


def _iid(found: Fluctuations) -> xr.DataTree:
    psi, margin = found.exponent(IID), found.settings.margin
    ratios = [found.over_law(IID, quarter) for quarter in (found.quarters[0], found.quarters[-1])]
    claim = Claim(
        "With i.i.d. batches variances are those of constant white noise at the minimum",
        "derived",
        [
            Quantity(
                f"variance over law, {which} quarter",
                float(one.value),
                float(one.standard_error),
                1.0,
                margin=margin,
            )
            for which, one in zip(("flattest", "steepest"), ratios, strict=True)
        ]
        + [
            Quantity(
                "ψ − law",
                float(psi.value) - found.predicted_exponent(IID),
                float(psi.standard_error),
                0.0,
                margin=2 * margin,
            )
        ],
        why=(
            f"H and C at the minimum, η = {found.settings.learning_rate:g}; the law has ψ = "
            f"{found.predicted_exponent(IID):.2f}, and SGD {psi.value:.2f}."
        ),
    )
    return claim.to_datatree()


def _reshuffling(found: Fluctuations) -> xr.DataTree:
    s = found.settings
    share = [
        (found.squares[RANDOM] / found.squares[IID].mean(axis=0))[:, quarter].mean(axis=1)
        for quarter in found.quarters
    ]
    white = [found.over_law(IID, quarter) for quarter in found.quarters]
    measured = [mean_over_clusters(one) for one in share]
    errors = [
        float(np.hypot(one.standard_error, one.value * two.standard_error / two.value))
        for one, two in zip(measured, white, strict=True)
    ]
    crossover = float(crossover_curvature(s.learning_rate, s.num_examples // s.batch_size))
    claim = Claim(
        "Reshuffling makes weights fluctuate less in flat directions than in steep ones, against "
        "i.i.d. batches",
        EPOCHS,
        [
            Quantity(
                "reshuffled over i.i.d., flattest quarter",
                float(measured[0].value),
                errors[0],
                float(measured[-1].value),
                "<",
                predicted_error=errors[-1],
            ),
            Quantity(
                "reshuffled over i.i.d., steepest quarter",
                float(measured[-1].value),
                errors[-1],
                1.0,
                "<",
            ),
        ],
        why=(
            "Variance at any step of the epoch over that of i.i.d. batches, by quarters from flat "
            "to steep: "
            + ", ".join(f"{one.value:.3f}" for one in measured)
            + f". The crossover is at h = {crossover:.3g}; curvatures go from "
            f"{found.curvature[0]:.2g} to {found.curvature[-1]:.2g}."
        ),
    )
    return claim.to_datatree()


def _constant_noise(found: Fluctuations) -> xr.DataTree:
    margin = found.settings.margin
    flattest, steepest = found.quarters[0], found.quarters[-1][-4:]
    end = found.over_law(END, flattest)
    extra = found.curvature_noise
    corrected = {
        name: found.over_law(name, flattest, found.law[name] + extra) for name in (RANDOM, END)
    }
    claim = Claim(
        "Reshuffled variances are those of noise that is constant in the weights and "
        "anti-correlated within an epoch",
        EPOCHS,
        [
            Quantity(
                f"variance over law, any step, {which}",
                float(one.value),
                float(one.standard_error),
                1.0,
                margin=margin,
            )
            for which, one in (
                ("four steepest", found.over_law(RANDOM, steepest)),
                ("flattest quarter", found.over_law(RANDOM, flattest)),
            )
        ]
        + [
            Quantity(
                "variance over law, epoch ends, flattest quarter",
                float(end.value),
                float(end.standard_error),
                1.0,
                margin=margin,
            )
        ],
        why=(
            "Curvature differs between batches too, and that noise does not cancel over an epoch: "
            "in flat directions, where the rest does, it is what is left. Counted to leading order "
            "(batch Hessians at the minimum, as if it were white, which overcounts it) the ratios "
            "in the flattest quarter become "
            + ", ".join(f"{one.value:.2f} ({name})" for name, one in corrected.items())
            + "."
        ),
    )
    groups = np.array_split(np.arange(len(found.curvature)), GROUPS)
    place = [float(np.exp(np.mean(np.log(found.curvature[group])))) for group in groups]
    series = []
    for name in found.squares:
        ratios = [found.over_law(name, group) for group in groups]
        values, errors = [one.value for one in ratios], [one.standard_error for one in ratios]
        series.append(Series(name, place, values, errors, group=name))
        if name != IID:
            more = [float(np.mean((1 + extra / found.law[name])[group])) for group in groups]
            series.append(
                Series(f"with curvature noise, {name}", place, more, look="line", group=name)
            )
    chart = Chart(
        "Variance over the law of constant noise",
        "curvature h + λ (loss/params²)",
        "ratio",
        tuple(series),
        log="xy",
        level=1.0,
    )
    return claim.to_datatree(chart)


def _along(covariance: Any, vectors: Float[Any, "d k"]) -> Float[Any, " k"]:
    return np.einsum("ik,ij,jk->k", vectors, np.asarray(covariance), vectors)


def _squares(positions: Float[Any, "replica look k"]) -> Float[Any, "replica k"]:
    """Squared deviations from the mean of all runs at the same step, averaged over looks."""
    off = positions - positions.mean(axis=0)
    return (off**2).mean(axis=1) * len(positions) / (len(positions) - 1)
