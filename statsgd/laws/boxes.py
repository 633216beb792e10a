"""Integrals over many boxes in any dimension, each divided until it is resolved."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

_ORDERS = (6, 4)
_RESOLVED = 1e-7  # share of all that a box may be off by
_LEVELS = 12
_MOST = 4_000_000  # points


def cell_integrals(
    log_function: Callable[[Float[np.ndarray, "... d"]], Any],
    centres: Float[np.ndarray, "n d"],
    sides: Float[np.ndarray, " d"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """∫ e^f over boxes of equal `sides`, up to one factor for all, and the error of each.

    By products of Gauss–Lobatto rules of six nodes and of four. A box is halved along every axis,
    at most twelve times, while they, or it and its parts, differ by more than 10⁻⁷ of all boxes
    together and there are fewer than four million points.
    """
    d = centres.shape[1]
    rules = [_product(order, d) for order in _ORDERS]
    corners = np.stack(np.meshgrid(*[[-0.25, 0.25]] * d, indexing="ij"), axis=-1).reshape(-1, d)
    total, error = np.zeros(len(centres)), np.zeros(len(centres))
    owner, scale, used = np.arange(len(centres)), None, 0
    whole: Any = None
    for level in range(_LEVELS + 1):
        size = sides / 2**level
        logs = [np.asarray(log_function(centres[:, None] + offsets * size)) for offsets, _ in rules]
        used += sum(part.size for part in logs)
        scale = max(np.max(part, initial=-np.inf) for part in logs) if scale is None else scale
        fine, rough = (
            np.exp(part - scale) @ weights / 2 ** (level * d)
            for part, (_, weights) in zip(logs, rules, strict=True)
        )
        change = np.abs(fine - rough)
        if whole is not None:  # two rules may agree by chance
            shared = np.abs(fine.reshape(-1, 2**d).sum(axis=1) - whole) / 2**d
            change = np.maximum(change, np.repeat(shared, 2**d))
        split = change > _RESOLVED * (np.sum(total) + np.sum(fine))
        points = np.sum(split) * 2**d * sum(len(weights) for _, weights in rules)
        if level == _LEVELS or used + points > _MOST:
            split[:] = False
        np.add.at(total, owner[~split], fine[~split])
        np.add.at(error, owner[~split], change[~split])
        if not np.any(split):
            break
        centres = (centres[split][:, None] + corners * size).reshape(-1, d)
        owner, whole = np.repeat(owner[split], 2**d), fine[split]
    return total, error


def _product(order: int, d: int) -> tuple[Float[np.ndarray, "m d"], Float[np.ndarray, " m"]]:
    """Offsets, in sides, and weights of a rule in d dimensions."""
    # With ends: an edge that cuts off a corner would pass between Gauss's nodes.
    top = np.polynomial.legendre.Legendre.basis(order - 1)
    node = np.concatenate([[-1.0], np.sort(top.deriv().roots().real), [1.0]])
    weight = 2 / (order * (order - 1) * top(node) ** 2)
    offsets, weights = (
        np.stack(np.meshgrid(*[values / 2] * d, indexing="ij"), axis=-1).reshape(-1, d)
        for values in (node, weight)
    )
    return offsets, np.prod(weights, axis=1)
