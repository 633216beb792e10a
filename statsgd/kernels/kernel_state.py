"""What a kernel carries from step to step, and what a step reports."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from jaxtyping import Bool, Float, Int, Key, PyTree

from statsgd.kernels.warmup import Adaptation

type Potential = Callable[[PyTree], Float[Any, ""]]


class CoreState(Protocol):
    """What every kernel's own state has, whatever else."""

    @property
    def position(self) -> PyTree:
        """Position in unconstrained space."""

    @property
    def potential(self) -> Float[Any, ""]:
        """−log density there."""


class Info(NamedTuple):
    """What one step reports."""

    accept_prob: Float[Any, ""]
    """Acceptance probability of the proposal; one for kernels without a test."""
    diverging: Bool[Any, ""]
    """Whether the proposal had a potential or gradient that is not finite."""


class KernelState(NamedTuple):
    """State under `numpyro.infer.MCMC`; fields with array values can be `extra_fields`."""

    i: Int[Any, ""]
    z: PyTree
    potential_energy: Float[Any, ""]
    energy: Float[Any, ""]
    """Potential plus kinetic energy; the potential alone where there is no velocity."""
    accept_prob: Float[Any, ""]
    diverging: Bool[Any, ""]
    step_size: Float[Any, ""]
    core: Any
    """The kernel's own state, a `CoreState`."""
    adaptation: Adaptation
    num_warmup: Int[Any, ""]
    rng_key: Key[Any, "*chains"]
