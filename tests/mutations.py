"""Whether tests see a wrong formula: it is broken in a copy, and the tests about it must fail.

    python -m tests.mutations [ROOM …]

prints a line a formula and how many were caught, and ends with an error if a break passed. All of
them take a quarter of an hour; rooms, such as `kernels`, are those of `statsgd`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COPIED = ("statsgd", "studies", "tests", "pyproject.toml")


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
    Mutation(
        "dynamics/sgd.py",
        "beta * m + gain * g",
        "beta * m + (1 - beta) * gain * g",
        "dynamics/test_sgd.py::test_heavy_ball_trajectory",
    ),
    Mutation(
        "dynamics/sgd.py",
        "g + self.weight_decay * p",
        "g + self.weight_decay * p / 2",
        "dynamics/test_sgd.py",
    ),
    Mutation(
        "dynamics/noise/minibatch.py",
        "(self.batch_size * max(n - 1, 1))",
        "(self.batch_size * n)",
        "dynamics/test_sampling.py::test_covariance_of_a_batch_carries_the_finite_population_factor",
    ),
    Mutation(
        "dynamics/sampling.py",
        "(batch_size,), jnp.uint32), last + 1)",
        "(batch_size,), jnp.uint32), last)",
        "dynamics/test_sampling.py::test_subsets_without_replacement_are_uniform",
    ),
    Mutation(
        "dynamics/limit.py",
        "4 / (learning_rate * (1 + momentum) ** 2)",
        "4 / (learning_rate * (1 + momentum))",
        "dynamics/test_diffusion.py::test_the_limit_of_sgd_has_the_law_of_the_continuous_model",
    ),
    Mutation(
        "running/random_stream.py",
        "jnp.sqrt(-2 * jnp.log(uniform))",
        "jnp.sqrt(-1.98 * jnp.log(uniform))",
        "running/test_random_stream.py",
    ),
    Mutation(
        "running/random_stream.py",
        "jnp.stack([key[0], ~key[1]])",
        "jnp.stack([key[0], key[1]])",
        "running/test_random_stream.py",
    ),
    Mutation(
        "running/chunks.py",
        "min(max(1, int(length) // self.unit) * self.unit, most)",
        "min(max(1, int(length)), most)",
        "running/test_chunks.py",
    ),
    Mutation(
        "running/blocks.py",
        "-(-lanes // (len(own) * processes))",
        "lanes // (len(own) * processes)",
        "running/test_blocks.py::test_a_block_is_as_large_as_an_equal_share_allows",
    ),
    Mutation(
        "kernels/mala.py",
        "(backward - forward) / (4 * h * temperature)",
        "(backward - forward) / (2 * h * temperature)",
        "kernels/test_mala.py::test_acceptance_satisfies_detailed_balance",
    ),
    Mutation(
        "kernels/obabo.py",
        "jax.tree.map(jnp.negative, start.velocity)",
        "jax.tree.map(jnp.positive, start.velocity)",
        "kernels/test_underdamped.py",
    ),
    Mutation(
        "kernels/obabo.py",
        "(start.energy - proposal.energy) / parameters",
        "1.1 * (start.energy - proposal.energy) / parameters",
        "kernels/test_underdamped.py",
    ),
    Mutation(
        "kernels/underdamped.py",
        "jnp.expm1(-2 * exponent)",
        "jnp.expm1(-exponent)",
        "kernels/test_underdamped.py",
    ),
    Mutation(
        "measures/curvature/traces.py",
        "rest = v - (basis @ v) @ basis",
        "rest = v",
        "measures/test_spectrum.py::test_directions_taken_out_lower_the_error_of_a_trace",
    ),
    Mutation(
        "measures/runs/averages.py",
        "np.sqrt((n - 1) / n * np.sum(",
        "np.sqrt(1 / n * np.sum(",
        "measures/test_weight_variance.py::test_jackknife_and_bootstrap",
    ),
    Mutation(
        "measures/runs/averages.py",
        "n * whole - (n - 1) * rest.mean(axis=0)",
        "whole",
        "measures/test_weight_variance.py::test_jackknife_and_bootstrap",
    ),
    Mutation(
        "measures/noise/mean_square.py",
        "(size * max(number - 1, 1))",
        "(size * number)",
        "measures/test_stability.py::test_thresholds_and_bounds",
    ),
    Mutation(
        "laws/minimum/second_moments.py",
        "kept * p + eta**2 * noise(p)",
        "kept * p + eta**2 * noise(p) / 2",
        "measures/test_stability.py::test_growth",
    ),
    Mutation(
        "measures/motion/currents.py",
        "np.swapaxes(outer, 1, 2)) / 2)",
        "np.swapaxes(outer, 1, 2)))",
        "measures/test_phase_space.py::test_currents_of_a_chain",
    ),
    Mutation(
        "comparison/permutation.py",
        "(1 + jnp.sum(reached)) / statistics.shape[0]",
        "jnp.sum(reached) / statistics.shape[0]",
        "comparison/test_two_sample.py::test_exceedance_counts_ties_and_itself",
    ),
    Mutation(
        "comparison/multiplicity.py",
        "np.arange(p.size, 0, -1)",
        "np.arange(p.size)[::-1]",
        "comparison/test_two_sample.py::test_holm_against_the_textbook_rule",
    ),
    Mutation(
        "comparison/statistics.py",
        "(1 - confidence) / (2 * comparisons)",
        "(1 - confidence) / comparisons",
        "comparison/test_statistics.py",
    ),
    Mutation(
        "comparison/statistics.py",
        "student.isf(tail, max(clusters - 1, 1))",
        "norm.isf(tail)",
        "comparison/test_statistics.py",
    ),
    Mutation(
        "problems/regression.py",
        "weight_decay * np.eye(x.shape[1])",
        "weight_decay / 2 * np.eye(x.shape[1])",
        "problems/test_minimum_and_curvature.py",
    ),
    Mutation(
        "problems/sums.py",
        "(np.arange(rows) < kept)",
        "(np.arange(rows) <= kept)",
        "problems/test_sums.py::test_chunks_are_small_and_add_up_to_the_whole",
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
    """Break every formula of the rooms in turn; exit with the number of breaks that passed."""
    rooms = sorted({Path(mutation.file).parts[0] for mutation in MUTATIONS})
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"{', '.join(rooms)}; or all")
    chosen = parser.parse_args().rooms or rooms
    if unknown := sorted(set(chosen) - set(rooms)):
        parser.error(f"rooms must be among {', '.join(rooms)}, got {', '.join(unknown)}")
    mutations = [one for one in MUTATIONS if Path(one.file).parts[0] in chosen]
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
        for tests in sorted({mutation.tests for mutation in mutations}):
            if not passes(tests, copy):
                raise SystemExit(f"{tests} fails before anything is broken")
        for mutation in mutations:
            found = caught(mutation, copy)
            missed += not found
            words = "caught" if found else "MISSED"
            print(f"{words}: {mutation.file}: {mutation.right} -> {mutation.wrong}", flush=True)
    print(f"{len(mutations) - missed} of {len(mutations)} caught")
    raise SystemExit(missed)


if __name__ == "__main__":
    main()
