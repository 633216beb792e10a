"""Many interacting particles: their Gibbs law and its mean-field limit."""

from statsgd.laws.mean_field.limit import MeanFieldLimit, log_sobolev_bound, tanh_features
from statsgd.laws.mean_field.minibatches import (
    shared_minibatch_variance,
    variance_reduced_variance,
)
from statsgd.laws.mean_field.particles import MeanFieldLaw, particle_sgd, two_layer_mean_field
from statsgd.laws.mean_field.quadratic import (
    EntropySandwich,
    QuadraticMeanField,
    entropy_sandwich,
)

__all__ = [
    "EntropySandwich",
    "MeanFieldLaw",
    "MeanFieldLimit",
    "QuadraticMeanField",
    "entropy_sandwich",
    "log_sobolev_bound",
    "particle_sgd",
    "shared_minibatch_variance",
    "tanh_features",
    "two_layer_mean_field",
    "variance_reduced_variance",
]


def __dir__() -> list[str]:
    return sorted(__all__)
