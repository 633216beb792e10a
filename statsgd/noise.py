"""Gradient-noise models, under the short name users write: `statsgd.noise.Minibatch(16)`."""

from statsgd.dynamics.noise import *  # noqa: F403
from statsgd.dynamics.noise import __all__ as __all__


def __dir__() -> list[str]:
    return sorted(__all__)
