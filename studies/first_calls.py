"""What first calls cost: seconds and programs of every function that users start with.

Each is called twice in a fresh process, whose compilations are counted and timed by JAX's own
events: once without JAX's persistent compilation cache, once to fill a new one, and once with it
filled. What is left of a first call is tracing, imports, and the work itself.

    python -m studies.first_calls --functions simulate compare
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import statsgd
from statsgd import kernels, laws, measures, noise, problems
from studies.compilations import compilations
from studies.networks.convolutions import convolutional
from studies.tables import markdown


def run(functions: Sequence[str]) -> pd.DataFrame:
    """One row a function: seconds of the first call, those of them in which XLA compiled, seconds
    of the second, programs, and with the cache."""
    rows = []
    for name in functions:
        plain = in_a_process(name, {"JAX_ENABLE_COMPILATION_CACHE": "false"})
        with tempfile.TemporaryDirectory() as folder:
            cached = {
                "JAX_ENABLE_COMPILATION_CACHE": "true",
                "JAX_COMPILATION_CACHE_DIR": folder,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
            in_a_process(name, cached)
            filled = in_a_process(name, cached)
        rows.append(
            (f"`{name}`", _seconds(plain["seconds"][0]), _seconds(plain["compiling"][0]),
             _seconds(plain["seconds"][1]), *plain["programs"], _seconds(filled["seconds"][0]))
        )  # fmt: skip
    columns = ["function", "first call (s)", "of it compiling (s)", "second (s)", "programs",
               "new in the second", "first call, cache filled (s)"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _seconds(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


def in_a_process(name: str, environment: dict[str, str]) -> dict[str, Any]:
    """Seconds and programs of two calls in a process of their own."""
    command = [sys.executable, "-m", "studies.first_calls", "--once", name]
    known = os.environ | environment
    told = subprocess.run(command, env=known, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(told.stdout.splitlines()[-1])


def once(name: str) -> dict[str, Any]:
    """Of a first and a second call in this process: seconds, seconds in XLA, and programs."""
    call = CALLS[name]()
    taken: dict[str, Any] = {"seconds": [], "compiling": [], "programs": []}
    for _ in range(2):
        with compilations() as compiled:
            begin = time.perf_counter()
            call()
            taken["seconds"].append(time.perf_counter() - begin)
            taken["compiling"].append(compiled.seconds)
            taken["programs"].append(compiled.programs)
    return taken


# What is called; a function prepares what it is given, which does not count.


def _regression() -> tuple[Any, Any]:
    """Ten parameters, 200 examples, and heavy-ball SGD on them."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 10))
    problem = problems.linear_regression(inputs, inputs.sum(axis=1) + rng.normal(size=200))
    return problem, statsgd.SGD(0.02, noise.Minibatch(8), momentum=0.5)


