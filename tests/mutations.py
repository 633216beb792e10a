"""Whether tests see a wrong formula: each of ten is broken in a copy, and its tests must fail.

    python -m tests.mutations

prints a line a formula, and ends with an error if a break passed. Takes a few minutes.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COPIED = ("statsgd", "tests", "pyproject.toml")


class Mutation(NamedTuple):
    """A formula, how it is broken, and the tests that are about it."""

    file: str
    right: str
    wrong: str
    tests: str


MUTATIONS = (
    Mutation(
        "laws/minimum/anisotropic_quadratic.py",
        "eta * h[:, None] * h)",
        "eta * h[:, None] * h / 2)",
        "laws/minimum/test_anisotropic_quadratic.py",
    ),
    Mutation(
        "laws/valleys/two_valley.py",
        "jnp.log(d[1] / d[0])",
        "jnp.log(d[0] / d[1])",
        "laws/valleys/test_two_valley.py::test_occupation_in_every_reading",
    ),
    Mutation(
        "laws/valleys/averaging.py",
        "slope**2 / (4 * h**3)",
        "slope**2 / (2 * h**3)",
        "laws/valleys/test_valley.py::test_adiabatic_parameter",
    ),
    Mutation(
        "laws/gibbs/two_basins.py",
        "scale**2 * jnp.exp(",
        "1.01 * scale**2 * jnp.exp(",
        "laws/gibbs/test_two_basins.py::test_masses",
    ),
    Mutation(
        "laws/gibbs/effective_potential.py",
        "jnp.log(self.variance(params)) +",
        "0.5 * jnp.log(self.variance(params)) +",
        "laws/gibbs/test_effective_potential.py::test_student_law",
    ),
    Mutation(
        "laws/loss_noise/saturated_loss.py",
        "return self.codimension / 2 - self.loss_exponent",
        "return self.codimension - self.loss_exponent",
        "laws/loss_noise/test_saturating.py::test_law_of_the_loss",
    ),
    Mutation(
        "laws/loss_noise/torus.py",
        "alpha * log_t + q",
        "1.1 * alpha * log_t + q",
        "laws/test_random_settings.py::test_few_random_settings[torus]",
    ),
    Mutation(
        "laws/loss_noise/strata.py",
        "jnp.log(2 - jnp.exp(log_caps - ball))",
        "jnp.log(2 + jnp.exp(log_caps - ball))",
        "laws/test_random_settings.py::test_few_random_settings[strata]",
    ),
    Mutation(
        "laws/bases/expectation.py",
        "inner = 13 * (f[1:-2] + f[2:-1])",
        "inner = 13.2 * (f[1:-2] + f[2:-1])",
        "laws/test_expectation.py::test_on_the_line_they_are_those_of_an_independent_rule",
    ),
    Mutation(
        "estimate.py",
        "ddof=1) / np.sqrt(values.shape[0])",
        "ddof=1) / values.shape[0]",
        "test_estimate.py",
    ),
)


def caught(mutation: Mutation, copy: Path) -> bool:
    """Whether the tests of a formula fail where it is broken; the copy is put right again."""
    file = copy / "statsgd" / mutation.file
    source = file.read_text()
    if source.count(mutation.right) != 1:
        raise ValueError(f"{mutation.file} must hold {mutation.right!r} once")
    file.write_text(source.replace(mutation.right, mutation.wrong))
    try:
        return not passes(mutation.tests, copy)
    finally:
        file.write_text(source)


def passes(tests: str, copy: Path) -> bool:
    """Whether tests pass in the copy, to the first failure; an error of another kind is raised."""
    command = [sys.executable, "-m", "pytest", "-qx", "-m", "not slow", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, f"tests/{tests}"],
        cwd=copy,
        # Compiled Python is told by its time in seconds, which a break may share with the formula.
        env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with {run.returncode}:\n{run.stdout}{run.stderr}")
    return run.returncode == 0


def main() -> None:
    """Break every formula in turn; exit with their number that passed."""
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            ignored = shutil.ignore_patterns("__pycache__")
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=ignored)
            else:
                shutil.copy(source, copy / name)
        for tests in sorted({mutation.tests for mutation in MUTATIONS}):
            if not passes(tests, copy):
                raise SystemExit(f"{tests} fails before anything is broken")
        for mutation in MUTATIONS:
            found = caught(mutation, copy)
            missed += not found
            words = "caught" if found else "MISSED"
            print(f"{words}: {mutation.file}: {mutation.right} -> {mutation.wrong}", flush=True)
    raise SystemExit(missed)


if __name__ == "__main__":
    main()
