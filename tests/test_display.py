"""Objects say what they are: values with units at a prompt, a section in a notebook."""

import importlib
import importlib.metadata
import types

import jax
import numpy as np
import pytest

import statsgd
from statsgd import SGD, compare, kernels, laws, noise, problems
from statsgd.estimate import Estimate

LAW = laws.HeavyBallGaussian([[2.0]], [[1.0]], learning_rate=0.1, momentum=0.9)
PROBLEM = problems.linear_regression(np.eye(3), np.ones(3))
GRID = statsgd.grid(SGD(0.1, noise.NoNoise()), learning_rate=[0.1, 0.2])
COMPARISON = compare(np.random.default_rng(0).normal(size=(40, 1)), LAW, seed=0)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            SGD(0.1, noise.Minibatch(16), 0.9),
            "SGD(learning_rate=0.1 time/step, noise=Minibatch(batch_size=16 examples), "
            "momentum=0.9)",
        ),
        (noise.Isotropic(0.5), "Isotropic(variance=0.5)"),
        (kernels.MALA(step_size=0.2), "MALA(step_size=0.2, temperature=1)"),
        (PROBLEM, "LinearRegression(3 parameters params; 3 examples)"),
        (
            GRID,
            "SettingsGrid(2 cells; learning_rate=[0.1, 0.2]; SGD(learning_rate=[0.1, 0.2] "
            "time/step, noise=NoNoise()))",
        ),
        (Estimate(1.25, 0.5), "Estimate(1.25 ± 0.5)"),
        (Estimate(np.array([1.0, 2.0]), 0.0), "Estimate([1, 2] ± 0)"),
    ],
)
def test_values_and_units_are_said(value, said):
    assert repr(value) == said


def test_laws_say_their_numbers_where_they_have_any():
    assert "learning_rate=0.1 time/step" in repr(LAW)
    assert jax.jit(lambda law: len(repr(law)))(LAW) > 0  # traced values have no number


def test_a_comparison_says_its_verdict_its_parts_and_its_figures():
    assert COMPARISON.sentence in repr(COMPARISON)
    assert "\n  spread: " in repr(COMPARISON)
    assert COMPARISON.to_dataframe().equals(COMPARISON.table)
    figure = COMPARISON.plot()
    assert len(figure.axes) == 1
    assert figure.axes[0].get_ylabel() == "measured / predicted variance"
    assert figure._repr_png_().startswith(b"\x89PNG")
    # One mode does not stand on an axis of ±.04.
    assert figure.axes[0].get_xlim() == (-0.5, 0.5)


VALUES = [COMPARISON, LAW, PROBLEM, noise.NoNoise(), Estimate(1.0, 0.1), GRID]


@pytest.mark.parametrize("value", VALUES)
def test_notebooks_show_sections(value):
    assert "<strong>" in value._repr_html_()


ROOMS = ["problems", "dynamics", "noise", "laws", "kernels", "measures", "comparison", "reports"]


FAMILIES = ["laws.minimum", "laws.gibbs", "laws.valleys", "laws.bases"]


@pytest.mark.parametrize("room", ["", *ROOMS, "sweeps", "running", "diagnosis", *FAMILIES])
def test_namespaces_show_what_users_call(room):
    module = importlib.import_module(f"statsgd.{room}".rstrip("."))
    shown = dir(module)
    assert set(module.__all__) <= set(shown)
    assert not any(name.startswith("_") for name in set(shown) - {"__version__"})
    modules = {name for name in shown if isinstance(getattr(module, name), types.ModuleType)}
    assert set(shown) - modules <= {*module.__all__, "__version__"}


def test_the_version_is_that_of_the_distribution():
    assert statsgd.__version__ == importlib.metadata.version("statsgd")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = statsgd.nothing
