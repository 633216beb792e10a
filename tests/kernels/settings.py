"""How the battery runs each kernel: one line for a new one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from statsgd.kernels import KERNELS, MALA, ReplicaExchange


class Setting(NamedTuple):
    """Constructor options, and what is known of the bias at the battery's step."""

    step_size: float = 0.5
    options: dict[str, Any] = {}  # noqa: RUF012
    #: Relative error allowed on non-Gaussian coordinates; zero for exact kernels.
    tolerance: float = 0.0
    #: (step size, Pλ) -> variance times λ/T on a quadratic; None if not known.
    gaussian_variance: Callable[[float, np.ndarray], np.ndarray] | None = lambda h, k: 1.0 + 0 * k
    #: Whether the kernel takes a preconditioner.
    preconditioned: bool = True
    #: Steps times step size of the battery, in relaxation times of the unimodal coordinates.
    relaxations: float = 12.0
    #: How it is built, where not by its own constructor on any model or potential.
    make: Callable[..., Any] | None = None


def rippled(position):
    """A diagonal D(θ) that is nowhere constant, in the units of the battery's target."""
    flat, _ = ravel_pytree(position)
    scales = jnp.asarray(PRECONDITIONER, flat.dtype) if flat.size == len(PRECONDITIONER) else 1.0
    return scales * (1 + 0.4 * jnp.sin(flat / jnp.sqrt(scales)))


def ladder(*model, temperature=1.0, **options):
    """Replica exchange over MALA whose cold rung has this temperature."""
    inner = MALA(*model, temperature=temperature, **options)
    return ReplicaExchange(inner, temperatures=temperature * RUNGS)


RUNGS = np.array([1.0, 2.0])

#: Curvatures 1 and 100, then a skewed law, Student-t, mild funnel (2) and two wells.
PRECONDITIONER = np.array([1.0, 0.01, 1.0, 1.0, 1.0, 1.0, 0.3])

SETTINGS = {
    "ULA": Setting(0.1, tolerance=0.12, gaussian_variance=lambda h, k: 1 / (1 - h * k / 2)),
    "MALA": Setting(),
    "BAOAB": Setting(0.4, tolerance=0.05),
    "OBABO": Setting(0.8),
    "MeanFieldLangevin": Setting(
        0.1, tolerance=0.12, gaussian_variance=lambda h, k: 1 / (1 - h * k / 2)
    ),
    "SGLD": Setting(0.1, tolerance=0.12, gaussian_variance=lambda h, k: 1 / (1 - h * k / 2)),
    "SGWORLD": Setting(0.1, tolerance=0.12, gaussian_variance=lambda h, k: 1 / (1 - h * k / 2)),
    "SGHMC": Setting(
        0.2,
        tolerance=0.05,
        gaussian_variance=lambda h, k: 2 * (2 - h) / (2 * (2 - h) - h**2 * k),
    ),
    "SGNHT": Setting(0.2, tolerance=0.05, gaussian_variance=None),
    "StateDependentLangevin": Setting(
        0.05,
        options={"diffusion": rippled},
        tolerance=0.12,
        gaussian_variance=None,
        preconditioned=False,
    ),
    # Of short memory beside the slow coordinates, of long memory beside the narrow one.
    "PreconditionedSGLD": Setting(
        0.01,
        options={"decay": 0.9, "correction": True},
        tolerance=0.12,
        gaussian_variance=None,
        preconditioned=False,
    ),
    # Only the cold rung starts in its law: the others need longer to come to theirs.
    "ReplicaExchange": Setting(relaxations=60.0, make=ladder),
}

#: Options where no coordinate is narrow: longer steps, and a memory short beside all of them.
BRISK = {"PreconditionedSGLD": {"step_size": 0.1, "decay": 0.5}}

#: Kernels that leave their target invariant at any step.
EXACT = [name for name, setting in SETTINGS.items() if setting.tolerance == 0]


def build(name, *model, **options):
    """The kernel `name` with its setting's options."""
    setting = SETTINGS[name]
    make = setting.make or KERNELS[name]
    return make(*model, **({"step_size": setting.step_size} | setting.options | options))


def at_temperature(kernel, temperature):
    """The kernel's parameters at a temperature, which may be traced."""
    if "temperatures" in kernel.parameters:
        return kernel.parameters | {"temperatures": temperature * RUNGS}
    return kernel.parameters | {"temperature": temperature}
