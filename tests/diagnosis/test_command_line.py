"""The diagnosis from the command line."""

import subprocess
import sys
import types

import pytest

from statsgd.diagnosis import command_line

FILE = """
import numpy as np
from statsgd import SGD
from statsgd.noise import Minibatch
from statsgd.problems import linear_regression

rng = np.random.default_rng(0)
inputs = rng.normal(size=(60, 4)).astype(np.float32)


def make_problem():
    problem = linear_regression(inputs, (inputs @ np.ones(4) + rng.normal(size=60)).astype("f4"))
    return problem, np.ones(4, np.float32), SGD(0.05, Minibatch(8))


def make_run():
    problem, params, sgd = make_problem()
    rows = params + 0.01 * rng.normal(size=(40, 4)).astype("f4")
    return problem, params, sgd, list(rows)


def something_else():
    return 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_file.py"
    path.write_text(FILE)
    yield path
    sys.modules.pop("my_file", None)
    sys.path.remove(str(tmp_path)) if str(tmp_path) in sys.path else None


@pytest.mark.slow
def test_a_report_from_a_file_of_the_users(file, tmp_path, capsys):
    options = ["--modes", "2", "--replicas", "8", "--steps", "20", "--quiet"]
    options += ["--output", str(tmp_path / "page.html")]
    page = command_line.main([f"{file}:make_problem", *options])
    assert "Stability" in page.read_text()
    assert "stability budget" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_of_ones_own_without_the_learning_coefficient(file, tmp_path):
    options = ["--modes", "2", "--replicas", "8", "--steps", "20", "--quiet"]
    options += ["--no-learning-coefficient", "--output", str(tmp_path / "page.html")]
    page = command_line.main([f"{file}:make_run", *options]).read_text()
    assert "Your own run" in page
    assert "arXiv:2308.12108" not in page  # the source of its part


@pytest.mark.slow
def test_the_module_runs_as_a_command(file, tmp_path):
    command = [sys.executable, "-m", "statsgd.diagnose", f"{file}:make_problem", "--modes", "4"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 2
    assert "modes must be fewer than the 4 parameters" in run.stderr


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nowhere.py:make", "with a file that exists, got 'nowhere.py:make'"),
        ("{}:missing", "must name a function in"),
        ("{}:something_else", "must return .problem, params, sgd. or these and checkpoints, got 3"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(file, what, message):
    with pytest.raises(ValueError, match=message):
        command_line.made_by(what.format(file))


def test_a_wrong_argument_ends_the_command_with_its_message(file, capsys):
    with pytest.raises(SystemExit):
        command_line.main([f"{file}:make_problem", "--modes", "4", "--quiet"])
    assert "modes must be fewer than the 4 parameters" in capsys.readouterr().err


def test_the_module_of_the_command_does_not_hide_the_function():
    import statsgd.diagnose

    assert isinstance(statsgd.diagnose, types.FunctionType)
