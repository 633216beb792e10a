"""Write the generated parts of README.md: catalogue tables and the main study's headline."""

import functools
import json
import re
from pathlib import Path

import pandas as pd

from statsgd import laws
from statsgd.kernels import KERNELS
from statsgd.noise import NOISES

README = Path(__file__).parents[1] / "README.md"


def refreshed(text: str, summary: dict | None = None) -> str:
    """`text` with the marked parts written anew; the headline only if `summary` is given."""
    parts = {
        "laws": markdown(laws.catalogue().drop(columns="from_sgd")),
        "kernels": markdown(kernels()),
        "noises": markdown(noises()),
    }
    if summary is not None:
        parts["digits"] = headline(summary)
    for name, part in parts.items():
        marked = re.compile(f"<!-- {name} -->.*?<!-- /{name} -->", flags=re.DOTALL)
        anew = f"<!-- {name} -->\n{part}\n<!-- /{name} -->"
        # As a function: a backslash in the part must not be read as a group.
        text = marked.sub(functools.partial(_constant, anew), text)
    return text


def _constant(text: str, _: object) -> str:
    return text


def kernels() -> pd.DataFrame:
    """One row a kernel: name, what it leaves invariant, source."""
    rows = [(name, kind.exactness, kind.citation) for name, kind in sorted(KERNELS.items())]
    return pd.DataFrame(rows, columns=["kernel", "exactness", "source"])


def noises() -> pd.DataFrame:
    """One row a noise model: name and first line of its description."""
    rows = [(name, (kind.__doc__ or "").splitlines()[0]) for name, kind in sorted(NOISES.items())]
    return pd.DataFrame(rows, columns=["noise", "what it is"])


def markdown(table: pd.DataFrame) -> str:
    """A table in the form that README files show."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + " --- |" * len(table.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)


def headline(summary: dict) -> str:
    """The verdicts of the digits study as a table."""
    lines = ["| law | measured / predicted variance, all modes | verdict |", "| --- | --- | --- |"]
    for law, numbers in summary.items():
        if isinstance(numbers, dict):
            lines.append(
                f"| {law} | {numbers['smallest_ratio']:.3f} to {numbers['largest_ratio']:.3f} "
                f"(simultaneous bounds {numbers['lowest_bound']:.3f} to "
                f"{numbers['highest_bound']:.3f}) | {numbers['verdict']} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    source = Path("results/digits_regression/summary.json")
    summary = json.loads(source.read_text()) if source.exists() else None
    README.write_text(refreshed(README.read_text(), summary))
