"""What is measured on either side."""

from statsgd.dynamics.noise import noise_covariance
from statsgd.problems import hessian

__all__ = ["hessian", "noise_covariance"]
