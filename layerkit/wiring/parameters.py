"""Parameters of a net: gathered from its layers, given memory and values, found by pattern."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.backends import philox
from layerkit.blob import Arena, Parameter
from layerkit.data.arrays import narrowed, numbers
from layerkit.errors import NetError, brief
from layerkit.layer import Layer, Shape
from layerkit.run import Run
from layerkit.settings.names import Named, matches, quoted
from layerkit.wiring.sharing import own

if TYPE_CHECKING:
    from layerkit.net import Net


def gather(layers: Iterable[Layer]) -> Named[Parameter]:
    """Return all parameters by name, each of the one layer that declared it as its own."""
    layers = list(layers)
    found: dict[str, Parameter] = {}
    owners: dict[str, str] = {}
    for layer in layers:
        for p in own(layer):
            if p.name in found:
                owner, same = owners[p.name], found[p.name] is p
                layer.fail(
                    f"its parameter {p.name!r} is one of layer {owner!r} too; "
                    + (_sharing(owner) if same else "rename one of the layers")
                )
            found[p.name], owners[p.name] = p, layer.name
    for layer in layers:
        for p in _held(layer):
            if p not in layer.parameters.values():
                owner = p.name.rpartition("/")[0]
                layer.fail(
                    f"holds parameter {p.name!r}, which it has not declared; {_sharing(owner)}"
                )
    return Named("parameter", found, "write into its array: net.params[name].data[...] = values")


def _sharing(owner: str) -> str:
    return f"a layer uses the parameters of another by shares={owner!r}"


def _held(layer: Layer) -> list[Parameter]:
    """List the parameters among a layer's attributes, or in lists and dictionaries there."""
    found = []
    for name, value in vars(layer).items():
        if name != "parameters":
            inside = value.values() if isinstance(value, dict) else value
            values = inside if isinstance(value, list | tuple | dict) else [value]
            found += [p for p in values if isinstance(p, Parameter)]
    return found


def place(
    parameters: list[Parameter],
    run: Run,
    gradients: bool,
    share: Net | None,
    share_only: str | Sequence[str] | None = None,
) -> Arena:
    """Give the parameters of a net their memory and values.

    Args:
        parameters: of all layers, in order.
        run: of the net.
        gradients: whether there are diffs.
        share: another net that has them already, or None.
        share_only: names or patterns of those that are taken from it; None for all.
    """
    if share is None:
        if share_only is not None:
            raise NetError("share_only: give share=, the net that lends these parameters")
        return _initialised(parameters, run, gradients)
    if (share.backend.name, share.dtype) != (run.backend.name, run.dtype):
        raise NetError(
            f"share: the other net is {share.dtype} on {share.backend.name}, this one is "
            f"{run.dtype} on {run.backend.name}; they must be alike"
        )
    if share_only is not None:
        return _borrowed(parameters, run, gradients, share, share_only)
    return _shared(parameters, run, gradients, share)


class Noise:
    """Random numbers for the initialiser of a parameter; a call gives standard normal ones.

    Args:
        run: of the net.
        name: of the parameter, which has a stream of its own.
    """

    def __init__(self, run: Run, name: str):
        self._run, self._name = run, name

    def __call__(self, shape: Shape) -> np.ndarray:
        """Draw standard normal numbers."""
        return philox.normal(np, shape, self._run.seed, self._run.stream_of(self._name), 0)

    def uniform(self, shape: Shape) -> np.ndarray:
        """Draw uniform numbers in (0, 1)."""
        return philox.uniform(np, shape, self._run.seed, self._run.stream_of(self._name), 0)


def _initialised(parameters: list[Parameter], run: Run, gradients: bool) -> Arena:
    """Make an arena, and let the initialisers draw the parameters."""
    arena = Arena(parameters, run.backend, run.dtype, gradients)
    for p in parameters:
        what = f"parameter {p.name!r}: what its initialiser draws"
        try:
            drawn = p.init.draw(p.shape, Noise(run, p.name))
        except ValueError as error:
            raise NetError(f"parameter {p.name!r}: its initialiser failed: {error}") from error
        values = narrowed(numbers(drawn, what), run.dtype, what)
        if values.shape != p.shape:
            raise NetError(f"{what} must have shape {p.shape}, got {values.shape}")
        if not np.isfinite(values).all():
            raise NetError(f"{what} must be finite numbers, also in {run.dtype}")
        p.data[...] = run.backend.asarray(values, run.dtype)
    return arena


def _shared(parameters: list[Parameter], run: Run, gradients: bool, other: Net) -> Arena:
    """Make the parameters stand for those of another net; return an arena of its arrays."""
    if gradients and other.arena.diff is None:
        raise NetError("share: the other net has no gradients; share from the training net")
    for p in parameters:
        its = _of_other(other, p)
        if its.borrowed:
            its.lend(p, its.diff)
        else:
            p.bind(its.data, its.diff, its.offset)
    arena = copy.copy(other.arena)  # the same arrays, but this net freezes for itself
    arena.parameters = {p.name: p for p in parameters if not p.borrowed}
    return arena


def _borrowed(
    parameters: list[Parameter], run: Run, gradients: bool, other: Net, patterns: Any
) -> Arena:
    """Make some of the parameters stand for those of another net; return an arena of the rest."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, list | tuple):
        raise NetError(
            "share_only must be a name or pattern such as 'conv*', or a list of them, got "
            f"{brief(patterns)}"
        )
    found = {p.name for p in matching({p.name: p for p in parameters}, patterns)}
    pairs = [(_of_other(other, p), p) for p in parameters if p.name in found]
    arena = _initialised([p for p in parameters if p.name not in found], run, gradients)
    for its, p in pairs:  # diffs of its own, as this net's passes leave the other's alone
        its.lend(p, run.backend.zeros(p.shape, run.dtype) if gradients else None)
    return arena


def _of_other(other: Net, p: Parameter) -> Parameter:
    """Return the parameter of another net that is called like one of this, and as large."""
    its = other.params.get(p.name)
    if its is None or its.shape != p.shape:
        had = f"has shape {its.shape} there" if its else "is not in the other net"
        raise NetError(f"share: parameter {p.name!r} of shape {p.shape} {had}")
    return its


def matching(
    parameters: Mapping[str, Parameter],
    patterns: Iterable[Any],
    lent: Mapping[str, str] | None = None,
) -> list[Parameter]:
    """Find the parameters whose names, or whose layers' names, match patterns such as "g*".

    Args:
        parameters: by name.
        patterns: names or patterns.
        lent: names that layers have for parameters of others -> the names of these, for messages.

    Raises:
        NetError: a pattern that is no string, or matches no parameter.
    """
    every: list[Parameter] = []
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise NetError(f"a pattern is a string such as 'g1/weight', got {brief(pattern)}")
        found = [parameters[name] for name in matches(pattern, parameters)]
        if not found and (of_others := matches(pattern, lent or {})):
            owners = sorted({(lent or {})[name] for name in of_others})
            raise NetError(
                f"no parameter matches {pattern!r}, as {quoted(of_others)} belong to other layers, "
                f"which share them: name {quoted(owners)}, which concerns all that use them"
            )
        if not found:
            raise NetError(f"no parameter matches {pattern!r}; there are {quoted(parameters)}")
        every += found
    return every
