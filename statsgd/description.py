"""What decides a result, in plain values: settings, data, and the code that is called.

Code of installed packages is known by name. Code of the user is described with all that it reaches:
closures, defaults, fields of objects that are called, the globals it reads, and those that these
read in turn. What has no exact description is marked as such, and a store refuses it.
"""

import builtins
import copyreg
import dataclasses
import dis
import enum
import functools
import hashlib
import inspect
import site
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

UNDESCRIBED = "cannot be described exactly"

_LISTED = 64  # arrays of up to this many numbers are written out, larger ones by their digest


def describe(value: Any, *, code: bool = True) -> Any:
    """`value` as plain JSON values, different for values that compute different things.

    Objects become their class's name and their fields, large arrays a digest of their bytes,
    functions their name and a digest of their code with everything they reach. Without `code`
    functions and classes are their names alone. What has no exact description becomes
    `{UNDESCRIBED: its type}`.
    """
    return _Description(code).of(value)


def undescribed(description: Any, path: str = "") -> str | None:
    """Where in a description something is that has none, and what: "a.b, a generator"."""
    if isinstance(description, list):
        description = {str(i): part for i, part in enumerate(description)}
    if not isinstance(description, dict):
        return None
    if UNDESCRIBED in description:
        return f"{path}, {description[UNDESCRIBED]}"
    parts = description.items()
    found = (undescribed(part, f"{path}.{name}" if path else name) for name, part in parts)
    return next(filter(None, found), None)


class _Description:
    """One description: what was said in it once is not said again."""

    def __init__(self, code: bool):
        self.code = code
        self.said: set[int] = set()
        self.within: list[int] = []

    def of(self, value: Any) -> Any:
        if isinstance(value, str | int | float | bool | None) and not isinstance(value, enum.Enum):
            return value
        if id(value) in self.within:
            return {"within": type(value).__name__}  # of itself
        self.within.append(id(value))
        try:
            return self._composed(value)
        finally:
            self.within.pop()

    def _composed(self, value: Any) -> Any:
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return self._array(value)
        if isinstance(value, Mapping):
            return {_text(key): self.of(item) for key, item in value.items()}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            fields = dict(zip(value._fields, value, strict=True))
            return {"name": type(value).__name__} | self._fields(fields)
        if isinstance(value, list | tuple):
            return [self.of(item) for item in value]
        if isinstance(value, set | frozenset):
            return {"set": sorted((self.of(item) for item in value), key=repr)}
        if isinstance(value, bytes | bytearray):
            return {"sha256": hashlib.sha256(value).hexdigest()}
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.ModuleType):
            return f"module {value.__name__}" if _is_installed(value) else _none_of(value)
        if isinstance(value, types.MethodType):
            return {"function": value.__qualname__, "of": self.of(value.__self__)}
        if isinstance(value, functools.partial):
            wrapped = {"wrapped": self.of(value.func), "args": self.of(value.args)}
            return wrapped | {"keywords": self.of(value.keywords)}
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.BuiltinFunctionType) and _is_installed_name(value):
            return {"function": f"{value.__module__}.{value.__qualname__}"}
        if dataclasses.is_dataclass(value):
            return self._object(value, _fields_of(value))
        inner = getattr(value, "__wrapped__", None)
        if inner is not None:  # a jitted function, or one with a gradient of its own
            rules = {k: v for k, v in vars(value).items() if not k.startswith("__")}
            return {"wrapped": self.of(inner)} | self._fields(rules)
        return self._pickled(value)

    def _array(self, value: Any) -> Any:
        if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            data = np.asarray(jax.random.key_data(value))
            return {"key": str(value.dtype), "words": data.tolist()}
        array = np.asarray(value)
        if array.dtype == object:
            return {"shape": list(array.shape), "items": [self.of(item) for item in array.flat]}
        if array.size <= _LISTED and array.dtype.kind in "biufU":
            listed = array.tolist()
            plain = array.size and (array.dtype.kind in "bU" or array.dtype in (int, float))
            if plain:  # the list says all
                return listed
            return {"shape": list(array.shape), "dtype": str(array.dtype), "values": listed}
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest}

    def _fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {str(name): self.of(item) for name, item in fields.items()}

    def _object(self, value: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        found = {"name": type(value).__name__} | self._fields(fields)
        if self.code and not _is_installed_name(type(value)):
            found["class code"] = self._class(type(value))
        return found

    def _pickled(self, value: Any) -> Any:
        """An object as pickle would keep it."""
        try:
            kept = value.__reduce_ex__(2)
        except Exception:  # whatever an object raises that is not meant to be copied
            return _none_of(value)
        if isinstance(kept, str):
            return {"name": f"{type(value).__module__}.{kept}"}
        make, arguments, state, *items = (*kept, *(None,) * 5)[:5]
        if make is copyreg.__newobj__ and len(arguments) == 1:  # type: ignore[attr-defined]
            arguments = ()
        if make is copyreg.__newobj__ or _is_installed_name(type(value)):  # type: ignore[attr-defined]
            make = type(value)
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], Mapping):
            state = {**(state[0] or {}), **state[1]}  # with slots
        fields = _kept_fields(type(value), state) if isinstance(state, Mapping) else {}
        found = self._object(value, fields)
        rest = {
            "made by": None if make is type(value) else make,
            "of": [argument for argument in arguments if argument is not type(value)] or None,
            "state": None if isinstance(state, Mapping) else state,
            "items": [list(part) for part in items if part is not None] or None,
        }
        return found | self._fields({name: part for name, part in rest.items() if part is not None})

    def _class(self, value: type) -> Any:
        name = f"{value.__module__}.{value.__qualname__}"
        if _is_installed_name(value) or not self.code or id(value) in self.said:
            return name
        self.said.add(id(value))
        found: dict[str, Any] = {"class": name}
        for above in value.__mro__:
            if not _is_installed_name(above):
                found |= {k: self.of(v) for k, v in _attributes(above) if k not in found}
        bases = [base for base in value.__mro__ if _is_installed_name(base)]
        return found | {"bases": [f"{base.__module__}.{base.__qualname__}" for base in bases]}

    def _function(self, function: types.FunctionType) -> Any:
        own_module = str(function.__globals__.get("__name__", ""))
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None and own_module.split(".")[0] in _TYPE_CHECKERS:
            return self.of(wrapped)
        found: dict[str, Any] = {"function": f"{function.__module__}.{function.__qualname__}"}
        named_alone = function.__closure__ is None and id(function) in self.said
        if not self.code or named_alone:
            return found
        self.said.add(id(function))
        found["code"] = _digest(function.__code__)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        enclosed = {name: _contents(cell) for name, cell in cells}
        parts = {
            "closure": enclosed,
            "defaults": function.__defaults__,
            "keyword defaults": function.__kwdefaults__,
            "globals": {} if _is_library(own_module) else _globals_of(function),
        }
        return found | {name: self.of(part) for name, part in parts.items() if part}


