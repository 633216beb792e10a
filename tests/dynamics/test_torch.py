"""Our SGD and the optimisers of optax against those of torch, step by step in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from statsgd import SGD, OptaxDynamics
from statsgd.noise import NoNoise
from statsgd.problems import landscape

torch = pytest.importorskip("torch", reason="torch comes with the extra bench")

CURVATURES = np.array([3.0, 0.5, -0.2])
START = np.array([1.0, -2.0, 0.3])
BENT = landscape(
    lambda x: 0.5 * jnp.sum(jnp.asarray(CURVATURES) * x**2) + jnp.sum(jnp.cos(x)), START
)
STEPS = 12


def ours(dynamics):
    """Parameters after every step."""
    with jax.enable_x64(True):
        state, path = dynamics.init(BENT, jnp.asarray(START)), []
        for _ in range(STEPS):
            state = dynamics.step(jax.random.key(0), BENT, state)
            path.append(np.asarray(state.params))
    return np.array(path)


def theirs(optimiser, **options):
    """The same of a class of `torch.optim`."""
    theta = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    moving, path = optimiser([theta], **options), []
    for _ in range(STEPS):
        moving.zero_grad()
        loss = 0.5 * torch.sum(torch.tensor(CURVATURES) * theta**2) + torch.sum(torch.cos(theta))
        loss.backward()
        moving.step()
        path.append(theta.detach().numpy().copy())
    return np.array(path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "dampening": 0.5},  # the first step is not dampened
        {"dampening": 0.5},  # nor is any without momentum
        {"weight_decay": 0.2},
        {"momentum": 0.9, "weight_decay": 0.2, "nesterov": True},
        {"momentum": 0.8, "weight_decay": 0.2, "dampening": 0.3},
    ],
    ids=str,
)
def test_sgd(options):
    path = theirs(torch.optim.SGD, lr=0.1, **options)
    np.testing.assert_allclose(ours(SGD(0.1, NoNoise(), **options)), path, rtol=1e-13, atol=1e-14)


def test_what_torch_refuses_is_refused():
    options = {"momentum": 0.9, "dampening": 0.5, "nesterov": True}
    with pytest.raises(ValueError, match="Nesterov momentum requires"):
        theirs(torch.optim.SGD, lr=0.1, **options)
    with pytest.raises(ValueError, match="nesterov must go with momentum"):
        SGD(0.1, NoNoise(), **options)


@pytest.mark.parametrize(
    ("transformation", "kind", "options"),
    [
        (optax.adam(0.1, b2=0.99), "Adam", {"betas": (0.9, 0.99)}),
        (optax.adamw(0.1, weight_decay=0.2), "AdamW", {"weight_decay": 0.2}),
        (
            optax.chain(optax.add_decayed_weights(0.2), optax.adam(0.1)),
            "Adam",
            {"weight_decay": 0.2},
        ),
        (
            optax.rmsprop(0.1, decay=0.99, eps=1e-8, eps_in_sqrt=False),
            "RMSprop",
            {"alpha": 0.99},
        ),
    ],
    ids=["adam", "adamw", "adam with coupled decay", "rmsprop"],
)
def test_adaptive_optimisers(transformation, kind, options):
    path = theirs(getattr(torch.optim, kind), lr=0.1, **options)
    found = ours(OptaxDynamics(transformation, NoNoise()))
    np.testing.assert_allclose(found, path, rtol=1e-12, atol=1e-13)
