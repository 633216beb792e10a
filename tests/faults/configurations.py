"""Settings good, extreme and bad: what they say, or an error that names them.

Of `simulate` it is held against the recursion in NumPy, of `sweep` against its cells one by one.
"""

import shutil
import warnings
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from hypothesis import strategies as st

import statsgd
from statsgd.kernels import MALA
from statsgd.laws import GaussianLaw
from studies.bring_your_own import Config
from tests.faults.fuzz import explored
from tests.faults.tally import Tally, judged
from tests.faults.trees import NAMES

BAD = st.sampled_from(
    [float("nan"), float("inf"), -float("inf"), -1, 0, -0.5, 1.5, "a", None, True, (), [1, 2], {},
     1j, 10**400, 1e308, np.nan, np.float32("nan"), np.array([0.1, -1.0]), object()]
)  # fmt: skip


def settings(**good: list) -> st.SearchStrategy:
    """Good values of every setting, and a bad one of one of them in half of the cases."""
    fine = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in good.items()})
    spoiled = st.builds(lambda *parts: {**parts[0], parts[1]: parts[2]},
                        fine, st.sampled_from(list(good)), BAD)  # fmt: skip
    return fine | spoiled


SIMULATED = settings(
    learning_rate=[1e-30, 0.1, 0.9, 3.0, 1e30],
    momentum=[0.0, 0.5, 0.999],
    weight_decay=[0.0, 0.1, 1e20],
    steps=[1, 6],
    replicas=[1, 3, 3],
    seed=[0, 1, 2**31, 2**32 - 1, 2**32],
    phases=[1, 1, 2],
    block_size=[1, 64, 10**12],
    keep=[None, 1, [0], 10**9],
    start=[None, [1.0, -2.0], np.ones((3, 2)), [1e-40, 3e38]],
)
SAMPLED = settings(
    step_size=[1e-20, 0.4, 1e3, 1e30],
    temperature=[1e-6, 1.0, 1e6],
    draws=[4, 7],
    warmup=[0, 5],
    chains=[1, 2],
    thinning=[1, 3],
    seed=[0, 1, 2**32 - 1, 2**64],
)
VALUES = st.one_of(
    st.lists(st.floats(), max_size=3),
    st.lists(st.integers(-3, 2**70), max_size=3),
    st.lists(NAMES, max_size=3),
    st.lists(st.booleans(), max_size=2),
    BAD,
)
RESERVED = st.sampled_from(["seed", "done", "error", "check_sum", "x", "cell", "run"])
SWEPT = st.dictionaries(st.one_of(RESERVED, NAMES), VALUES, max_size=2)
STUDIED = settings(
    weight_decay=[0.01, 1e30],
    steps=[40_000],
    replicas=[8, 32],
    looks=[2, 40],
    margin=[0.1, 1e-9],
    seed=[0, 2**40],
    examples=[2, 100],
)
PAIRS = st.sampled_from([(0.1, 0.2), (0, 0), (-1, -2), (1e308, float("inf")), (4, 8), (1,), ()])


def configurations(folder: Path, trials: int, seed: int) -> Tally:
    """`trials` calls of `simulate`, `sample` and `sweep` and settings of a study."""
    kinds = [
        (SIMULATED, _simulated),
        (SAMPLED, _sampled),
        (SWEPT, lambda case: _swept(folder / "swept", case)),
        (st.tuples(STUDIED, PAIRS), lambda case: _studied(case[0] | {"learning_rates": case[1]})),
    ]
    total = Tally()
    for i, (cases, judge) in enumerate(kinds):
        total += explored(cases, judge, len(range(i, trials, len(kinds))), seed + i)
    return total


def quadratic(params):
    return jnp.sum(jnp.array([1.0, 0.5]) * params**2) / 2


PROBLEM = statsgd.problems.landscape(quadratic, np.array([0.5, 2.0]))


