"""The README tells the truth: its tables are those of the registries, its example runs."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import gamma

from statsgd.laws import LAWS, catalogue
from studies.refresh_pages import SHOWN, refreshed

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_tables_are_those_of_the_registries():
    text = README.read_text()
    assert refreshed(text) == text, "run: python -m studies.refresh_pages"


def test_pictures_are_there():
    pictures = re.findall(r"!\[[^]]+\]\((.+?)\)", README.read_text())
    assert {f"studies/pictures/{name}.png" for name in SHOWN} < set(pictures)
    for picture in pictures:
        assert (README.parent / picture).read_bytes().startswith(b"\x89PNG")


def code_of(name):
    found = re.search(rf"<!-- {name} -->\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    return found.group(1)


def test_example_runs_as_printed_and_shows_what_is_said(capsys):
    exec(compile(code_of("example"), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "against LinearRegressionGaussian: agrees within 10 %" in printed
    assert "against HeavyBallGaussian: differs by more than 10 %" in printed


def test_a_run_goes_on_as_shown():
    # After the lines of the first example that it needs, with fewer replicas.
    first = code_of("example").split("for law in")[0]
    code = (first + code_of("continued example")).replace("40_000", "64")
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["later"]["run"].steps.values.tolist() == [1500] * 64


def test_the_law_of_the_reader_passes_what_every_law_must(capsys):
    names = {}
    try:
        exec(compile(code_of("law example"), "README.md", "exec"), names)
        assert names["QuarticGibbs"].__name__ in catalogue()["law"].tolist()
    finally:
        LAWS.pop("QuarticGibbs", None)
    printed = capsys.readouterr().out
    assert "against QuarticGibbs: agrees within 10 %" in printed
    assert "0 failed" in printed
    law = names["law"]
    # ⟨θ²⟩ = √(4τ) Γ(3/4)/Γ(1/4)
    second = np.sqrt(4 * float(law.temperature)) * gamma(0.75) / gamma(0.25)
    squares = names["draws"]["posterior"].params.values ** 2
    error = squares.mean(axis=(1, 2)).std(ddof=1) / np.sqrt(len(squares))
    assert abs(squares.mean() - second) < 4 * max(error, 0.02 * second)
