"""Comparison: processes that train together must have the same data, parameters and settings."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.distributed.communicator import Communicator
from layerkit.errors import LayerkitError, NetError

if TYPE_CHECKING:
    from layerkit.net import Net
    from layerkit.solvers.solver import Solver


def agreed(error: LayerkitError) -> LayerkitError:
    """Mark an error as one that all processes raise."""
    error.agreed = True
    return error


class Comparison:
    """Comparisons, by hash, of all that must be equal in the processes that share steps.

    Args:
        net: that each process has.
        comm: between the processes.
        shards: of a step, over all processes.
        every: steps from one comparison to the next.
    """

    def __init__(self, net: Net, comm: Communicator, shards: int, every: int):
        self._net, self._comm, self._shards, self._every = net, comm, shards, every
        self._next: int | None = None  # iteration of the next step, unless a snapshot is loaded
        self._stretch = 0  # of `every` iterations, in which the last comparison was

    def expect(self, solver: Solver) -> None:
        """Remember the iteration with which the next step begins, unless a snapshot is loaded."""
        self._next = solver.iteration

    def make(self, solver: Solver) -> None:
        """Compare the processes where it is time to.

        Raises:
            NetError: one differs; all raise it, with its rank and what differs.
        """
        stretch = solver.iteration // self._every
        if solver.iteration == self._next and stretch == self._stretch:
            return
        found, self._stretch = self._comm.gather(self._digests(solver)), stretch
        for name in found[0]:
            other = [r for r, its in enumerate(found) if its.get(name) != found[0][name]]
            if other:
                raise agreed(
                    NetError(
                        f"Distributed: rank {other[0]} differs from rank 0 in its {name}; all "
                        "processes must make net and solver alike, read the same data, and load "
                        "the same snapshot"
                    )
                )

    @functools.cached_property
    def _signatures(self) -> dict[str, list[Any]]:
        """Name of each data layer -> what tells its examples from others."""
        return {source.name: source.signature() for source in self._net.sources()}

    def _digests(self, solver: Solver) -> dict[str, str]:
        net = self._net
        parts: dict[str, list[Any]] = {
            "numbers of shards and of rows": [str((self._shards, net.run.batch_size)).encode()],
            "nets": [f"{net.dtype} {[(n, p.shape) for n, p in net.params.items()]}".encode()],
            **{f"data of layer {name!r}": found for name, found in self._signatures.items()},
            **{
                f"settings of layer {layer.name!r}": [_settings(layer).encode()]
                for layer in net.layers.values()
                if layer.name not in self._signatures
            },
            "settings of parameters": [
                repr(
                    [(p.penalty, p.rate, p.decay, p.max_norm) for p in net.params.values()]
                ).encode()
            ],
            "settings of the solver": [_settings(solver).encode()],
            "parameters": [net.arena.data],
            "statistics": [s.data for s in net.statistics.values()],
            "histories of the solver": list(solver.history.values()),
            "seed, passes and positions": [repr(net.state()).encode()],
            "iterations": [str(solver.iteration).encode()],
        }
        digests = {}
        for name, arrays in parts.items():
            digest = hashlib.blake2b(digest_size=16)
            for array in arrays:
                digest.update(
                    array if isinstance(array, bytes) else net.backend.to_host(array).data
                )
            digests[name] = digest.hexdigest()
        return digests


def _settings(thing: Any) -> str:
    """Return the class of a layer or solver, and the settings of its constructor that it keeps."""
    names = [name for name in inspect.signature(type(thing)).parameters if name in vars(thing)]
    return f"{type(thing).__qualname__} {[(name, _told(getattr(thing, name))) for name in names]}"


def _told(value: Any) -> Any:
    """Return a setting in words that two processes have in common, without addresses."""
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        return value
    if isinstance(value, list | tuple):
        return [_told(part) for part in value]
    if dataclasses.is_dataclass(value):
        return type(value).__qualname__, {
            field.name: _told(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    return type(value).__qualname__
