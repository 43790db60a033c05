"""Histories: flat arrays beside the parameters of a net, such as Adam's moments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.errors import NetError
from layerkit.net import Net
from layerkit.settings.names import Named
from layerkit.system.memory import in_words

if TYPE_CHECKING:
    from layerkit.solvers.solver import Solver

AVERAGE = "average"  # a history that any solver may have


def accumulated_names(count: int) -> list[str]:
    """Name the histories in which so many gradients are added up, as a binary tree.

    "accumulated" holds one gradient, "accumulated 2" a sum of two, and so on: log2(count) in all.
    """
    levels = (count - 1).bit_length()
    return ["accumulated", *(f"accumulated {2**i}" for i in range(1, levels))][:levels]


def tree_levels(index: int, count: int) -> tuple[list[int], int | None]:
    """Say how the next of `count` terms joins a sum that is added up as a binary tree.

    Level i holds a sum of 2^i neighbours.  A term is added to the levels that are full, from 0 up,
    as a 1 is carried in binary counting, and their sum kept in the next.  The last term is added to
    all that are left.

    Args:
        index: of the term, from 0.
        count: number of terms.

    Returns:
        The levels to add, and the level that keeps the sum, None where it is complete.
    """
    if index == count - 1:
        return [level for level in range(index.bit_length()) if index >> level & 1], None
    carried = (~index & (index + 1)).bit_length() - 1  # ones at the end of the number
    return list(range(carried)), carried


def smallest_normal(dtype: np.dtype) -> float:
    """Return the smallest positive number of a dtype that has its full precision."""
    return 2.0**-126 if dtype == np.float32 else 2.0**-1022


def flush_denormals(xp: Any, array: Array) -> None:
    """Set numbers below the smallest normal one to zero, in place.

    The history of a weight without a gradient decays for ever.  It would soon be denormal, and
    each denormal number costs many processors a hundred cycles.
    """
    array *= xp.abs(array) >= smallest_normal(array.dtype)


def make_histories(solver: Solver) -> Named[Array]:
    """Make the histories of a solver, of zeros: its own, those of `accumulate`, and of `ema`.

    Raises:
        NetError: there is no memory for them.
    """
    net, average = solver.net, [AVERAGE] * (solver.ema is not None)
    names = [*solver.histories, *accumulated_names(solver.accumulate), *average]
    need, free = net.arena.data.nbytes * len(names), net.run.memory()
    if need > free:
        raise NetError(
            f"{solver.label()}: its histories of {net.arena.data.size:,} parameters would take "
            f"{in_words(need)}, and {in_words(free)} are free"
        )
    return Named(
        "history",
        {name: net.backend.zeros(net.arena.data.shape, net.dtype) for name in names},
        "write into its array: solver.history[name][...] = values",
    )


def of_parameters(net: Net, pair: list[Array]) -> dict[str, list[Array]]:
    """Return the part of two histories that belongs to each parameter, in its shape."""
    return {
        p.name: [a[p.offset : p.offset + p.size].reshape(p.shape) for a in pair]
        for p in net.arena.parameters.values()
    }
