"""What laws there are, and which of them speak about a given problem and SGD."""

import functools
import inspect
from typing import Any

import pandas as pd

from statsgd.dynamics.sgd import SGD
from statsgd.laws.atlas import dimensionless_numbers, expected_error
from statsgd.laws.domain import outside
from statsgd.laws.law import LAWS, Law
from statsgd.problems import Problem


def catalogue() -> pd.DataFrame:
    """One row a law: name, setting, exactness, exact draws, what `from_sgd` needs, source.

    Exact draws are a property of the instance: "depends" where the law's examples differ.
    """
    rows = [
        {
            "law": name,
            "setting": law.setting,
            "exactness": law.exactness,
            "exact draws": _over_examples(law, "exact_draws"),
            "from_sgd": _needs(law),
            "source": law.citation,
        }
        for name, law in sorted(LAWS.items())
    ]
    return pd.DataFrame(rows)


def applicable(problem: Problem, sgd: SGD) -> pd.DataFrame:
    """Which laws speak about `sgd` on `problem`, and why the others do not.

    Every law with a `from_sgd` that needs nothing but the two is tried. **Returns** one row a law:
    `law`, `applies`, `reason` – for a law that applies, what it assumes; for one that refuses, its
    own words; for one outside its domain (`Law.small_numbers`), which numbers are too large; for
    one that needs more, what that is – and `expected_error`, the total variation from the truth
    that the atlas knows of at the dimensionless numbers of this setting (see `expected_error`) for
    a law that exists there, or an empty word.
    """
    rows = []
    numbers = dimensionless_numbers(problem, sgd)
    for name, law in sorted(LAWS.items()):
        exists, applies, reason = False, False, _needs(law)
        if reason == "problem, sgd":
            try:
                build: Any = law
                built = build.from_sgd(problem, sgd)
                built.require_proper()
                exists, left = True, outside(built.small_numbers(problem, sgd))
                applies, reason = not left, left or f"{law.setting}; {law.exactness}"
            except ValueError as refusal:
                reason = str(refusal)
        else:
            reason = f"not tried: {reason}"
        expected = expected_error(name, numbers) if exists else None
        error = "" if expected is None else str(expected)
        rows.append({"law": name, "applies": applies, "reason": reason, "expected_error": error})
    return pd.DataFrame(rows)


@functools.cache
def _over_examples(law: type[Law], flag: str) -> str:
    """What a flag of the instance is over a law's examples: yes, no, or that it depends."""
    try:
        # What an instance says without any field it says always: none has to be solved for it.
        found = {bool(getattr(law.__new__(law), flag))}
    except AttributeError:
        found = {bool(getattr(example, flag)) for example in law.examples()}
    return "depends" if len(found) > 1 else "yes" if found == {True} else "no"


def _needs(law: type[Law]) -> str:
    """The required arguments of `from_sgd`."""
    build: Any = getattr(law, "from_sgd", None)
    if build is None:
        return "has no from_sgd"
    required = [
        name
        for name, parameter in inspect.signature(build).parameters.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    return ", ".join(required)