def _simulated(case: dict[str, Any]) -> Tally:
    def run() -> xr.DataTree:
        rule = {name: case[name] for name in ("learning_rate", "momentum", "weight_decay")}
        sgd = statsgd.SGD(noise=statsgd.noise.NoNoise(), **rule)
        options = {name: value for name, value in case.items() if name not in rule}
        return statsgd.simulate(PROBLEM, sgd, progress=False, **options)

    def is_right(tree: xr.DataTree) -> bool:
        ends, told = tree["endpoints"].params.values, tree["run"]
        begin = [0.5, 2.0] if case["start"] is None else case["start"]
        begin = np.broadcast_to(np.asarray(begin, np.float32), ends.shape)
        for i, steps in enumerate(told.steps.values):
            expected, diverged_at = _descent(begin[i], case, int(case["steps"]))
            if told.diverged_at.values[i] != diverged_at:
                return False
            if diverged_at < 0 and not case["steps"] - case["phases"] < steps <= case["steps"]:
                return False
            if not np.allclose(ends[i], expected[steps], rtol=1e-4, atol=1e-30):
                return False
        return len(ends) == case["replicas"]

    return judged(f"simulate {case}", run, is_right)


def _descent(begin: np.ndarray, case: dict, steps: int) -> tuple[list[np.ndarray], int]:
    """The path up to where it leaves the finite numbers, and the step that does so, or −1."""
    rate, momentum, decay = (
        np.float32(case[name]) for name in ("learning_rate", "momentum", "weight_decay")
    )
    path, buffer = [begin], np.zeros(2, np.float32)
    with np.errstate(all="ignore"):
        for step in range(1, steps + 1):
            force = np.array([1.0, 0.5], np.float32) * path[-1]
            buffer = momentum * buffer + force + decay * path[-1]
            after = path[-1] - rate * buffer
            if not (np.isfinite(after).all() and np.isfinite(buffer).all()):
                return path, step
            path.append(after)
    return path, -1


LAW = GaussianLaw([0.0, 1.0], [[1.0, 0.2], [0.2, 2.0]])


def _sampled(case: dict[str, Any]) -> Tally:
    def run() -> xr.DataTree:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kernel = MALA(step_size=case["step_size"], temperature=case["temperature"])
            options = {n: v for n, v in case.items() if n not in ("step_size", "temperature")}
            return statsgd.sample(LAW, kernel, diagnose=False, progress=False, **options)

    def is_right(tree: xr.DataTree) -> bool:
        params = tree["posterior"].params
        shape = params.sizes["chain"], params.sizes["draw"]
        return shape == (case["chains"], case["draws"]) and bool(np.isfinite(params).all())

    return judged(f"sample {case}", run, is_right)


def told(cell: Any) -> xr.Dataset:
    return xr.Dataset({"text": str(cell.config), "number": cell.seed})


def _swept(store: Path, case: dict[str, Any]) -> Tally:
    shutil.rmtree(store, ignore_errors=True)

    def run() -> xr.DataTree:
        return statsgd.sweep(told, case, store=store, seed=0, progress=False).load()

    def is_right(tree: xr.DataTree) -> bool:
        results = tree["results"].to_dataset()
        found = results.text.values.reshape(-1).tolist()
        axes = [results[name].values.tolist() for name in case]
        expected = [str(dict(zip(case, row, strict=True))) for row in _product(axes)]
        return (
            found == expected
            and bool(tree["cells"].done.all())
            and all(results[name].size == len(case[name]) for name in case)
            and all(str(a) == str(b) or a == b for n in case for a, b in
                    zip(results[n].values.tolist(), case[n], strict=True))
        )  # fmt: skip

    return judged(f"sweep {case}", run, is_right)


def _product(axes: list[list]) -> list[tuple]:
    rows: list[tuple] = [()]
    for axis in axes:
        rows = [(*row, value) for row in rows for value in axis]
    return rows


def _studied(case: dict[str, Any]) -> Tally:
    def is_right(config: Config) -> bool:
        rates = np.asarray(config.learning_rates, dtype=float)
        return bool(np.isfinite(rates).all() and (rates > 0).all() and config.weight_decay > 0)

    return judged(f"study {case}", lambda: Config(**case), is_right)
