"""The main study: its problem, its schedule, its headline numbers, its command line."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from statsgd import SGD, noise
from statsgd.laws import LinearRegressionGaussian
from studies import digits_regression
from studies.__main__ import main, names
from studies.outcome import OutputFolderError, claim, deliver, settings

ROOT = Path(__file__).parents[2]


def test_problem_is_the_bundled_digits():
    problem = digits_regression.digits_problem()
    assert problem.inputs.shape == (1797, 61)
    assert set(problem.targets) == {-1.0, 1.0}
    np.testing.assert_allclose(problem.inputs.mean(axis=0), 0, atol=1e-12)


def test_burn_in_forgets_the_start():
    # Slowest mode: h = λ (some pixels hardly vary), root modulus about 1 − ηh/(1−β) = 0.99.
    problem = digits_regression.digits_problem()
    sgd = SGD(0.1, noise.Minibatch(16), 0.9, 0.01)
    law = LinearRegressionGaussian.from_sgd(problem, sgd)
    burn_in, spacing = digits_regression.schedule(law, sgd, 1e-3)
    h, vectors = law.modes()
    step = np.array([[1 - 0.1 * h[0], -0.09], [h[0], 0.9]])
    slow = np.abs(np.linalg.eigvals(step)).max()
    spread = np.sqrt(vectors[:, 0] @ law.covariance() @ vectors[:, 0])
    assert abs(law.mean() @ vectors[:, 0]) / spread * slow**burn_in < 1e-3
    assert 10 < spacing < 100
    assert digits_regression.schedule(law, sgd, 1e-6)[0] > burn_in


def test_settings_that_diverge_name_their_threshold(tmp_path):
    config = digits_regression.Config(learning_rate=6.0, output=str(tmp_path), progress=False)
    with pytest.raises(ValueError, match=r"learning_rate must be below .*allow_unstable"):
        digits_regression.run(config)


def test_folder_of_another_run_is_not_touched(tmp_path):
    config = digits_regression.Config(output=str(tmp_path))
    held = {"study": "digits_regression", "config": settings(config)}
    (tmp_path / "config.json").write_text(json.dumps(held))
    claim(tmp_path, held)
    other = settings(dataclasses.replace(config, batch_size=32))
    with pytest.raises(OutputFolderError, match="batch_size = 16 there, 32 here"):
        claim(tmp_path, {"study": "digits_regression", "config": other})
    (tmp_path / "config.json").unlink()
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(OutputFolderError, match="which holds other files"):
        deliver("digits_regression", digits_regression, config)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "studies", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, **options,
    )  # fmt: skip


def test_command_line_lists_studies_and_refuses_nonsense(tmp_path, capsys):
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert "digits_regression" in listed
    # The race and the costs are commands of their own, whatever settings they import.
    assert not any(f"  {name} " in listed for name in ("benchmark", "cost_by_size", "first_calls"))
    assert len(names()) == 15
    assert main(["digit"]) == 2
    assert "no study 'digit'; there are:" in capsys.readouterr().err
    wrong = command("digits_regression", "--batch-size", "0", "--output", str(tmp_path / "out"))
    assert wrong.returncode == 2
    assert "error: batch_size must be at least 1, got 0" in wrong.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_exact_law_agrees_on_real_digits_and_the_others_do_not(tmp_path):
    # Every mode of the exact law within 3 %, by intervals that hold simultaneously; the law with
    # constant noise too small by 5 % to 93 %, the continuous one off by 0.4 to 3.8.
    run = command("digits_regression", "--no-progress", "--output", str(tmp_path / "out"))
    assert run.returncode == 0, run.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["numbers"]
    exact = summary["LinearRegressionGaussian"]
    assert exact["verdict"] == "agrees within 3 %"
    assert exact["lowest_bound"] > 0.97
    assert exact["highest_bound"] < 1.03
    assert exact["largest_standard_error"] < 0.01
    constant = summary["HeavyBallGaussian"]
    assert constant["verdict"] == "differs by more than 3 %"
    assert 1.02 < constant["smallest_ratio"] < 1.08
    assert 1.85 < constant["largest_ratio"] < 2.0
    continuous = summary["PhaseSpaceGaussian"]
    assert 0.35 < continuous["smallest_ratio"] < 0.43
    assert 3.5 < continuous["largest_ratio"] < 3.9
    assert (tmp_path / "out" / "report.html").stat().st_size < 5_000_000
