"""What an ensemble runs: a rule that moves parameters one step at a time."""

import abc
from typing import Any, Protocol

import equinox as eqx
from jaxtyping import Int, PRNGKeyArray, PyTree

from statsgd.arguments import means
from statsgd.display import html, spoken
from statsgd.problems import Problem


class DynamicsState(Protocol):
    """What every state of a dynamics holds, whatever else it carries."""

    @property
    def params(self) -> PyTree:
        """Parameters."""

    @property
    def step(self) -> Int[Any, ""]:
        """Number of steps taken."""


class Dynamics(eqx.Module):
    """A rule of motion. Pure, so that `simulate` can batch it over replicas and settings.

    A parameter that has become infinite or NaN must stay so under `step`: `simulate` looks for
    divergence every few steps only, and goes back for the step at which it began.
    """

    def __repr__(self) -> str:
        return spoken(self)

    def _repr_html_(self) -> str:
        return html(self)

    @abc.abstractmethod
    def init(self, problem: Problem, params: PyTree) -> Any:
        """State at rest at `params`: a NamedTuple with at least `params` and `step`.

        What else it holds becomes a group of the result, from which a run can go on.
        """

    @abc.abstractmethod
    def step(self, key: PRNGKeyArray, problem: Problem, state: Any) -> Any:
        """State one step later. `key` is the key of the run, the same at every step."""

    def require_heavy_ball(self) -> None:
        """Raise `ValueError` unless this is heavy-ball SGD, which most laws speak about."""
        raise ValueError(
            f"sgd must be SGD here, got {type(self).__name__}; of optimisers of optax "
            "laws.LinearOptimiserGaussian and laws.AdaptiveGaussian speak, by from_dynamics, and "
            "laws.applicable says which do"
        )

    def check_steps(self, problem: Problem, first: int, last: int) -> None:
        """Raise `ValueError` if this rule stands still for half the steps between these."""

    def check(self, problem: Problem, *, allow_unstable: bool = False) -> None:
        """Raise `ValueError` if this rule cannot run on `problem`, or is known to diverge."""


means("sgd", Dynamics, "a statsgd.SGD or other dynamics")
