"""Sharing: parameters that several layers of one net use, and the sums of their gradients.

A parameter belongs to the layer that declares it; another layer that uses it holds a
SharedParameter, which has the parameter's data and a diff of its own.  In a backward pass each of
the layers writes its part of the gradient in full; as soon as it has, the part is added up, in the
order in which the layers run.  This takes two arrays beside the diff, however many layers there
are: one for the sum of the borrowers' parts, one for the part that has just been written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

from layerkit.backends.base import Array
from layerkit.blob import Parameter, SharedParameter
from layerkit.layer import Layer
from layerkit.settings.names import closest, quoted


def own(layer: Layer) -> list[Parameter]:
    """List the parameters that belong to a layer."""
    return [p for p in layer.parameters.values() if not isinstance(p, SharedParameter)]


def used(layer: Layer) -> list[SharedParameter]:
    """List the parameters of other layers that a layer uses."""
    return [p for p in layer.parameters.values() if isinstance(p, SharedParameter)]


def lent(layers: Iterable[Layer]) -> dict[str, str]:
    """Map the name of each parameter that layers use, "layer/parameter", to that of its owner."""
    return {
        f"{layer.name}/{key}": p.source.name
        for layer in layers
        for key, p in layer.parameters.items()
        if isinstance(p, SharedParameter)
    }


def owner_of(layer: Layer, by_name: Mapping[str, Layer]) -> Layer:
    """Follow `shares` from layer to layer to the one with parameters of its own."""
    while layer.shares is not None:
        layer = by_name[layer.shares]
    return layer


def resolve(layers: Iterable[Layer]) -> None:
    """Find the parameter that each SharedParameter of the layers stands for.

    Args:
        layers: of one net, set up.

    Raises:
        NetError: `shares` names no layer of the net, or one without these parameters, or of other
            shapes or regularisation, or layers share in a circle.
    """
    by_name = {layer.name: layer for layer in layers}
    for layer in by_name.values():
        if layer.shares is not None:
            _check(layer, by_name)
        for p in used(layer):
            source = _source(p, layer, by_name)
            for kind, wanted in p.wanted.items():
                if wanted != (there := getattr(source, kind)):
                    layer.fail(
                        f"has {kind}={wanted}, but its parameter is {source.name!r}, which has "
                        f"{kind}={there}; set it there alone, where it counts once"
                    )
            p.stand_for(source)
        if len({id(p.source) for p in used(layer)}) < len(used(layer)):
            layer.fail("uses a parameter of another layer twice; let it use each once")


def _check(layer: Layer, by_name: Mapping[str, Layer]) -> None:
    """Fail unless a layer that shares all its parameters has any, and the other layer too."""
    lender = _lender(layer, str(layer.shares), by_name)
    if not layer.parameters:
        layer.fail(f"has no parameters, so leave shares={layer.shares!r} out")
    if not lender.parameters:
        layer.fail(f"shares: layer {lender.name!r} ({type(lender).__name__}) has no parameters")


def _lender(layer: Layer, name: str, by_name: Mapping[str, Layer]) -> Layer:
    if name not in by_name:
        layer.fail(f"shares: there is no layer {name!r}; {closest(name, by_name)}")
    return by_name[name]


def _source(p: Parameter, layer: Layer, by_name: Mapping[str, Layer]) -> Parameter:
    """Follow a parameter from lender to lender to the layer that it belongs to."""
    path = [layer.name]
    while isinstance(p, SharedParameter):
        lender = _lender(layer, p.lender, by_name)
        if lender.name in path:
            _circle(layer, [*path[path.index(lender.name) :], lender.name])
        its = lender.parameters.get(p.key)
        if its is None:
            layer.fail(
                f"shares: its parameter {p.key!r} is none of those of layer {lender.name!r} "
                f"({type(lender).__name__}), which are {quoted(lender.parameters)}"
            )
        if its.shape != p.shape:
            layer.fail(
                f"shares: its parameter {p.key!r} has shape {p.shape}, but that of layer "
                f"{lender.name!r} ({type(lender).__name__}) has shape {its.shape}"
            )
        path.append(lender.name)
        p, layer = its, lender
    return p


def _circle(layer: Layer, path: list[str]) -> NoReturn:
    layer.fail(f"shares: layers share in a circle: {' -> '.join(map(repr, path))}")


class Sum(NamedTuple):
    """Part of a gradient that is added to what is in `target`."""

    part: Array
    target: Array


def share_out(
    layers: list[Layer], active: list[Layer], zeros: Callable[[Parameter], Array]
) -> dict[str, list[Sum]]:
    """Give every SharedParameter its arrays, and say how the parts of gradients are added up.

    Args:
        layers: of the net, in the order in which they run.
        active: those that take part in the backward pass.
        zeros: makes an array like a parameter.

    Returns:
        Name of each active layer that shares a parameter with another active one, or writes the
        gradient of another layer's -> what to add once its backward pass has been called.
    """
    users: dict[int, list[tuple[str, SharedParameter]]] = {}
    for layer in layers:
        for p in used(layer):
            p.take(None)
    for layer in reversed(active):
        for p in used(layer):
            users.setdefault(id(p.source), []).append((layer.name, p))
    owners = {id(p): layer.name for layer in active for p in own(layer)}
    place = {layer.name: i for i, layer in enumerate(active)}
    sums: dict[str, list[Sum]] = {}
    for key, pairs in users.items():
        source, owner = pairs[0][1].source, owners.get(key)
        # The owner writes the parameter's own diff, whenever its turn is.
        total = source.diff if owner is None else zeros(source)
        spare: Any = zeros(source) if len(pairs) > 1 else None
        for i, (name, p) in enumerate(pairs):
            p.take(spare if i else total)
            sums.setdefault(name, [])
            if i and source.trainable:
                sums[name].append(Sum(spare, total))
        if owner is not None:
            sums.setdefault(owner, [])
            last = min((owner, pairs[-1][0]), key=place.__getitem__)
            if source.trainable:
                sums[last].append(Sum(total, source.diff))
    return sums
