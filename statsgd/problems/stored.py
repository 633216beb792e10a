"""Examples that stay on disk: arrays read in slices, and batches kept in temporary files."""

import contextlib
import hashlib
import math
import mmap
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree
from tqdm.auto import tqdm

from statsgd.progress import silent

#: Most bytes of temporary files that examples which come in batches may take, or None for half of
#: what is free where they lie when the first batch comes: a loader may never end.
DISK_BUDGET: int | None = None

_READ = 2**24  # bytes that are looked at at once
_PATIENCE = 5.0  # seconds after which a progress bar appears


class Stored:
    """An array on disk (a `np.memmap`, a Zarr array or one like it) that is read as it is needed.

    It is read through once when it is made, for a digest and for numbers that are not finite.
    Memory does not grow with it.
    """

    def __init__(self, name: str, array: Any, *, owner: Any = None):
        self.array, self.owner = array, owner
        self.shape, self.dtype = tuple(array.shape), np.dtype(array.dtype)
        self.digest = self._look(name)

    def _look(self, name: str) -> str:
        """A digest of all rows. Raises `ValueError` for NaN and infinite numbers."""
        rows = max(_READ // max(math.prod(self.shape[1:]) * self.dtype.itemsize, 1), 1)
        digest = hashlib.sha256(f"{self.shape}{self.dtype}".encode())
        starts = range(0, self.shape[0], rows)
        for first in tqdm(starts, desc=name, delay=_PATIENCE, leave=False, disable=silent(True)):
            part = self[first : first + rows]
            digest.update(np.ascontiguousarray(part).tobytes())
            bad = 0 if part.dtype.kind in "biu" else int(np.sum(~np.isfinite(part)))
            if bad:
                raise ValueError(
                    f"{name} must be finite, got {bad} NaN or infinite entries in rows "
                    f"{first} to {first + len(part) - 1}"
                )
        return digest.hexdigest()

    def __getitem__(self, rows: Any) -> np.ndarray:
        part = np.array(self.array[rows])
        pages = getattr(self.array, "_mmap", None)
        # Pages that were read would stay in the memory of the process as long as there is room.
        if pages is not None and self.array.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)
        return part

    def __reduce__(self) -> tuple[Any, ...]:
        """What a store knows of it: its content."""
        return _described, (list(self.shape), str(self.dtype), self.digest)

    def fetch(self, indices: Int[Array, "..."]) -> Array:
        """The rows at `indices`, from within a program."""
        dtype, shape = np.dtype(self._inner()), (*indices.shape, *self.shape[1:])

        def read(wanted: Any) -> np.ndarray:
            rows = self._rows(wanted).astype(dtype, copy=False)
            return rows[..., None].view(np.uint32) if dtype.itemsize == 8 else rows

        # The thread that reads does not know that the program has 64 bits: they pass as two words.
        if dtype.itemsize == 8:
            words = jax.ShapeDtypeStruct((*shape, 2), jnp.uint32)
            found = jax.pure_callback(read, words, indices, vmap_method="expand_dims")
            return jax.lax.bitcast_convert_type(found, dtype)
        whole = jax.ShapeDtypeStruct(shape, dtype)
        return jax.pure_callback(read, whole, indices, vmap_method="expand_dims")

    def _rows(self, indices: Any) -> np.ndarray:
        wanted = np.asarray(indices)
        places, inverse = np.unique(wanted.reshape(-1), return_inverse=True)
        first, last = int(places[0]), int(places[-1])
        whole = last - first + 1 == len(places)
        found = self[slice(first, last + 1) if whole else places]
        return found[inverse].reshape(*wanted.shape, *self.shape[1:])

    def _inner(self) -> Any:
        """The dtype that programs see: the current precision for numbers that are not integers."""
        floating = np.issubdtype(self.dtype, np.floating)
        return jnp.result_type(float) if floating else jax.dtypes.canonicalize_dtype(self.dtype)


def _described(shape: list[int], dtype: str, digest: str) -> Any:
    raise TypeError(f"examples on disk cannot be copied: {shape}, {dtype}, {digest}")


def is_on_disk(leaf: Any) -> bool:
    """Whether `leaf` is an array that should be read in slices: mapped, or kept in chunks."""
    sliced = all(hasattr(leaf, name) for name in ("shape", "dtype", "chunks", "__getitem__"))
    return isinstance(leaf, np.memmap) or sliced


def is_in_batches(examples: Any) -> bool:
    """Whether `examples` is an iterable of batches, or a function that returns one."""
    if isinstance(examples, dict | list | tuple | str | bytes) or hasattr(examples, "shape"):
        return False
    return hasattr(examples, "__iter__") or (
        callable(examples) and jax.tree_util.all_leaves([examples])
    )


