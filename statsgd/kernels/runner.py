"""Draws from a law as an ArviZ data tree: exact where the law allows, else by a kernel."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpyro.infer import Predictive
from tqdm.auto import tqdm

from statsgd.arguments import count
from statsgd.kernels.adapter import LangevinKernel
from statsgd.kernels.mala import MALA
from statsgd.laws import Law
from statsgd.provenance import provenance

_CHUNK = 256  # steps between looks at the host: one compiled length, progress and Ctrl-C


def sample(
    law: Law,
    kernel: LangevinKernel | None = None,
    *,
    warmup: int = 1000,
    draws: int = 1000,
    chains: int = 4,
    seed: int,
    progress: bool = True,
) -> xr.DataTree:
    """Draw from `law`.

    With `kernel=None` a law whose model is generative is drawn from exactly and independently;
    any other law by `MALA()`. A kernel is used as given; its own model, if any, is ignored.

    One compilation serves every law of the same type and shape and every value of the kernel's
    parameters. Draws are a function of the arguments alone.

    **Returns** a `DataTree` in ArviZ's schema: `posterior` (dims `chain`, `draw`, …) with every
    site of the law's model, and, from a kernel, `sample_stats` with `lp`, `acceptance_rate`,
    `step_size` and `diverging`. Raises `ImproperLawError` for a law that does not exist.
    """
    count("draws", draws)
    count("chains", chains)
    count("warmup", warmup, at_least=0)
    count("seed", seed, at_least=0)
    law.require_proper()
    key = jax.random.key(seed)
    settings: dict[str, Any] = {"law": law.describe(), "seed": int(seed)}
    if kernel is None and law.generative:
        values = _draw_exactly(law, key, chains * draws)
        posterior = {name: _split(value, chains, draws) for name, value in values.items()}
        return _data_tree(posterior, {}, settings | {"kernel": "exact draws"})
    kernel = MALA() if kernel is None else kernel
    posterior, stats = _run(law, kernel, key, warmup, draws, chains, progress)
    return _data_tree(posterior, stats, settings | {"kernel": type(kernel).__name__})


@eqx.filter_jit
def _draw_exactly(law: Law, key, number: int):
    return Predictive(law.model, num_samples=number)(key)


def _split(value: Any, chains: int, draws: int) -> np.ndarray:
    return np.asarray(value).reshape(chains, draws, *value.shape[1:])


def _run(law, kernel, key, warmup, draws, chains, progress):
    start, advance = _compiled(kernel)
    state = start(law, kernel.parameters, key, warmup, chains)
    collected: list[Any] = []
    done, total = 0, warmup + draws
    with tqdm(total=total, unit="step", desc=type(kernel).__name__, disable=not progress) as bar:
        while done < total:
            ask = min(_CHUNK, (warmup if done < warmup else total) - done)
            state, out = advance(law, kernel.parameters, state, jnp.int32(ask))
            if done >= warmup:
                wanted = slice(0, ask)
                collected.append(jax.tree.map(lambda leaf, s=wanted: np.asarray(leaf)[:, s], out))
            done += ask
            bar.update(ask)
    return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *collected)


def _compiled(kernel: LangevinKernel):
    """`start` and `advance` for kernels that differ in numbers only."""
    kind: Any = type(kernel)
    return _compile(kind, kernel.warmup, kernel._init_strategy)


@functools.lru_cache(maxsize=64)
def _compile(kind, warmup, init_strategy):
    template = kind(
        adapt_step_size=warmup.target_accept_prob is not None,
        adapt_preconditioner=warmup.shape,
        target_accept_prob=warmup.target_accept_prob,
        init_strategy=init_strategy,
    )

    @eqx.filter_jit
    def start(law, parameters, key, warmup, chains: int):
        keys = jax.random.split(key, chains)
        return template.bind(law.model, parameters).init(keys, warmup, None, (), {})

    @eqx.filter_jit
    def advance(law, parameters, state, steps):
        kernel = template.bind(law.model, parameters)
        # Read the model here: what it caches must not belong to the trace of the loop.
        constrain = kernel.postprocess_fn((), {})

        def one(state, index):
            # Steps past `steps` are computed and thrown away, so that one length is compiled.
            moved = kernel.sample(state, (), {})
            state = jax.tree.map(lambda new, old: _choose(index < steps, new, old), moved, state)
            report = {
                "lp": -state.potential_energy,
                "acceptance_rate": state.accept_prob,
                "step_size": state.step_size,
                "diverging": state.diverging,
            }
            return state, (state.z, report)

        state, (z, report) = jax.lax.scan(one, state, jnp.arange(_CHUNK))
        sites = jax.vmap(jax.vmap(constrain))(z)
        return state, jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), (sites, report))

    return start, advance


def _choose(condition, new, old):
    if jnp.issubdtype(new.dtype, jax.dtypes.prng_key):
        data = jnp.where(condition, jax.random.key_data(new), jax.random.key_data(old))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(new))
    return jnp.where(condition, new, old)


def _data_tree(posterior, stats, settings) -> xr.DataTree:
    groups = {"posterior": _dataset(posterior)}
    if stats:
        groups["sample_stats"] = _dataset(stats)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = provenance("draws", **settings)
    return tree


def _dataset(values: dict[str, np.ndarray]) -> xr.Dataset:
    variables = {
        name: (("chain", "draw", *(f"{name}_dim_{i}" for i in range(value.ndim - 2))), value)
        for name, value in values.items()
    }
    chains, draws = next(iter(values.values())).shape[:2]
    coords = {"chain": np.arange(chains), "draw": np.arange(draws)}
    return xr.Dataset(variables, coords=coords)