#: Packages whose wrappers of functions change nothing that they compute.
_TYPE_CHECKERS = {"beartype", "jaxtyping"}

#: Methods whose work shows in the fields of an object, or not at all, and what classes know of
#: themselves.
_NOT_CODE = {
    "__init__", "__post_init__", "__check_init__", "__repr__", "__str__", "__eq__", "__hash__",
    "__setattr__", "__delattr__", "__getstate__", "__setstate__", "__reduce__", "__replace__",
    "__lt__", "__le__", "__gt__", "__ge__", "__init_subclass__", "__annotate__",
}  # fmt: skip


def _none_of(value: Any) -> dict[str, str]:
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    name = getattr(value, "__name__", None)
    return {UNDESCRIBED: f"{kind} {name}" if isinstance(name, str) else kind}


def _text(key: Any) -> str:
    return key if isinstance(key, str) else repr(key)


def _fields_of(value: Any) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(value)]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _kept_fields(kind: type, state: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an object without those that are computed from others when first read."""

    def is_cache(name: str) -> bool:
        descriptor = inspect.getattr_static(kind, str(name), None)
        return hasattr(descriptor, "__get__") and not hasattr(descriptor, "__set__")

    return {str(name): item for name, item in state.items() if not is_cache(name)}


def _attributes(kind: type) -> Iterator[tuple[str, Any]]:
    """What a class's body says."""
    for name, item in vars(kind).items():
        if name in _NOT_CODE or name.startswith("_abc_"):
            continue
        if isinstance(item, staticmethod | classmethod):
            item = item.__func__
        elif isinstance(item, property):
            item = item.fget
        elif isinstance(item, functools.cached_property):
            item = item.func
        is_code = isinstance(item, types.FunctionType)
        if is_code or not (name.startswith("__") or isinstance(item, types.MemberDescriptorType)):
            yield name, item


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that the enclosing function never set
        return None


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _globals_of(function: types.FunctionType) -> dict[str, Any]:
    """The globals that a function reads, by dotted name where they lie in modules of the user."""
    found: dict[str, Any] = {}
    for code in _codes(function.__code__):
        steps = list(dis.get_instructions(code))
        for i, step in enumerate(steps):
            if step.opname == "IMPORT_NAME":
                module = sys.modules.get(step.argval)
                if module is None or not _is_installed(module):
                    found[step.argval] = types.ModuleType(step.argval)
            if step.opname not in ("LOAD_GLOBAL", "LOAD_NAME"):
                continue
            name = step.argval
            if name not in function.__globals__:
                continue
            value = function.__globals__[name]
            for after in steps[i + 1 :]:
                if not isinstance(value, types.ModuleType) or after.opname not in (
                    "LOAD_ATTR",
                    "LOAD_METHOD",
                ):
                    break
                if _is_installed(value) or not hasattr(value, after.argval):
                    break
                name, value = f"{name}.{after.argval}", getattr(value, after.argval)
            if not (isinstance(value, types.ModuleType) and _is_installed(value)):
                found[name] = value
    return dict(sorted(found.items()))


@functools.cache
def _installed_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    named = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple(Path(path).resolve() for path in [*named, *site.getsitepackages()])


@functools.cache
def _is_library(name: str) -> bool:
    """Whether the module of this name belongs to an installed package."""
    top = name.split(".")[0]
    if top == "statsgd" or top in sys.stdlib_module_names:
        return True
    files = (getattr(sys.modules.get(module), "__file__", None) for module in (name, top))
    file = next(filter(None, files), None)
    if file is None:
        return False
    return any(Path(file).resolve().is_relative_to(folder) for folder in _installed_folders())


def _is_installed(module: types.ModuleType) -> bool:
    return _is_library(module.__name__)


def _is_installed_name(value: Any) -> bool:
    """Whether a function or class belongs to an installed package, which says what it is."""
    module = getattr(value, "__module__", None) or builtins.__name__
    return _is_library(module)


def _digest(code: types.CodeType) -> str:
    sha = hashlib.sha256(code.co_code)
    for constant in code.co_consts[bool(code.co_flags & _HAS_DOCSTRING) :]:
        if isinstance(constant, types.CodeType):
            sha.update(_digest(constant).encode())
        elif isinstance(constant, frozenset):
            sha.update(repr(sorted(map(repr, constant))).encode())
        else:
            sha.update(repr(constant).encode())
    sha.update(repr(code.co_names).encode())
    return sha.hexdigest()


_HAS_DOCSTRING = 0x4000000
