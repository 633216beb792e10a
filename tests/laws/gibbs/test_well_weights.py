import numpy as np
import pytest
from numpy.testing import assert_allclose

from statsgd.laws.gibbs.well_weights import (
    discrete_well_factor,
    effective_well_weights,
    equal_weight_batch_size,
    equal_weight_temperature,
    well_weights,
)

WELLS = ([[1.0]], [[9.0]])  # smooth_wells(2)


def test_equal_heights_depend_on_determinants_only():
    assert_allclose(well_weights(WELLS, [0, 0], 0.02), [0.75, 0.25], rtol=1e-12)
    assert_allclose(well_weights(WELLS, [0, 0], 0.5), [0.75, 0.25], rtol=1e-12)
    valley = np.diag([2.0, 1.0]), np.diag([2.0, 9.0])
    assert_allclose(well_weights(valley, [0, 0], 0.1), [0.75, 0.25], rtol=1e-12)


@pytest.mark.parametrize(("temperature", "flat"), [(0.02, 0.197596), (0.1, 0.645339)])
def test_raised_flat_well(temperature, flat):
    # 3 exp(−Δ/τ)/(1 + 3 exp(−Δ/τ)), Δ = 0.05
    assert_allclose(well_weights(WELLS, [0.05, 0.0], temperature)[0], flat, atol=6e-7)


def test_equal_weight_temperature_and_batch_size():
    assert_allclose(equal_weight_temperature(*WELLS, 0.05), 0.0455120, atol=5.1e-8)  # Δ/log 3
    assert_allclose(
        well_weights(WELLS, [0.05, 0.0], equal_weight_temperature(*WELLS, 0.05)), [0.5, 0.5]
    )
    # S* = ηv₁/(2τ*)
    assert_allclose(equal_weight_batch_size(*WELLS, 0.05, 0.1, 8.0), 0.4 / 0.045512, rtol=1e-6)


@pytest.mark.parametrize(
    ("diffusion_limit", "hessians", "step", "chain"),
    # Exact SDE weight times exp(−(e/4) Tr H), against the chain formula quoted to four digits.
    [
        (0.733882, WELLS, 0.04, 0.7492),
        (0.733882, WELLS, 0.01, 0.7378),
        (0.732577, (np.diag([2.0, 1.0]), np.diag([2.0, 9.0])), 0.05, 0.7517),
        (0.733882, WELLS, 0.04 / 1.5, 0.7442),
        (0.733882, WELLS, 0.04 / 1.9, 0.7420),
    ],
)
def test_discrete_factor(diffusion_limit, hessians, step, chain):
    flat, sharp = np.array([diffusion_limit, 1 - diffusion_limit]) * discrete_well_factor(
        hessians, step
    )
    assert_allclose(flat / (flat + sharp), chain, atol=5.1e-5)


def test_discrete_step_enters_the_weights():
    weights = well_weights(WELLS, [0, 0], 0.02, discrete_step=0.04)
    assert_allclose(weights[0] / weights[1], 3 * np.exp(0.01 * 8), rtol=1e-12)


@pytest.mark.parametrize(("scale", "flat"), [(0.02, 0.919926), (0.005, 0.996070)])
def test_effective_weights(scale, flat):
    # c^(d/2−1) det^(−1/2) exp(−Φ/scale), v₁ = 1.5 + 0.5 tanh(3(x − 0.5)), Φ(1) = 0.0206264
    variances = 1.5 + 0.5 * np.tanh(3 * (np.array([0.0, 1.0]) - 0.5))
    weights = effective_well_weights(WELLS, [0.0, 0.0206264], variances, 2 * scale)
    assert_allclose(weights[0], flat, atol=1.1e-6)


def test_refusals():
    with pytest.raises(ValueError, match="hessians must be positive definite"):
        well_weights(([[1.0]], [[-1.0]]), [0, 0], 0.1)
    with pytest.raises(ValueError, match="heights must have one entry a well, 2, got 3"):
        well_weights(WELLS, [0, 0, 0], 0.1)
    with pytest.raises(ValueError, match="sharp_hessian must have the larger determinant"):
        equal_weight_temperature([[9.0]], [[1.0]], 0.05)
