"""Readers of standard image data sets from files that the user has; nothing is downloaded."""

import gzip
import io
import math
import pickle
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from statsgd.arguments import one_of

_SPLITS = ("train", "test")
_CLASSES = 10

#: First word of an idx file: two zero bytes, 8 for bytes, and the number of axes.
_IDX_MAGIC = {1: 0x00000801, 3: 0x00000803}
_MNIST_NAMES = {"train": "train", "test": "t10k"}
_CIFAR_BATCHES = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
_CIFAR_FOLDER = "cifar-10-batches-py"


class Images(NamedTuple):
    """Images with their classes."""

    images: Float[Any, "n height width *channels"]
    """float32 in [0, 1]; grey images have no axis of channels."""
    labels: Int[Any, " n"]
    """Classes 0, …, 9, int32."""


def read_mnist(folder: str | Path, split: str = "train") -> Images:
    """MNIST, or FashionMNIST and others in its format, from idx files, plain or gzipped.

    Reads `train-images-idx3-ubyte` and `train-labels-idx1-ubyte` (`t10k-…` for the test split),
    also with `.gz` or with a dot for the last hyphen, from `folder` or from `raw` within. Images
    have shape `(n, height, width)`, 28 × 28 in the published sets.

    Raises `FileNotFoundError` for a missing file, and `ValueError` for one that is not of the
    format, cut off, or longer than its header says, for numbers of images and labels that differ
    and for labels outside 0 to 9; both name the file and what was expected.

    >>> import struct, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:  # one image, as MNIST has them
    ...     stem = Path(folder, "train-")
    ...     image = struct.pack(">4i4B", 2051, 1, 2, 2, 0, 0, 255, 255)
    ...     _ = Path(f"{stem}images-idx3-ubyte").write_bytes(image)
    ...     _ = Path(f"{stem}labels-idx1-ubyte").write_bytes(struct.pack(">2iB", 2049, 1, 7))
    ...     data = read_mnist(folder)
    >>> data.images.tolist(), data.labels.tolist()
    ([[[0.0, 0.0], [1.0, 1.0]]], [7])
    """
    stem = _MNIST_NAMES[one_of("split", split, _SPLITS)]
    image_file = _idx_file(folder, f"{stem}-images", 3)
    label_file = _idx_file(folder, f"{stem}-labels", 1)
    return _checked(_read_idx(image_file, 3), _read_idx(label_file, 1), image_file, label_file)


