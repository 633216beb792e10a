"""Checks of arguments: one clear error that names the argument, its value and what is allowed.

Every check returns the checked value. A traced value cannot be looked at and passes unchecked.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np


def told(value: Any) -> str:
    """What a wrong argument is, in words of one line: its kind, and its value where it is short."""
    if isinstance(value, type):
        return f"the class {value.__name__} itself, not an instance: {value.__name__}(…)"
    if isinstance(value, np.ndarray | jax.Array) and value.ndim:
        return f"an array of shape {value.shape}"
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return f"a {type(value).__name__} of {len(value)}"
    words = "" if callable(value) and hasattr(value, "__name__") else repr(value)
    if isinstance(value, str | int | float | bool | None):
        return words
    # Rich objects (data trees, tables) write whole pages.
    short = words if words.startswith(type(value).__name__) and "\n" not in words else ""
    name = getattr(value, "__name__", "") if callable(value) else ""
    return short[:200] or " ".join(filter(None, [f"a {type(value).__name__}", name]))


def instance(name: str, value: Any, kinds: Any, allowed: str, *, call: str = "") -> Any:
    """`value`, one of `kinds`, which are `allowed` in words; `call` shows the arguments in order.

    Says what was given instead: the class in place of an instance, arguments in another order.
    """
    if isinstance(value, kinds):
        return value
    order = f"; the arguments are {call}" if call else ""
    raise ValueError(f"{name} must be {allowed}, got {told(value)}{order}")


#: What arguments of one name are everywhere: their kind, and words for it.
_KINDS: dict[str, tuple[type, str]] = {}


def means(name: str, kind: type, allowed: str) -> None:
    """Say that every argument `name` of a function that is `kinds_checked` is of one kind."""
    _KINDS[name] = (kind, allowed)


def kinds_checked[**Given, Result](
    function: Callable[Given, Result],
) -> Callable[Given, Result]:
    """`function`, with one clear error for arguments of another kind than their names mean.

    What may be left out may be None.
    """
    parameters = list(inspect.signature(function).parameters.values())
    order = [one.name for one in parameters[:2] if one.kind is not one.KEYWORD_ONLY]
    more = ["…"] if len(parameters) > len(order) else []
    call = f"{function.__name__}({', '.join(order + more)})"

    @functools.wraps(function)
    def checked(*args: Given.args, **options: Given.kwargs) -> Result:
        for place, parameter in enumerate(parameters):
            name = parameter.name
            if name not in _KINDS or (place >= len(args) and name not in options):
                continue
            given = args[place] if place < len(args) else options[name]
            if given is not None or parameter.default is parameter.empty:
                instance(name, given, *_KINDS[name], call=call)
        return function(*args, **options)

    return checked


def is_traced(*values: Any) -> bool:
    """Whether any leaf of `values` is a JAX tracer, whose number is not known yet."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def real(name: str, value: Any, *, allowed: str, valid) -> Any:
    """`value` as a float64 array, or as it is when traced; `valid` is an elementwise predicate."""
    if is_traced(value):
        return value
    try:
        if np.asarray(value).dtype.kind in "US":  # "0.1" would be read as a number
            raise TypeError
        number = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be {allowed}, got {told(value)}") from None
    if not (np.all(np.isfinite(number)) and np.all(valid(number))):
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return number


def positive(name: str, value: Any) -> Any:
    """A positive finite number or array of them."""
    return real(name, value, allowed="positive and finite", valid=lambda x: x > 0)


def non_negative(name: str, value: Any) -> Any:
    """A non-negative finite number or array of them."""
    return real(name, value, allowed="non-negative and finite", valid=lambda x: x >= 0)


def fraction(name: str, value: Any) -> Any:
    """A number in [0, 1)."""
    return real(name, value, allowed="in [0, 1)", valid=lambda x: (x >= 0) & (x < 1))


def setting(name: str, value: Any) -> Any:
    """`value`, a setting of which there is one: a list of several is one for a grid."""
    if isinstance(value, list | tuple):
        raise ValueError(
            f"{name} must be one number, got {value!r}; for a run at each of several values see "
            f"statsgd.grid(dynamics, {name}={value!r})"
        )
    return value