def kept_on_disk(batches: Iterable[PyTree] | Callable[[], Iterable[PyTree]]) -> PyTree:
    """All examples of an iterable of batches, in temporary files; read once, batch by batch.

    Raises `ValueError` for no batch, for batches whose arrays do not fit together, and before the
    files are larger than `DISK_BUDGET`.
    """
    folder = _Folder()
    try:
        structure, forms, number = _written(batches, folder)
    except BaseException:
        folder.remove()
        raise
    if not number:
        raise ValueError("examples must hold at least one batch, got an empty iterable")
    stored = [
        Stored(
            f"examples[{i}]",
            np.memmap(folder.path / str(i), dtype, "r", shape=(number, *shape)),
            owner=folder,
        )
        for i, (shape, dtype) in enumerate(forms)
    ]
    return jax.tree.unflatten(structure, stored)


def _written(
    batches: Iterable[PyTree] | Callable[[], Iterable[PyTree]], folder: "_Folder"
) -> tuple[Any, list[tuple[Any, Any]], int]:
    """Structure, shapes and dtypes, and number of the examples that files of a folder then hold."""
    budget = shutil.disk_usage(folder.path).free // 2 if DISK_BUDGET is None else DISK_BUDGET
    structure, forms, number, written = None, [], 0, 0
    with contextlib.ExitStack() as opened:
        files: list[BinaryIO] = []
        for leaves, found in _flattened(iter(batches() if callable(batches) else batches)):
            if structure is None:
                structure, forms = found, [(leaf.shape[1:], leaf.dtype) for leaf in leaves]
                files = [
                    opened.enter_context((folder.path / str(i)).open("wb"))
                    for i in range(len(leaves))
                ]
            _require_alike(leaves, found == structure, forms, number)
            written += sum(
                len(leaf) * math.prod(shape) * dtype.itemsize
                for leaf, (shape, dtype) in zip(leaves, forms, strict=True)
            )
            if written > budget:
                raise ValueError(
                    f"examples must fit into {budget} bytes of temporary files in "
                    f"{folder.path.parent}, got {number} examples of them and more to come: let an "
                    "iterable that repeats its data end after one epoch, give arrays on disk "
                    "(np.memmap, Zarr), or set problems.stored.DISK_BUDGET, or TMPDIR to another "
                    "disk"
                )
            number += leaves[0].shape[0]
            for file, leaf, (_, dtype) in zip(files, leaves, forms, strict=True):
                file.write(np.ascontiguousarray(leaf, dtype=dtype).tobytes())
    return structure, forms, number


def _require_alike(
    leaves: list[np.ndarray], alike: bool, forms: list[tuple[Any, Any]], number: int
) -> None:
    """Raise `ValueError` for a batch that does not go on with those before it."""
    shapes = [leaf.shape[1:] for leaf in leaves] == [shape for shape, _ in forms]
    if not (alike and shapes) or len({leaf.shape[0] for leaf in leaves}) != 1:
        raise ValueError(
            "examples must come in batches of arrays that differ in their number alone, "
            f"got shapes {[leaf.shape for leaf in leaves]} after {number} examples"
        )
    for leaf, (_, dtype) in zip(leaves, forms, strict=True):
        if not np.can_cast(leaf.dtype, dtype, "same_kind"):
            raise ValueError(
                "examples must come in batches of arrays of one dtype, got "
                f"{leaf.dtype} after {number} examples of {dtype}"
            )


class _Folder:
    """A temporary folder that is gone when nothing refers to it any more."""

    def __init__(self):
        self.path = Path(tempfile.mkdtemp(prefix="statsgd-examples-"))
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _flattened(batches: Iterator[PyTree]) -> Iterator[tuple[list[np.ndarray], Any]]:
    for batch in tqdm(batches, desc="batches", delay=_PATIENCE, leave=False, disable=silent(True)):
        leaves, structure = jax.tree.flatten(batch)
        arrays = [_array(leaf) for leaf in leaves]
        if not arrays or any(array.ndim == 0 for array in arrays):
            raise ValueError(
                "examples must be batches of arrays with a leading axis over examples, got "
                f"{type(batch).__name__} of shapes {[array.shape for array in arrays]}"
            )
        strange = [str(array.dtype) for array in arrays if array.dtype.kind in "OSUMm"]
        if strange:
            raise ValueError(f"examples must be batches of numbers, got dtype {strange[0]}")
        yield arrays, structure


def _array(leaf: Any) -> np.ndarray:
    """An array of NumPy; also of a tensor that has no other way to one than `numpy()`."""
    convert = None if hasattr(leaf, "__array__") else getattr(leaf, "numpy", None)
    return np.asarray(leaf if convert is None else convert())
