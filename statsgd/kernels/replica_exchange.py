"""Replica exchange (parallel tempering): a ladder of temperatures over any Langevin kernel."""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

from statsgd.arguments import positive
from statsgd.kernels.adapter import LangevinKernel
from statsgd.kernels.kernel_state import Info, KernelState, Potential
from statsgd.kernels.registry import register
from statsgd.kernels.stochastic_gradient import StochasticGradientKernel


class Ladder(NamedTuple):
    """One chain at each temperature, and how far its positions have travelled."""

    rungs: KernelState
    """Chains of the inner kernel; leading axis of temperatures, the coldest first."""
    heading: Int[Any, " temperatures"]
    """Of the position at each rung: 1 if it was last at the cold end, −1 at the hot, 0 at none."""
    round_trips: Int[Any, ""]
    """Journeys from the cold to the hot end and back since warm-up, of all positions."""
    swap_accept_prob: Float[Any, " pairs"]
    """Probability of exchange between neighbours at the last step."""

    @property
    def position(self) -> PyTree:
        """Position of the cold chain."""
        return jax.tree.map(lambda leaf: leaf[0], self.rungs.z)

    @property
    def potential(self) -> Float[Any, ""]:
        """Potential of the cold chain."""
        return self.rungs.potential_energy[0]


def swap_probability(
    potentials: Float[Any, " temperatures"], temperatures: Float[Any, " temperatures"]
) -> Float[Any, " pairs"]:
    """min(1, exp[(1/T_k − 1/T_{k+1})(U_k − U_{k+1})]) for neighbours; 0 where undefined."""
    inverse = 1 / temperatures
    log_ratio = (inverse[:-1] - inverse[1:]) * (potentials[:-1] - potentials[1:])
    return jnp.where(jnp.isnan(log_ratio), 0.0, jnp.exp(jnp.minimum(log_ratio, 0.0)))


def swap_order(
    key: PRNGKeyArray, probability: Float[Any, " pairs"], parity: Int[Any, ""]
) -> Int[Any, " temperatures"]:
    """Where each rung takes its position from; pairs (k, k+1) with k ≡ `parity` mod 2 may swap.

    Even and odd pairs take turns: positions then travel the ladder in order of K steps, not K².
    """
    pairs = jnp.arange(len(probability))
    swapped = jax.random.uniform(key, probability.shape) < probability
    swapped &= pairs % 2 == parity
    up, down = jnp.append(swapped, False), jnp.insert(swapped, 0, False)
    return jnp.arange(len(probability) + 1) + up - down


