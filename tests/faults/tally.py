"""What became of faults: every one must end in the right answer or in an error that names it."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
import xarray as xr

from statsgd.sweeps import StoreError


class Tally(NamedTuple):
    """Counts of one kind of fault."""

    trials: int = 0
    right: int = 0
    """Ended in the right answer."""
    named: int = 0
    """Ended in an error of the library that says what is wrong."""
    wrong: tuple[str, ...] = ()
    """Which ended otherwise: another answer without a word, or an error of something else."""

    def __add__(self, other: Self) -> Self:  # type: ignore[override]
        return type(self)(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


RIGHT = Tally(1, right=1)
NAMED = Tally(1, named=1)


def wrong(what: str) -> Tally:
    return Tally(1, wrong=(what,))


def judged(what: str, attempt: Callable[[], Any], is_right: Callable[[Any], bool]) -> Tally:
    """What becomes of `attempt`: only the library's own kinds of error count as named.

    A `ValueError` that another library raised inside of ours is none.
    """
    try:
        answer = attempt()
        return RIGHT if is_right(answer) else wrong(f"{what}: another answer")
    except (ValueError, StoreError, ConnectionError, FileNotFoundError) as error:
        return NAMED if is_own(error) else wrong(f"{what}: {type(error).__name__}: {error}")
    except Exception as error:
        return wrong(f"{what}: {type(error).__name__}: {error}")


def is_own(error: BaseException) -> bool:
    """Whether a line of this project raised `error`, and so chose its words."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return module.split(".")[0] in ("statsgd", "studies")


def bits(tree: xr.DataTree) -> dict[str, Any]:
    """Everything in `tree`, so that equal dictionaries are equal bits."""
    found: dict[str, Any] = {}
    for node in tree.subtree:
        found[node.path] = {name: _plain(value) for name, value in node.attrs.items()}
        for name, array in node.to_dataset().variables.items():
            values = np.asarray(array.values)
            content = values.tobytes() if values.dtype.kind in "biufc" else values.tolist()
            kind = str(values.dtype) if values.dtype.kind in "biufc" else "words"
            found[f"{node.path}/{name}"] = (array.dims, values.shape, kind, content)
    return found


def _plain(value: Any) -> Any:
    return np.asarray(value).tolist() if isinstance(value, list | tuple | np.ndarray) else value