def _network() -> tuple[Any, Any, Any]:
    """A perceptron of 97 parameters, SGD, and a point."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(64, 4))
    problem = problems.multilayer_perceptron(inputs, np.tanh(inputs[:, :1]), hidden=[16])
    return problem, statsgd.SGD(0.02, noise.Minibatch(8)), problem.initial_params(jax.random.key(0))


def _simulate() -> Callable[[], Any]:
    problem, sgd = _regression()
    options: Any = {"steps": 500, "replicas": 200, "seed": 0, "progress": False}
    return lambda: statsgd.simulate(problem, sgd, **options)


def _simulate_network() -> Callable[[], Any]:
    problem, sgd, _ = _network()
    options: Any = {"steps": 100, "replicas": 20, "seed": 0, "progress": False}
    return lambda: statsgd.simulate(problem, sgd, **options)


def _simulate_convolutional() -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    pixels = rng.uniform(size=(64, 28, 28, 1)).astype(np.float32)
    data = problems.Images(pixels, rng.integers(0, 10, 64).astype(np.int32))
    problem, sgd = convolutional(data, 4, 0), statsgd.SGD(0.01, noise.Minibatch(8))
    options: Any = {"steps": 100, "replicas": 4, "seed": 0, "progress": False}
    return lambda: statsgd.simulate(problem, sgd, **options)


def _from_sgd() -> Callable[[], Any]:
    problem, sgd = _regression()
    return lambda: laws.HeavyBallGaussian.from_sgd(problem, sgd).covariance()


def _line() -> Callable[[], Any]:
    return lambda: laws.Gibbs(problems.quartic_wells(), 0.1)


def _another_line() -> Callable[[], Any]:
    laws.Gibbs(problems.quartic_wells(), 0.1)
    problem = problems.landscape(lambda params: jnp.sum(jnp.cosh(params)), np.ones(1))
    return lambda: laws.Gibbs(problem, 0.1)


def _sample() -> Callable[[], Any]:
    law = laws.Gibbs(problems.quadratic(np.diag(np.linspace(1.0, 4.0, 10))), 0.1)
    options: Any = {"warmup": 200, "draws": 200, "chains": 4, "seed": 0, "progress": False}
    return lambda: statsgd.sample(law, kernels.MALA(), diagnose=False, **options)


def _compare() -> Callable[[], Any]:
    points = np.random.default_rng(0).normal(size=(1000, 10))
    law = laws.GaussianLaw(np.zeros(10), np.eye(10))
    return lambda: statsgd.compare(points, law, seed=0).verdict


def _applicable() -> Callable[[], Any]:
    problem, sgd = _regression()
    return lambda: laws.applicable(problem, sgd, progress=False)


def _minimise() -> Callable[[], Any]:
    problem, _, _ = _network()
    return lambda: statsgd.minimise(problem, max_iterations=20)


def _landscape() -> Callable[[], Any]:
    problem = problems.quartic_wells()
    return lambda: statsgd.minimise(problem)


def _hessian() -> Callable[[], Any]:
    problem, _, params = _network()
    return lambda: statsgd.hessian(problem, params)


def _top_eigenpairs() -> Callable[[], Any]:
    problem, _, params = _network()
    return lambda: measures.top_eigenpairs(problem, params, 2)


def _noise_covariance() -> Callable[[], Any]:
    problem, sgd, params = _network()
    return lambda: statsgd.noise_covariance(problem, params, sgd.noise)


def _diagnose() -> Callable[[], Any]:
    problem, sgd, params = _network()
    options: Any = {"modes": 4, "replicas": 16, "steps": 20, "seed": 0, "progress": False}
    return lambda: statsgd.diagnose(problem, params, sgd, **options)


def _report() -> Callable[[], Any]:
    comparison = statsgd.compare(
        np.random.default_rng(0).normal(size=(200, 2)),
        laws.GaussianLaw(np.zeros(2), np.eye(2)),
        seed=0,
    )
    folder = tempfile.mkdtemp()
    return lambda: statsgd.report(comparison, os.path.join(folder, "report.html"))


#: By the name in the table.
CALLS: dict[str, Callable[[], Callable[[], Any]]] = {
    "simulate": _simulate,
    "simulate, a network": _simulate_network,
    "simulate, a convolutional network": _simulate_convolutional,
    "from_sgd": _from_sgd,
    "Gibbs, one parameter": _line,
    "Gibbs, after one of another loss": _another_line,
    "sample": _sample,
    "compare": _compare,
    "applicable": _applicable,
    "minimise": _minimise,
    "minimise, a landscape": _landscape,
    "hessian": _hessian,
    "top_eigenpairs": _top_eigenpairs,
    "noise_covariance": _noise_covariance,
    "diagnose": _diagnose,
    "report": _report,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, or the numbers of one function in this process."""
    parser = argparse.ArgumentParser(prog="python -m studies.first_calls", description=__doc__)
    parser.add_argument("--functions", nargs="*", choices=list(CALLS), default=list(CALLS))
    parser.add_argument("--once", choices=list(CALLS), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.once:
        print(json.dumps(once(given.once)))
    else:
        print(markdown(run(given.functions)))


if __name__ == "__main__":
    main()