def read_cifar10(folder: str | Path, split: str = "train") -> Images:
    """CIFAR-10 from the batches of its "python version", images `(n, 32, 32, 3)`.

    Reads `data_batch_1` to `data_batch_5`, or `test_batch`, from `folder` or from
    `cifar-10-batches-py` within. The batches are pickles, which can run any code: these are read
    by an unpickler that builds nothing but arrays of numbers, dictionaries, lists, strings and
    bytes.

    Raises as `read_mnist`; `ValueError` also for a pickle that holds anything else.

    >>> import numpy as np, pickle, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:  # one black image, as CIFAR-10 has them
    ...     batch = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [7]}
    ...     _ = Path(folder, "test_batch").write_bytes(pickle.dumps(batch))
    ...     data = read_cifar10(folder, split="test")
    >>> data.images.shape, data.labels.tolist()
    ((1, 32, 32, 3), [7])
    """
    names = _CIFAR_BATCHES[one_of("split", split, _SPLITS)]
    paths = [_existing(folder, (name,), _CIFAR_FOLDER) for name in names]
    parts = [_read_cifar_batch(path) for path in paths]
    return Images(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


def read_svhn(folder: str | Path, split: str = "train") -> Images:
    """Street View House Numbers, cropped digits, from `train_32x32.mat` or `test_32x32.mat`.

    Images have shape `(n, 32, 32, 3)`. The file's label 10 stands for the digit 0, and is 0 here.
    Raises as `read_mnist`.

    >>> import numpy as np, scipy.io, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:  # of one black image in the format of SVHN
    ...     images = {"X": np.zeros((32, 32, 3, 1), np.uint8), "y": np.array([[10]], np.uint8)}
    ...     scipy.io.savemat(f"{folder}/train_32x32.mat", images)
    ...     data = read_svhn(folder)
    >>> data.images.shape, data.labels.tolist()
    ((1, 32, 32, 3), [0])
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    path = _existing(folder, (f"{one_of('split', split, _SPLITS)}_32x32.mat",))
    try:
        content = loadmat(path, variable_names=("X", "y"))
    # SciPy raises these, by where the file ends or what stands in its header.
    except (
        MatReadError, NotImplementedError, OSError, IndexError, TypeError, ValueError, zlib.error
    ) as error:  # fmt: skip
        raise ValueError(
            f"{str(path)!r} must be a MATLAB file (version 5), which is cut off or something "
            f"else: {error}"
        ) from None
    missing = [name for name in ("X", "y") if name not in content]
    if missing:
        raise ValueError(f"{str(path)!r} must hold the arrays X and y, got no {missing[0]}")
    pixels, labels = content["X"], np.asarray(content["y"]).reshape(-1)
    if pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3):
        raise ValueError(f"X in {str(path)!r} must have shape (32, 32, 3, n), got {pixels.shape}")
    outside = (labels < 1) | (labels > _CLASSES)
    if np.any(outside):
        raise ValueError(f"labels in {str(path)!r} must lie in 1, …, 10, got {labels[outside][0]}")
    return _checked(np.moveaxis(pixels, 3, 0), labels % _CLASSES, path, path)


def _idx_file(folder: str | Path, stem: str, axes: int) -> Path:
    names = [f"{stem}{mark}idx{axes}-ubyte{end}" for end in ("", ".gz") for mark in ("-", ".")]
    return _existing(folder, names, "raw")


def _existing(folder: str | Path, names: Sequence[str], within: str = "") -> Path:
    """The first of `names` that is a file in `folder`, or in the folder `within` it."""
    root = Path(folder)
    for place in (root, root / within):
        for name in names:
            if (place / name).is_file():
                return place / name
    also = f" or its folder {within!r}" if within else ""
    found = "it does not" if root.is_dir() else "there is no such folder"
    raise FileNotFoundError(
        f"the folder {str(root)!r}{also} must hold {' or '.join(map(repr, names))}, but {found}: "
        "nothing is downloaded"
    )


def _read_idx(path: Path, axes: int) -> np.ndarray:
    raw = path.read_bytes()
    if path.suffix == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{str(path)!r} must be a whole gzip file: {error}") from None
    header = 4 * (1 + axes)
    words = np.frombuffer(raw[: min(len(raw) // 4 * 4, header)], dtype=">u4")
    magic = _IDX_MAGIC[axes]
    if len(words) == 0 or words[0] != magic:
        found = f"{int(words[0]):#010x}" if len(words) else f"{len(raw)} bytes"
        raise ValueError(
            f"{str(path)!r} must begin with the magic number {magic:#010x} of an idx file of bytes "
            f"with {axes} axes, got {found}"
        )
    if len(raw) < header:
        raise ValueError(
            f"{str(path)!r} must have a header of {header} bytes, got {len(raw)}: it is cut off"
        )
    shape = tuple(int(word) for word in words[1 : 1 + axes])
    expected = header + math.prod(shape)
    if len(raw) != expected:
        what = "it is cut off" if len(raw) < expected else "it is too long"
        raise ValueError(
            f"{str(path)!r} must have {expected} bytes for shape {shape}, got {len(raw)}: {what}"
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)


def _read_cifar_batch(path: Path) -> Images:
    try:
        content = _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    # What `pickle` raises on damaged input is not one type: any of these, by where it was hit.
    except (
        pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError,
        MemoryError, OverflowError, TypeError, ValueError,
    ) as error:  # fmt: skip
        raise ValueError(
            f"{str(path)!r} must be a pickled CIFAR-10 batch, which is cut off or something else: "
            f"{error}"
        ) from None
    if not isinstance(content, dict) or not {b"data", b"labels"} <= set(content):
        raise ValueError(f"{str(path)!r} must hold a dictionary with the keys data and labels")
    pixels, labels = content[b"data"], content[b"labels"]
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.shape[1:] != (3072,)
    ):
        got = getattr(pixels, "shape", type(pixels).__name__)
        raise ValueError(f"data in {str(path)!r} must be bytes of shape (n, 3072), got {got}")
    if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
        raise ValueError(f"labels in {str(path)!r} must be a list of integers")
    # A row holds the red plane, then the green and the blue one.
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return _checked(images, np.asarray(labels, dtype=np.int64), path, path)


class _PlainUnpickler(pickle.Unpickler):
    """Builds containers, strings, numbers and arrays of numbers; refuses any other name."""

    #: Names that a pickled array or a Python 2 byte string refers to.
    allowed = frozenset(
        (module, name)
        for names, modules in (
            (("_reconstruct",), ("numpy.core.multiarray", "numpy._core.multiarray")),
            (("ndarray", "dtype"), ("numpy",)),
            (("encode",), ("_codecs",)),
        )
        for module in modules
        for name in names
    )

    def find_class(self, module: str, name: str) -> Any:
        """The object called `name`, if an array of numbers needs it."""
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a data set")
        # NumPy 2 has moved what older pickles name.
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _checked(pixels: np.ndarray, labels: Any, image_file: Path, label_file: Path) -> Images:
    """Bytes to floats in [0, 1], if numbers and labels are as they must be."""
    if pixels.dtype != np.uint8:
        raise ValueError(f"pixels in {str(image_file)!r} must be bytes, got {pixels.dtype}")
    if len(pixels) != len(labels) or len(pixels) == 0:
        raise ValueError(
            f"{str(image_file)!r} and {str(label_file)!r} must hold one label an image, got "
            f"{len(pixels)} images and {len(labels)} labels"
        )
    outside = (labels < 0) | (labels >= _CLASSES)
    if np.any(outside):
        raise ValueError(
            f"labels in {str(label_file)!r} must lie in 0, …, 9, got {labels[outside][0]}"
        )
    return Images(pixels.astype(np.float32) / 255, labels.astype(np.int32))
