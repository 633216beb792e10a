"""The diagnosis of one's own model: settings, images, and the study's headline numbers."""

import struct

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from studies import bring_your_own
from studies.own_models import MODELS, averaged, images


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": ("torch",)}, "models must be one of 'equinox', 'flax', got 'torch'"),
        ({"models": ()}, "the number of models must be at least 1"),
        ({"learning_rates": (0.1,)}, r"learning_rates must be two .* got \(0.1,\)"),
        ({"batch_sizes": (8, 24)}, r"batch_sizes must be .* twice the one before, got \(8, 24\)"),
        ({"steps": 100, "looks": 40}, "steps must be at least 160, got 100"),
        ({"replicas": 7}, "replicas must be at least 8, got 7"),
        ({"diagnosed": 9}, "diagnosed must be at most 8, got 9"),
        ({"splits": 1}, "diagnosed must be at least 2, got 1"),
        ({"leaving": 7}, "leaving must be at least 8, got 7"),
        ({"weight_decay": 0.0}, "weight_decay must be positive"),
        ({"gap": 0.0}, "gap must be positive"),
        ({"dataset": "imagenet"}, "dataset must be one of 'digits', 'mnist'"),
        ({"dataset": "mnist"}, "data_dir must be the folder .* got '' for 'mnist'"),
        ({"data_dir": "here"}, "empty for digits, got 'here' for 'digits'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        bring_your_own.Config(**settings)


def write_mnist(folder, pixels, labels):
    for name, array in (("images-idx3", pixels), ("labels-idx1", labels)):
        header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
        (folder / f"train-{name}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())


def test_images_of_the_user_are_drawn_at_random_and_averaged(tmp_path):
    # Image i is i everywhere, of class i modulo 10.
    labels = np.arange(200) % 10
    write_mnist(tmp_path, np.broadcast_to(np.arange(200)[:, None, None], (200, 28, 28)), labels)
    found = images("mnist", str(tmp_path), 50, 3)
    assert found.images.shape == (50, 7, 7)
    assert found.images.dtype == np.float32
    order = np.rint(255 * found.images[:, 0, 0]).astype(int)
    np.testing.assert_allclose(found.images, np.ones((7, 7)) * order[:, None, None] / 255)
    np.testing.assert_array_equal(found.labels, order % 10)
    assert len(set(order)) == 50
    assert order.max() > 100
    with pytest.raises(ValueError, match="examples must be at most 200, got 201"):
        images("mnist", str(tmp_path), 201, 0)
    with pytest.raises(FileNotFoundError, match=r"nowhere'.*'train-images-idx3-ubyte'"):
        images("mnist", str(tmp_path / "nowhere"), 50, 0)


@pytest.mark.parametrize("shape", [(2, 28, 28), (2, 32, 32, 3), (2, 8, 8), (2, 29, 5)])
def test_averages_over_squares(shape):
    pixels = np.random.default_rng(0).random(shape)
    side = -(-shape[1] // 8), -(-shape[2] // 8)
    found = averaged(pixels)
    for i in range(found.shape[1]):
        for j in range(found.shape[2]):
            rows = slice(i * side[0], (i + 1) * side[0])
            columns = slice(j * side[1], (j + 1) * side[1])
            mean = pixels[:, rows, columns].mean(axis=(1, 2))
            np.testing.assert_allclose(found[:, i, j], mean, rtol=1e-6)
    assert max(found.shape[1:3]) <= 8


def test_digits_are_left_as_they_are():
    found = images("digits", "", 1797, 0)
    np.testing.assert_allclose(found.images.sum(), load_digits().images.sum() / 16, rtol=1e-6)


def test_what_runs_have_in_common():
    # θ = c + noise of unit variance in d = 50 dimensions: |c|²/(|c|² + 50).
    rng = np.random.default_rng(0)
    for square in (0.0, 50.0, 450.0):
        centre = np.full(50, np.sqrt(square / 50))
        found = bring_your_own.in_common(centre + rng.normal(size=(32, 50)))
        assert abs(found.value - square / (square + 50)) < 4 * found.standard_error
        assert found.standard_error < 0.02


def test_both_libraries_write_the_same_classifier():
    data = images("digits", "", 20, 0)
    equinox, flax = (MODELS[name](data, 4, 0) for name in ("equinox", "flax"))
    one = equinox.initial_params(jax.random.key(0))
    hidden, out = one.layers
    other = {
        "Dense_0": {"kernel": hidden.weight.T, "bias": hidden.bias},
        "Dense_1": {"kernel": out.weight.T, "bias": out.bias},
    }
    np.testing.assert_allclose(equinox.loss(one), flax.loss(other), rtol=1e-6)
    # 64 pixels, 4 neurons, 10 classes.
    assert equinox.dimension == flax.dimension == 65 * 4 + 5 * 10


@pytest.fixture(scope="module")
def results():
    config = bring_your_own.Config.quick()
    return bring_your_own.run(bring_your_own.Config(**vars(config) | {"progress": False}))


@pytest.mark.slow
def test_verdicts(results):
    claims = {name: part for name, part in results.children.items() if "statement" in part.attrs}
    assert list(claims) == [
        f"{model}: {part}"
        for model in ("equinox", "flax")
        for part in ("noise", "stability", "law", "stationarity", "flatness", "ratio")
    ]
    for name, part in claims.items():
        if name.endswith(("noise", "stability", "flatness")):
            assert part.attrs["verdict"] == "holds", name
        elif name.endswith(("law", "stationarity")):
            assert part.attrs["verdict"] != "does not hold", name


@pytest.mark.slow
def test_both_libraries_are_diagnosed_alike(results):
    # The same function with other initial values: one stationary law, up to symmetries of it.
    for part in ("noise", "stability", "law", "flatness", "ratio"):
        one, other = (
            results[f"{model}: {part}"]["table"].to_dataset().to_dataframe().set_index("quantity")
            for model in ("equinox", "flax")
        )
        error = np.hypot(one["standard_error"], other["standard_error"])
        assert np.all(np.abs(one["measured"] - other["measured"]) < 4 * error), part


@pytest.mark.slow
def test_files_of_the_user_are_diagnosed(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 60)
    write_mnist(tmp_path, (labels[:, None, None] * 20 + rng.integers(0, 50, (60, 12, 12))), labels)
    found = bring_your_own.run(
        bring_your_own.Config(
            models=("flax",), dataset="mnist", data_dir=str(tmp_path), examples=40, width=2,
            learning_rates=(0.1, 0.2), batch_sizes=(2, 4), steps=80, replicas=8, splits=2, looks=4,
            modes=3, leaving=8, leaving_steps=20, progress=False,
        )
    )  # fmt: skip
    names = [name.removeprefix("flax: ") for name in found.children]
    assert names[:6] == ["noise", "stability", "law", "stationarity", "flatness", "ratio"]
    assert names[6:] == [
        f"diagnosis, {part}"
        for part in ("standing", "stability", "spread", "stationarity", "curvature", "flatness")
    ]
    assert "40 images of mnist" in found.attrs["question"]
