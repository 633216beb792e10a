"""Readers of image data sets, on small files of the same formats."""

import gzip
import io
import os
import pickle
import struct

import numpy as np
import pytest
from scipy.io import savemat

from statsgd.problems import empirical_risk, read_cifar10, read_mnist, read_svhn
from statsgd.problems.datasets import _PlainUnpickler

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 4, 3), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
LABELS = np.array([3, 0, 9, 1, 5], dtype=np.uint8)


def idx(array):
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    return header + array.tobytes()


def write_mnist(folder, *, images=None, labels=None, stem="train", mark="-", zipped=False):
    folder.mkdir(exist_ok=True)
    contents = {
        f"{stem}-images{mark}idx3-ubyte": idx(GREY) if images is None else images,
        f"{stem}-labels{mark}idx1-ubyte": idx(LABELS) if labels is None else labels,
    }
    for name, content in contents.items():
        path = folder / (name + ".gz" * zipped)
        path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


def write_cifar(folder, names=("test_batch",), changes=None):
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        rows = COLOUR[i : i + 2].transpose(0, 3, 1, 2).reshape(2, 3072)
        content = {b"data": rows, b"labels": [i, 9], b"batch_label": b"x"}
        (folder / name).write_bytes(pickle.dumps(content | (changes or {}), protocol=2))
    return folder


def assert_scaled(images, raw):
    assert images.dtype == np.float32
    np.testing.assert_allclose(images, raw / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("split", "form"),
    [
        ("train", {}),
        ("test", {"stem": "t10k", "zipped": True}),
        ("train", {"mark": ".", "zipped": True}),
    ],
)
def test_mnist(tmp_path, split, form):
    images, labels = read_mnist(write_mnist(tmp_path, **form), split)
    assert_scaled(images, GREY)
    np.testing.assert_array_equal(labels, LABELS)
    assert labels.dtype == np.int32


def test_mnist_in_the_folder_that_torchvision_makes(tmp_path):
    write_mnist(tmp_path / "raw")
    assert len(read_mnist(str(tmp_path)).labels) == 5


def test_cifar(tmp_path):
    images, labels = read_cifar10(write_cifar(tmp_path), "test")
    assert_scaled(images, COLOUR[:2])
    np.testing.assert_array_equal(labels, [0, 9])
    names = [f"data_batch_{i}" for i in range(1, 6)]
    (tmp_path / "other").mkdir()
    write_cifar(tmp_path / "other" / "cifar-10-batches-py", names)
    images, labels = read_cifar10(tmp_path / "other")
    assert_scaled(images[2:4], COLOUR[1:3])
    np.testing.assert_array_equal(labels, [0, 9, 1, 9, 2, 9, 3, 9, 4, 9])


def test_cifar_pickled_by_python_2():
    # Written by Python 2 and NumPy 1, as the published files are: `numpy.core`, byte strings.
    assert ("numpy.core.multiarray", "_reconstruct") in _PlainUnpickler.allowed
    array = np.arange(6, dtype=np.uint8)
    old = pickle.dumps(array, protocol=2).replace(b"numpy._core", b"numpy.core")
    np.testing.assert_array_equal(_PlainUnpickler(io.BytesIO(old)).load(), array)


def test_svhn(tmp_path):
    labels = np.array([[1], [10], [9], [2], [3], [4]], dtype=np.uint8)
    savemat(tmp_path / "train_32x32.mat", {"X": COLOUR.transpose(1, 2, 3, 0), "y": labels})
    images, found = read_svhn(tmp_path)
    assert_scaled(images, COLOUR)
    np.testing.assert_array_equal(found, [1, 0, 9, 2, 3, 4])


def test_images_make_a_problem(tmp_path):
    images, labels = read_mnist(write_mnist(tmp_path))
    problem = empirical_risk(
        lambda p, example: (example[0].sum() * p - example[1]) ** 2, (images, labels), np.zeros(())
    )
    assert problem.num_examples == 5


