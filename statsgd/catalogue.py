"""Tables of what there is, from the registries: shown in the README, printed for users."""

import pandas as pd

from statsgd.dynamics.noise import NOISES
from statsgd.kernels import KERNELS
from statsgd.laws import LAWS


def laws() -> pd.DataFrame:
    """One row a law: name, setting, exactness, exact draws, source."""
    rows = [
        {
            "law": name,
            "setting": law.setting,
            "exactness": law.exactness,
            "exact draws": "yes" if law.generative else "no",
            "source": law.citation,
        }
        for name, law in sorted(LAWS.items())
    ]
    return pd.DataFrame(rows)


def kernels() -> pd.DataFrame:
    """One row a kernel: name, what it leaves invariant, source."""
    rows = [
        {"kernel": name, "exactness": kernel.exactness, "source": kernel.citation}
        for name, kernel in sorted(KERNELS.items())
    ]
    return pd.DataFrame(rows)


def noises() -> pd.DataFrame:
    """One row a noise model: name and first line of its description."""
    rows = [
        {"noise": name, "what it is": (noise.__doc__ or "").splitlines()[0].rstrip(".")}
        for name, noise in sorted(NOISES.items())
    ]
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    """A table in the form that README files show."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + " --- |" * len(table.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)
