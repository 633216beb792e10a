"""How objects speak: a line with values and units at a prompt, a section in a notebook."""

import dataclasses
import importlib
import inspect
from typing import Any

import equinox as eqx
import jax
import numpy as np

from statsgd.arguments import is_traced

#: Units of settings, wherever they have these names. What is not here has none of its own.
UNITS = {
    "learning_rate": "time/step",
    "weight_decay": "1/time",
    "decoupled_weight_decay": "1/time",
    "batch_size": "examples",
    "temperature": "loss",
    "hessian": "loss/length²",
    "noise_covariance": "loss²/length²",
    "noise_strength": "1",
    "floor": "loss",
    "step_size": "time",
}

_WRITTEN = 6  # numbers of an array that a line holds
_LONGEST = 160  # letters of one setting


def number(value: Any) -> str:
    """A number, or an array of few, in six digits; of a large one, its shape and dtype."""
    if is_traced(value):
        return f"traced{list(np.shape(value))}"
    array = np.asarray(value)
    if array.size > _WRITTEN or array.dtype == object:
        return f"array{list(array.shape)} of {array.dtype}"
    if array.dtype.kind not in "fc":
        return str(array.tolist())
    listed = [f"{one:.6g}" for one in array.ravel()]
    for length in reversed(array.shape):
        rows = [listed[i : i + length] for i in range(0, len(listed), length)] if length else [[]]
        listed = [f"[{', '.join(row)}]" for row in rows]
    return listed[0]


def percent(value: float) -> str:
    """A difference in percent: signed, in two digits or in whole ones."""
    return f"{value:+.2g}" if abs(value) < 99.5 else f"{value:+.0f}"


def settings(value: Any) -> dict[str, str]:
    """Every setting of an object in words, those that are as by default left out."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if field.repr]
        fields = {name: getattr(value, name) for name in names if hasattr(value, name)}
    else:
        fields = {name: one for name, one in vars(value).items() if not name.startswith("_")}
    parameters = inspect.signature(type(value).__init__).parameters
    defaults = {name: one.default for name, one in parameters.items()}
    return {
        name: _in_words(name, one)
        for name, one in fields.items()
        if not (name in defaults and _same(one, defaults[name]))
    }


def spoken(value: Any) -> str:
    """An object as it would be written: its class with its settings, their values and units."""
    told = ", ".join(f"{name}={words}" for name, words in settings(value).items())
    return f"{type(value).__name__}({told})"


def html(result: Any) -> str:
    """What a notebook shows of a result: its section of a report."""
    # Reports stand above all that they show.
    return importlib.import_module("statsgd.reports").show(result)._repr_html_()


def figure(result: Any) -> Any:
    """The figures of a result as one Matplotlib figure."""
    return importlib.import_module("statsgd.reports").figure(result)


def _in_words(name: str, value: Any) -> str:
    if isinstance(value, np.ndarray | np.generic | jax.Array | float):
        words = number(value)
    elif callable(value) and hasattr(value, "__name__"):
        words = value.__name__
    elif dataclasses.is_dataclass(value) and type(value).__repr__ is eqx.Module.__repr__:
        words = spoken(value)
    else:
        words = " ".join(repr(value).split())
    words = words if len(words) <= _LONGEST else f"{words[: _LONGEST - 1]}…"
    return f"{words} {UNITS[name]}" if UNITS.get(name, "1") != "1" else words


def _same(value: Any, default: Any) -> bool:
    """Whether a setting is the default one."""
    if value is default:
        return True
    if is_traced(value) or default is inspect.Parameter.empty or default is None:
        return False
    if isinstance(value, np.ndarray | np.generic | jax.Array | float | int | str | bool):
        return (
            np.shape(value) == ()
            and isinstance(default, int | float | str)
            and bool(np.asarray(value)[()] == default)
        )
    return False
