"""What laws there are, and which of them speak about a given problem and SGD."""

import functools
import inspect
import time
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from statsgd.arguments import kinds_checked, positive
from statsgd.dynamics.dynamics import Dynamics
from statsgd.dynamics.optimiser import OptaxDynamics
from statsgd.dynamics.sgd import SGD
from statsgd.laws.atlas import dimensionless_numbers, expected_error
from statsgd.laws.domain import outside
from statsgd.laws.law import LAWS, Law
from statsgd.laws.minimum.linear_optimiser import LinearOptimiser
from statsgd.problems import Problem
from statsgd.problems.minimum import SearchStoppedError, shared_minima
from statsgd.progress import silent


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


@kinds_checked
def applicable(
    problem: Problem,
    sgd: Dynamics,
    *,
    seconds: float = 120.0,
    progress: bool = True,
) -> pd.DataFrame:
    """Which laws speak about `sgd` on `problem`, and why the others do not.

    Every law with a `from_sgd` that needs nothing but the two is tried, or with a `from_dynamics`.
    An optimiser of optax that makes the steps of `SGD` is taken for that; of any other, and of
    `SharpnessAware` and `WeightNoise`, the laws that have a `from_dynamics` may speak, and no
    other. **Returns** one row a law: `law`, `applies`, `reason` – for a law that applies, what it
    assumes; for one that refuses, its
    own words; for one outside its domain (`Law.small_numbers`), which numbers are too large; for
    one that needs more, what that is – and `expected_error`, the total variation from the truth
    that the atlas knows of at the dimensionless numbers of this setting (see `expected_error`) for
    a law that exists there, or an empty word.

    >>> import numpy as np, statsgd
    >>> bowl = statsgd.problems.landscape(lambda x: 0.5 * x @ x, np.zeros(1))
    >>> sgd = statsgd.SGD(0.1, statsgd.noise.Isotropic(1.0))
    >>> table = applicable(bowl, sgd, progress=False).set_index("law")
    >>> bool(table.loc["HeavyBallGaussian", "applies"])
    True

    The minimum is searched for once, and what laws read there is computed once. **Arguments:**
    `seconds`, after which no search goes on and no further law is tried: their reasons say so.
    Raises `ValueError` for arguments that are no problem and SGD.
    """
    begin = time.monotonic()
    rows = []
    with shared_minima(float(positive("seconds", seconds))):
        alike = _as_sgd(problem, sgd)
        try:
            numbers = {} if alike is None else dimensionless_numbers(problem, alike)
        except SearchStoppedError:
            numbers = {}
        bar = tqdm(sorted(LAWS.items()), unit="law", desc="applicable", disable=silent(progress))
        for name, law in bar:
            late = time.monotonic() - begin > seconds
            stopped = f"not tried: {seconds:g} s were over; raise seconds" if late else ""
            found = _found(law, problem, sgd, alike, stopped)
            expected = expected_error(name, numbers) if found["exists"] else None
            rows.append(
                {
                    "law": name,
                    "applies": found["applies"],
                    "reason": found["reason"],
                    "expected_error": "" if expected is None else str(expected),
                }
            )
    return pd.DataFrame(rows)


def _found(
    law: type[Law],
    problem: Problem,
    dynamics: Dynamics,
    alike: SGD | None,
    stopped: str,
) -> dict[str, Any]:
    """Whether the law exists and applies, and why; `alike` is the `SGD` that `dynamics` is."""

    def refused(reason: str) -> dict[str, Any]:
        return {"exists": False, "applies": False, "reason": reason}

    general, needs = hasattr(law, "from_dynamics"), _needs(law)
    if alike is None and not general:
        kind = type(dynamics).__name__
        return refused(f"speaks about SGD, whose steps this {kind} does not make")
    if not general and needs != "problem, sgd":
        return refused(f"not tried: {needs}")
    if stopped:
        return refused(stopped)
    try:
        build: Any = law
        taken: Any = dynamics if general else alike
        built = (build.from_dynamics if general else build.from_sgd)(problem, taken)
        built.require_proper()
        left = outside(built.small_numbers(problem, taken))
    except ValueError as refusal:
        return refused(str(refusal))
    reason = left or f"{law.setting}; {law.exactness}"
    return {"exists": True, "applies": not left, "reason": reason}


def _as_sgd(problem: Problem, dynamics: Dynamics) -> SGD | None:
    """The `SGD` that `dynamics` is; None if it is none."""
    if isinstance(dynamics, SGD):
        return dynamics
    if not isinstance(dynamics, OptaxDynamics):
        return None
    try:
        return LinearOptimiser.of(dynamics, problem).as_sgd(dynamics.noise)
    except ValueError:
        return None


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