def single(name: str, value: Any) -> Any:
    """One number, and no array of them; `value` was looked at before."""
    if np.ndim(value):
        raise ValueError(f"{name} must be one number, got an array of shape {np.shape(value)}")
    return value


def count(name: str, value: Any, *, at_least: int = 1, at_most: int | None = None) -> int:
    """An integer not below `at_least` nor above `at_most`; booleans and floats are refused."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} must be an integer of at least {at_least}, got {value!r}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {int(value)}")
    if at_most is not None and value > at_most:
        raise ValueError(f"{name} must be at most {at_most}, got {int(value)}")
    return int(value)


def random_seed(seed: Any) -> int:
    """A seed that JAX tells from all others: it takes larger ones modulo 2³²."""
    return count("seed", seed, at_least=0, at_most=2**32 - 1)


def step_count(name: str, value: Any, *, at_least: int = 1) -> int:
    """A number of steps that the counter of a run can hold, which has 32 bits."""
    return count(name, value, at_least=at_least, at_most=2**31 - 1)


def one_of(name: str, value: Any, allowed: Iterable[str]) -> str:
    """One of the words `allowed`."""
    words = tuple(allowed)
    if value not in words:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, words))}, got {value!r}")
    return value


def finite_array(name: str, value: Any, *, ndim: int | None = None) -> Any:
    """`value` as a floating array without NaN or infinity, of `ndim` axes where that is given."""
    if is_traced(value):
        return value
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} must be a rectangular array, got ragged rows") from None
    if array.dtype == object or not (
        jax.dtypes.issubdtype(array.dtype, np.number) or array.dtype == np.bool_
    ):
        raise ValueError(f"{name} must be an array of numbers, got dtype {array.dtype}")
    if jax.dtypes.issubdtype(array.dtype, np.complexfloating):
        raise ValueError(f"{name} must be real, got dtype {array.dtype}")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {array.shape}")
    bad = int(np.sum(~np.isfinite(np.asarray(array))))
    if bad:
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite entries")
    if not jax.dtypes.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)
    return array


def symmetric(name: str, value: Any, *, dimension: int | None = None, definite: str = "") -> Any:
    """A symmetric `(d, d)` float64 matrix.

    `definite` is "" (any), "semi" (no eigenvalue below minus 1e-10 of the largest) or "positive".
    """
    if is_traced(value):
        return value
    matrix = np.asarray(finite_array(name, value, ndim=2), dtype=np.float64)
    rows, columns = matrix.shape
    wanted = rows if dimension is None else dimension
    if rows != columns or rows != wanted:
        raise ValueError(f"{name} must have shape ({wanted}, {wanted}), got {matrix.shape}")
    scale = np.max(np.abs(matrix), initial=0.0)
    asymmetry = np.max(np.abs(matrix - matrix.T), initial=0.0)
    if asymmetry > 1e-5 * scale:
        raise ValueError(f"{name} must be symmetric, got an asymmetry of {asymmetry:.3g}")
    matrix = (matrix + matrix.T) / 2
    if definite and not (definite == "semi" and _has_root(matrix, 1e-10 * scale)):
        smallest = float(np.linalg.eigvalsh(matrix)[0])
        floor = -1e-10 * scale if definite == "semi" else 0.0
        if smallest < floor or (definite == "positive" and smallest <= 0):
            word = "positive semi-definite" if definite == "semi" else "positive definite"
            raise ValueError(f"{name} must be {word}, got smallest eigenvalue {smallest:.6g}")
    return matrix


def _has_root(matrix: Any, shift: float) -> bool:
    """Whether `matrix` + `shift` is positive definite, at a fraction of the cost of eigenvalues."""
    try:
        np.linalg.cholesky(matrix + shift * np.eye(len(matrix)))
    except np.linalg.LinAlgError:
        return False
    return True


def location_vector(location: Any, d: int, *, name: str = "location") -> Any:
    """`location` as a `(d,)` float64 vector, zero by default; `ValueError` for another shape."""
    if location is None:
        return np.zeros(d)
    vector = finite_array(name, location, ndim=1)
    if vector.shape != (d,):
        raise ValueError(f"{name} must have shape ({d},), got {vector.shape}")
    return vector if is_traced(vector) else np.asarray(vector, dtype=np.float64)