def test_missing_files_are_named(tmp_path):
    missing = r"nowhere' or its folder 'raw' must hold 'train-images-idx3-ubyte'.*no such folder"
    with pytest.raises(FileNotFoundError, match=missing):
        read_mnist(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"'t10k-images-idx3-ubyte'.*'t10k.*ubyte\.gz'"):
        read_mnist(tmp_path, "test")
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"'train-labels-idx1-ubyte'.* does not: nothing"):
        read_mnist(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere'.* must hold 'test_batch', but there is"):
        read_cifar10(tmp_path / "nowhere", "test")
    with pytest.raises(FileNotFoundError, match="'data_batch_2'"):
        read_cifar10(write_cifar(tmp_path, ("data_batch_1",)))
    with pytest.raises(FileNotFoundError, match=r"'test_32x32\.mat'"):
        read_svhn(tmp_path, "test")
    with pytest.raises(ValueError, match="split must be one of 'train', 'test', got 'val'"):
        read_svhn(tmp_path, "val")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": idx(GREY)[:-7]},
            r"must have 76 bytes for shape \(5, 4, 3\), got 69: it is cut",
        ),
        ({"images": idx(GREY) + b"x"}, "it is too long"),
        ({"images": idx(GREY)[:10]}, "must have a header of 16 bytes, got 10"),
        ({"images": b""}, "magic number 0x00000803 .* got 0 bytes"),
        ({"images": gzip.compress(idx(GREY))}, "magic number 0x00000803 .* got 0x1f8b0800"),
        ({"images": idx(GREY[:0]), "labels": idx(LABELS[:0])}, "got 0 images and 0 labels"),
        ({"images": idx(LABELS)}, "magic number 0x00000803 .* got 0x00000801"),
        ({"labels": idx(LABELS[:4])}, "got 5 images and 4 labels"),
        ({"labels": idx(LABELS + 5)}, "labels in .*train-labels.* must lie in 0, …, 9, got 14"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_mnist(write_mnist(tmp_path, **changes))


def test_a_gzip_file_cut_off_is_refused(tmp_path):
    write_mnist(tmp_path, zipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for end in (0, 1, 15, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"whole gzip file|magic number"):
            read_mnist(tmp_path)


def test_a_file_that_only_claims_to_be_gzipped_is_refused(tmp_path):
    write_mnist(tmp_path, zipped=True)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(idx(GREY))
    with pytest.raises(ValueError, match=r"idx3-ubyte\.gz' must be a whole gzip file"):
        read_mnist(tmp_path)


def test_a_batch_cut_off_anywhere_is_refused(tmp_path):
    write_cifar(tmp_path)
    whole = (tmp_path / "test_batch").read_bytes()
    for end in [*range(0, 250, 3), len(whole) - 60, len(whole) - 1]:
        (tmp_path / "test_batch").write_bytes(whole[:end])
        with pytest.raises(ValueError, match="must be a pickled CIFAR-10 batch"):
            read_cifar10(tmp_path, "test")


class Runs:
    def __reduce__(self):
        return os.system, ("touch evil",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({b"extra": Runs()}, "(posix|nt).system is not allowed"),
        ({b"data": np.zeros((2, 3072))}, "must be bytes of shape"),
        ({b"data": np.zeros((2, 3071), np.uint8)}, r"shape \(n, 3072\), got \(2, 3071\)"),
        ({b"data": "many"}, "got str"),
        ({b"data": np.array([Runs()])}, "(posix|nt).system is not allowed"),
        ({b"labels": [0, 10]}, "must lie in 0, …, 9, got 10"),
        ({b"labels": [0]}, "got 2 images and 1 labels"),
        ({b"labels": [0, "a"]}, "must be a list of integers"),
    ],
)
def test_other_batches_are_refused(tmp_path, changes, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_cifar10(write_cifar(tmp_path / "data", changes=changes), "test")
    assert not (tmp_path / "evil").exists()


def test_a_pickle_of_something_else_is_refused(tmp_path):
    (tmp_path / "test_batch").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match="must hold a dictionary with the keys data and labels"):
        read_cifar10(tmp_path, "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"X": COLOUR, "y": LABELS}, r"must have shape \(32, 32, 3, n\), got \(6, 32, 32, 3\)"),
        ({"X": COLOUR.transpose(1, 2, 3, 0)}, "must hold the arrays X and y, got no y"),
        ({"X": COLOUR.transpose(1, 2, 3, 0), "y": [1, 2]}, "got 6 images and 2 labels"),
        ({"X": COLOUR.transpose(1, 2, 3, 0), "y": [0] * 6}, "must lie in 1, …, 10, got 0"),
        (
            {"X": COLOUR.transpose(1, 2, 3, 0) / 255, "y": [1] * 6},
            "must be bytes, got float64",
        ),
    ],
)
def test_other_matlab_files_are_refused(tmp_path, content, message):
    savemat(tmp_path / "train_32x32.mat", content)
    with pytest.raises(ValueError, match=message):
        read_svhn(tmp_path)


def test_a_matlab_file_cut_off_is_refused(tmp_path):
    path = tmp_path / "train_32x32.mat"
    savemat(path, {"X": COLOUR.transpose(1, 2, 3, 0), "y": [1] * 6}, do_compression=True)
    whole = path.read_bytes()
    for end in (0, 3, 100, 127, 128, 130, 140, 1000, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"MATLAB file|must hold the arrays X and y"):
            read_svhn(tmp_path)
