"""The README tells the truth: its tables are those of the registries, its example runs."""

import re
from pathlib import Path

from studies.refresh_pages import refreshed

README = Path(__file__).parents[1] / "README.md"


def test_tables_are_those_of_the_registries():
    text = README.read_text()
    assert refreshed(text) == text, "run: python -m studies.refresh_pages"


def test_example_runs_as_printed_and_shows_what_is_said(capsys):
    code = re.search(r"<!-- example -->\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(compile(code.group(1), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "against LinearRegressionGaussian: agrees within 10 %" in printed
    assert "against HeavyBallGaussian: differs by more than 10 %" in printed
