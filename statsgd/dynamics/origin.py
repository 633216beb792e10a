"""Runs that go on: an ensemble read back as the states of its replicas."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, PyTree

from statsgd.description import describe
from statsgd.dynamics.advance import Motion
from statsgd.dynamics.schedule import endpoint_groups
from statsgd.problems.parameters import leaf_names
from statsgd.provenance import settings_of


class Origin:
    """The ensemble that a run continues, a result of `simulate`.

    Replicas that diverged in it stay what they are: frozen at their last finite state.

    Raises `ValueError` if it is no such result, or if the other replicas took unequally many steps.
    """

    def __init__(self, ensemble: xr.DataTree):
        self.ensemble = ensemble
        self.run = self._group("run")
        if "steps" not in self.run:
            raise ValueError("start must say how many steps it took, as statsgd.ensemble(steps=…)")
        if "replica" not in self.run["steps"].dims:
            raise ValueError("start must have the dim 'replica', got one replica without it")
        self.axes: dict[str, Any] = {
            str(dim): self.run[dim].values for dim in self.run["steps"].dims if dim != "replica"
        }
        self.replicas = self.run.sizes["replica"]
        taken, alive = self.run["steps"].values, self.run["diverged_at"].values < 0
        taken = taken[alive] if alive.any() else taken
        if alive.any() and taken.min() < taken.max():
            raise ValueError(
                f"start must hold replicas after equally many steps, got {taken.min()} to "
                f"{taken.max()}, of an ensemble simulated with phases=…"
            )
        self.steps = int(taken.max())
        self.settings = describe(settings_of(ensemble.attrs))

    def description(self, motion: Motion) -> dict[str, Any]:
        """How far it went, what was computed, and a digest of where that led."""
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(motion):
            digest.update(f"{leaf.dtype}{leaf.shape}".encode() + np.asarray(leaf).tobytes())
        return {"steps": self.steps, "ensemble": self.settings, "state": digest.hexdigest()}

    def note(self, description: dict[str, Any]) -> str:
        """The same in short, as JSON: a digest of the settings with their identity and seed."""
        known = {
            name: self.settings[name] for name in ("identity", "seed") if name in self.settings
        }
        settings = json.dumps(self.settings, sort_keys=True).encode()
        digest = {"ensemble": hashlib.sha256(settings).hexdigest()}
        return json.dumps(known | description | digest)

    def in_place(self, seeds: Sequence[int]) -> Bool[np.ndarray, " lanes"]:
        """Which replicas of all cells have the place and the seed that they had before.

        `seeds` are those of the cells. Replicas that were chosen anew are not where they were, and
        one that was chosen twice is so at most once.
        """
        seed = self.settings.get("seed")
        before = seed if isinstance(seed, list) else [seed] * len(seeds)
        same_seed = [one == other for one, other in zip(before, seeds, strict=False)]
        same_seed += [False] * (len(seeds) - len(same_seed))
        places = np.arange(self.replicas)
        known = "replica" in self.run.coords
        here = self.run["replica"].values == places if known else np.zeros_like(places, bool)
        return np.outer(same_seed, here).reshape(-1)

    def motion(self, template: Any, cells: int) -> Motion:
        """Where all replicas are, cell by cell; `template` is the shape of one state, packed.

        An ensemble without axes is where every cell begins.

        Raises `ValueError` for parameters or parts of the state of other names or shapes.
        """
        parts = {
            group: self._read(group, part, cells)
            for group, part in endpoint_groups(template).items()
        }
        state = template._replace(
            params=parts.pop("endpoints"),
            step=self._lanes(self.run["steps"], template.step.dtype, cells),
            **parts,
        )
        return Motion(state, self._lanes(self.run["diverged_at"], jnp.int32, cells))

    def _read(self, group: str, template: PyTree, cells: int) -> PyTree:
        dataset, leaves = self._group(group), jax.tree.leaves(template)
        names = leaf_names(template)
        if sorted(names) != sorted(map(str, dataset.data_vars)):
            raise ValueError(
                f"start must have the {group} {names}, got {sorted(map(str, dataset.data_vars))}"
            )
        found = []
        for name, leaf in zip(names, leaves, strict=True):
            shape = dataset[name].transpose(*self.axes, "replica", ...).shape[len(self.axes) + 1 :]
            if shape != leaf.shape:
                raise ValueError(
                    f"start must have {group} {name!r} of shape {leaf.shape}, got {shape}"
                )
            found.append(self._lanes(dataset[name], leaf.dtype, cells))
        return jax.tree.unflatten(jax.tree.structure(template), found)

    def _lanes(self, array: xr.DataArray, dtype: Any, cells: int) -> Array:
        """One value for every replica of every cell."""
        values = array.transpose(*self.axes, "replica", ...).values
        values = values.reshape(-1, *values.shape[len(self.axes) + 1 :]).astype(dtype)
        return jnp.asarray(values if self.axes else np.concatenate([values] * cells))

    def _group(self, name: str) -> xr.Dataset:
        if name not in self.ensemble.children:
            raise ValueError(
                f"start must be a result of simulate with the group {name!r} to be continued, got "
                f"the groups {sorted(map(str, self.ensemble.children))}; its parameters alone "
                "start a run at rest"
            )
        return self.ensemble[name].to_dataset()