@register
class ReplicaExchange(LangevinKernel):
    """Replica exchange: chains at several temperatures that exchange positions; for many wells.

    At temperature T_k the inner kernel leaves exp(−U/T_k) invariant. After each of its steps
    neighbours k, k+1 exchange positions with probability

        min(1, exp[(1/T_k − 1/T_{k+1})(U_k − U_{k+1})]),

    even and odd pairs in turn, which leaves the product of all these laws invariant. Hot chains
    cross barriers and hand the cold chain positions in other wells. Momenta stay at their
    temperature. Exact if the inner kernel is; the draw is the cold chain.

    **Arguments:** `inner_kernel`, any `LangevinKernel`, which also gives the target and adapts its
    step size at each temperature by itself; its own `temperature` is not used. `temperatures`,
    increasing, unit of the potential: the first is that of the draws (1: the law itself), the last
    should be of the order of the barriers. Geometric ladders with 20–40 % exchanges do well.

    `sample_stats` (and `extra_fields=("core.round_trips", "core.swap_accept_prob")` under
    `numpyro.infer.MCMC`) have `swap_accept_prob` of each pair, `round_trips` since warm-up and
    `round_trip_rate`, their number a step: a ladder without round trips has not mixed.

    Raises `ValueError` for fewer than two temperatures, or if they do not increase.

    Source: Swendsen, Wang (1986); Geyer (1991); Okabe et al. (2001) and Syed et al. (2022),
    arXiv:1905.02939, for deterministic even–odd exchange and round trips.

    >>> import statsgd
    >>> kernel = ReplicaExchange(statsgd.kernels.MALA(step_size=0.1), temperatures=[1.0, 3.0, 9.0])
    >>> kernel.parameters["temperatures"].tolist()
    [1.0, 3.0, 9.0]
    """

    optimal_acceptance: ClassVar[float | None] = None
    exactness: ClassVar[str] = "as exact as its inner kernel"
    citation: ClassVar[str] = "Geyer (1991); Syed et al. (2022), arXiv:1905.02939"

    def __init__(self, inner_kernel: LangevinKernel, *, temperatures: Any):
        if not isinstance(inner_kernel, LangevinKernel):
            raise ValueError(f"inner_kernel must be a LangevinKernel, got {inner_kernel!r}")
        if isinstance(inner_kernel, StochasticGradientKernel):
            raise ValueError(
                "inner_kernel must know its potential for exchanges to be exact, got "
                f"{type(inner_kernel).__name__}, which estimates it"
            )
        if inner_kernel.warmup.shape is not None:
            raise ValueError(
                "inner_kernel must have adapt_preconditioner=None: a preconditioner that is learnt "
                f"belongs to one temperature, got {inner_kernel.warmup.shape!r}"
            )
        ladder = np.asarray(positive("temperatures", temperatures))
        if ladder.ndim != 1 or len(ladder) < 2 or not np.all(np.diff(ladder) > 0):
            raise ValueError(
                f"temperatures must be at least two increasing numbers, got {temperatures!r}"
            )
        super().__init__(
            inner_kernel._model,
            inner_kernel._potential_fn,
            adapt_step_size=False,
            init_strategy=inner_kernel._init_strategy,
        )
        self.inner = copy.copy(inner_kernel)
        self.inner._forget()
        numbers = {k: v for k, v in inner_kernel.parameters.items() if k != "temperature"}
        self.parameters = numbers | {"temperatures": ladder}

    @property
    def structure(self) -> tuple:
        """That of the inner kernel too."""
        return (*super().structure, self.inner.structure)

    @staticmethod
    def core_init(position: PyTree, potential: Potential, parameters: Mapping[str, Any]) -> Any:
        """The inner kernel has the pure core."""
        raise TypeError("ReplicaExchange has no core of its own: use that of its inner kernel")

    @staticmethod
    def core_step(
        key: PRNGKeyArray, state: Any, potential: Potential, parameters: Mapping[str, Any]
    ) -> tuple[Any, Info]:
        """The inner kernel has the pure core."""
        raise TypeError("ReplicaExchange has no core of its own: use that of its inner kernel")

    def report(self, state: KernelState) -> dict[str, Any]:
        """Exchanges and round trips besides what the cold chain reports."""
        ladder: Ladder = state.core
        since = jnp.maximum(state.i - state.num_warmup, 1)
        return super().report(state) | {
            "swap_accept_prob": ladder.swap_accept_prob,
            "round_trips": ladder.round_trips,
            "round_trip_rate": ladder.round_trips / since,
        }

    def _rung(self, temperature: Any) -> LangevinKernel:
        """The inner kernel at one temperature."""
        numbers = {k: v for k, v in self.parameters.items() if k != "temperatures"}
        rung = copy.copy(self.inner)
        rung.parameters = numbers | {"temperature": temperature}
        return rung

    def _temperatures(self, rungs: KernelState) -> Any:
        return jnp.asarray(self.parameters["temperatures"], rungs.potential_energy.dtype)

    def _start(self, key, position, potential, num_warmup) -> KernelState:
        temperatures = jnp.asarray(self.parameters["temperatures"], float)
        number = len(temperatures)
        own_key, keys = key, jax.random.split(jax.random.fold_in(key, 1), number)
        rungs = jax.vmap(lambda k, t: self._rung(t)._start(k, position, potential, num_warmup))(
            keys, temperatures
        )
        ladder = Ladder(
            rungs,
            jnp.zeros(number, jnp.int32).at[0].set(1),
            jnp.zeros((), jnp.int32),
            jnp.zeros(number - 1, rungs.potential_energy.dtype),
        )
        return self._outside(ladder, own_key)

    def _advance(self, state: KernelState, potential: Potential) -> KernelState:
        next_key, key = jax.random.split(state.rng_key)
        ladder: Ladder = state.core
        temperatures = self._temperatures(ladder.rungs)
        rungs = jax.vmap(lambda one, t: self._rung(t)._advance(one, potential))(
            ladder.rungs, temperatures
        )
        probability = swap_probability(rungs.potential_energy, temperatures)
        order = swap_order(key, probability, state.i % 2)
        heading = ladder.heading[order]
        warm = state.i >= state.num_warmup
        trips = jnp.where(warm, ladder.round_trips + (heading[0] == -1), 0)
        heading = heading.at[0].set(1).at[-1].set(-1)
        moved = Ladder(self._exchange(rungs, order), heading, trips, probability)
        return self._outside(moved, next_key)

    def _refresh(self, state: KernelState, potential: Potential) -> KernelState:
        ladder: Ladder = state.core
        rungs = jax.vmap(lambda one, t: self._rung(t)._refresh(one, potential))(
            ladder.rungs, self._temperatures(ladder.rungs)
        )
        return self._outside(ladder._replace(rungs=rungs), state.rng_key)

    def _exchange(self, rungs: KernelState, order: Int[Any, " temperatures"]) -> KernelState:
        def take(tree):
            return jax.tree.map(lambda leaf: leaf[order], tree)

        going = {
            name: take(value)
            for name, value in rungs.core._asdict().items()
            if name not in self.inner.anchored
        }
        potential = take(rungs.potential_energy)
        # The kinetic part of the energy stays, as velocities do.
        energy = rungs.energy + (potential - rungs.potential_energy)
        if "energy" in going:
            going["energy"] = energy
        return rungs._replace(
            z=take(rungs.z),
            potential_energy=potential,
            energy=energy,
            core=rungs.core._replace(**going),
        )

    def _outside(self, ladder: Ladder, key: Any) -> KernelState:
        """What a kernel's state shows is that of the cold chain."""
        cold = jax.tree.map(lambda leaf: leaf[0], ladder.rungs)
        return cold._replace(core=ladder, adaptation=(), rng_key=key)
