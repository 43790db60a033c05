"""Wiring: in which order layers run, and which of them need gradients, from blob names alone."""

from __future__ import annotations

from collections.abc import Iterable

from layerkit.errors import NetError, brief
from layerkit.layer import Layer
from layerkit.names import closest


def sort_layers(layers: list[Layer]) -> list[Layer]:
    """The layers in an order in which every blob is made before it is read.

    Layers keep the order of the list as far as that allows.
    """
    if not layers:
        raise NetError("the list of layers is empty")
    producers: dict[str, Layer] = {}
    names: set[str] = set()
    for layer in layers:
        if not isinstance(layer, Layer):
            raise NetError(f"the list of layers holds {brief(layer)}, which is not a Layer")
        if "parameters" not in vars(layer):
            raise NetError(
                f"a layer of class {type(layer).__name__} has not called "
                "super().__init__(name, bottoms)"
            )
        if layer.name in names:
            raise NetError(f"two layers are called {layer.name!r}; give each its own name")
        names.add(layer.name)
        for top in layer.tops:
            if top in producers:
                raise NetError(
                    f"blob {top!r} is a top of both layer {producers[top].name!r} and layer "
                    f"{layer.name!r}; rename one of them (tops=)"
                )
            producers[top] = layer
    for layer in layers:
        for bottom in layer.bottoms:
            if bottom not in producers:
                layer.fail(f"its bottom {bottom!r} is no layer's top; {closest(bottom, producers)}")
    ordered: list[Layer] = []
    made: set[str] = set()
    waiting = list(layers)
    while waiting:
        ready = next((x for x in waiting if made.issuperset(x.bottoms)), None)
        if ready is None:
            raise NetError(_cycle(waiting, producers))
        waiting.remove(ready)
        ordered.append(ready)
        made.update(ready.tops)
    return ordered


def _cycle(waiting: list[Layer], producers: dict[str, Layer]) -> str:
    """Says which layers feed each other in a circle, by walking upstream until one repeats."""
    path = [waiting[0]]
    while True:
        upstream = next(producers[b] for b in path[-1].bottoms if producers[b] in waiting)
        if upstream in path:
            circle = [*path[path.index(upstream):], upstream][::-1]
            return "these layers feed each other in a circle: " + " -> ".join(
                repr(x.name) for x in circle
            )
        path.append(upstream)


def needing_gradients(layers: list[Layer], gradients: str) -> list[Layer]:
    """The layers that take part in the backward pass, in the order of `layers`.

    A layer does if something trainable lies in it or before it, and a loss behind it; see the
    argument `gradients` of Net.
    """
    if gradients == "none":
        return []
    everything = gradients == "all"
    wants: dict[str, bool] = {}  # blob -> something upstream needs its gradient
    for layer in layers:
        upstream = any(p.trainable for p in layer.parameters.values()) or any(
            wants[b] and layer.differentiable(i) for i, b in enumerate(layer.bottoms)
        )
        for top in layer.tops:
            wants[top] = not layer.is_metric and (everything or upstream)
    anywhere = everything or not any(layer.is_loss for layer in layers)
    reaches = dict.fromkeys(wants, anywhere)  # blob -> its value changes a loss
    for layer in reversed(layers):
        if layer.is_loss or any(reaches[t] for t in layer.tops):
            for i, bottom in enumerate(layer.bottoms):
                reaches[bottom] |= layer.differentiable(i) and not layer.is_metric
    return [
        layer for layer in layers
        if any(wants[t] for t in layer.tops)
        and (layer.is_loss or any(reaches[t] for t in layer.tops))
    ]


def readers_of(active: list[Layer], blobs: Iterable[str]) -> dict[str, list[tuple[str, int]]]:
    """blob -> (layer, number of the bottom) of every active layer that has a gradient for it."""
    readers: dict[str, list[tuple[str, int]]] = {name: [] for name in blobs}
    for layer in active:
        for i, bottom in enumerate(layer.bottoms):
            if bottom in readers and layer.differentiable(i):
                readers[bottom].append((layer.name, i))
    return readers
