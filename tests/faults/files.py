"""Data files of every known format, whole or damaged: what they say, or an error that names them.

A byte that is another one in an image without a check sum is another pixel: that many may differ.
"""

import gzip
import pickle
import struct
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from scipy.io import savemat

from statsgd.problems import Images
from studies.own_models import DATASETS
from tests.faults.fuzz import explored
from tests.faults.tally import Tally, judged

_IMAGES = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
_LABELS = np.arange(10, dtype=np.uint8)


class Case(NamedTuple):
    """One file of a data set, damaged."""

    dataset: str
    zipped: bool
    file: int
    """Which of its files."""
    kind: str
    places: tuple[float, ...]
    """Where, as shares of the length."""
    content: bytes


CASES = st.builds(
    Case,
    dataset=st.sampled_from([name for name in DATASETS if name != "digits"]),
    zipped=st.booleans(),
    file=st.integers(0, 4),
    kind=st.sampled_from(["whole", "cut", "longer", "other bytes", "early bytes", "only bytes"]),
    places=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4).map(tuple),
    content=st.binary(min_size=1, max_size=40),
)


def files(folder: Path, trials: int, seed: int) -> Tally:
    """Read `trials` data sets of which one file was changed."""
    folder = folder / "data"
    folder.mkdir()
    return explored(CASES, lambda case: _judge(folder, case), trials, seed)


def _judge(folder: Path, case: Case) -> Tally:
    for file in folder.iterdir():
        file.unlink()
    written = _write(folder, case.dataset, case.zipped)
    target = written[case.file % len(written)]
    before = target.read_bytes()
    after = damaged(before, case)
    target.write_bytes(after)
    changed = sum(one != other for one, other in zip(before, after, strict=False))
    grey = "mnist" in case.dataset
    images = _IMAGES[..., 0] if grey else _IMAGES

    def read() -> Images:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return DATASETS[case.dataset](str(folder))

    def is_right(found: Images) -> bool:
        if found.images.shape != images.shape or found.labels.shape != _LABELS.shape:
            return False
        different = np.sum(np.rint(255 * found.images) != images) + np.sum(found.labels != _LABELS)
        return bool(different <= (0 if case.zipped and grey else changed))

    what = f"{case.dataset}, {target.name} {case.kind} at {case.places}"
    return judged(what, read, is_right)


def damaged(content: bytes, case: Case) -> bytes:
    """What the case makes of the content of a file."""
    length = len(content)
    if case.kind == "cut":
        return content[: int(case.places[0] * length)]
    if case.kind == "longer":
        return content + case.content
    if case.kind == "only bytes":
        return case.content
    after = bytearray(content)
    if case.kind != "whole":
        reach = min(length, 200) if case.kind == "early bytes" else length
        for place, byte in zip(case.places, case.content, strict=False):
            after[int(place * reach)] = byte
    return bytes(after)


def _write(folder: Path, dataset: str, zipped: bool) -> list[Path]:
    if dataset == "svhn":
        pixels, labels = _IMAGES.transpose(1, 2, 3, 0), np.where(_LABELS == 0, 10, _LABELS)
        file = folder / "train_32x32.mat"
        savemat(file, {"X": pixels, "y": labels[:, None]}, do_compression=zipped)
        return [file]
    contents: dict[str, Any] = {}
    if dataset == "cifar10":
        rows = _IMAGES.transpose(0, 3, 1, 2).reshape(10, 3072)
        for i in range(5):
            part = slice(2 * i, 2 * i + 2)
            batch = {b"data": rows[part], b"labels": _LABELS[part].tolist()}
            contents[f"data_batch_{i + 1}"] = pickle.dumps(batch, protocol=2)
    else:
        for name, array in (("images-idx3", _IMAGES[..., 0]), ("labels-idx1", _LABELS)):
            header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
            content = header + array.tobytes()
            end = ".gz" if zipped else ""
            contents[f"train-{name}-ubyte{end}"] = gzip.compress(content) if zipped else content
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]
