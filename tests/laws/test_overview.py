"""Asking which laws apply searches for the minimum once, and stops when it was told to."""

import time

import numpy as np
import pytest

from statsgd import SGD, noise, problems
from statsgd.laws import applicable
from statsgd.problems import minimum

SGD_ = SGD(0.1, noise.Isotropic(1.0))


def bowl():
    def loss(x):
        return 0.5 * x @ x + 0.1 * x[0] ** 4

    return problems.landscape(loss, np.full(3, 2.0))


def test_the_minimum_is_found_once(monkeypatch):
    searches = []
    search = minimum._minimised

    def counted(problem, start, *rest):
        if start is None:
            searches.append(rest)
        return search(problem, start, *rest)

    monkeypatch.setattr(minimum, "_minimised", counted)
    table = applicable(bowl(), SGD_, progress=False).set_index("law")
    assert {"HeavyBallGaussian", "OrnsteinUhlenbeckLaw", "Gibbs"} <= {
        *table.index[table["applies"]]
    }
    assert len(searches) == 1
    # Outside nothing is remembered.
    minimum.minimise(bowl())
    assert len(searches) == 2


@pytest.mark.usefixtures("unchecked")
def test_nothing_is_searched_for_longer_than_was_said(monkeypatch):
    clock = iter(np.arange(0.0, 1e6, 0.05))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    table = applicable(bowl(), SGD_, seconds=0.12, progress=False).set_index("law")
    assert not table["applies"].any()
    assert "0.12 s were over; raise seconds" in table.loc["HeavyBallGaussian", "reason"]
    with pytest.raises(ValueError, match="seconds must be positive"):
        applicable(bowl(), SGD_, seconds=0.0)
    with pytest.raises(ValueError, match=r"problem must be .*applicable\(problem, sgd, …\)"):
        applicable(SGD_, bowl())


def test_a_search_that_is_stopped_says_so_once_and_for_all():
    with (
        minimum.shared_minima(seconds=1e-9),
        pytest.raises(minimum.SearchStoppedError, match="no minimum was found within 1e-09 s"),
    ):
        minimum.minimise(bowl())
