"""Wiring: the order of layers and the blobs each reads and writes, found from names alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Union

from layerkit.backends.base import Array
from layerkit.blob import Blob, Parameter
from layerkit.errors import NetError, brief
from layerkit.layer import Layer
from layerkit.run import Run
from layerkit.settings.names import closest
from layerkit.wiring.sharing import Sum, own, share_out, used

Layers = Sequence[Union[Layer, "Layers"]]  # a list of layers, and of such lists


def flattened(layers: Iterable[Any]) -> list[Any]:
    """Return a list in which the layers of lists inside take the place of these, however deep.

    Raises:
        NetError: a list that holds itself.
    """
    return list(_leaves(layers, ()))


def _leaves(some: Iterable[Any], around: tuple[Any, ...]) -> Iterator[Any]:
    """Yield what is in lists of lists; `around` are those that this one is in."""
    if any(other is some for other in around):
        raise NetError("the list of layers holds a list that holds itself")
    for item in some:
        if isinstance(item, list | tuple):
            yield from _leaves(item, (*around, some))
        else:
            yield item


def checked_layers(layers: Any) -> list[Layer]:
    """Return the layers that a net is to be made from as a list.

    Raises:
        NetError: no list, or something in it is no layer, not fully made, or in a net already.
    """
    if isinstance(layers, Layer | str) or not isinstance(layers, Iterable):
        raise NetError(
            f"a net is made from a list of layers, got {brief(layers)}; put it in a list"
        )
    layers = flattened(layers)
    if not layers:
        raise NetError("the list of layers is empty")
    for layer in layers:
        if not isinstance(layer, Layer):
            raise NetError(f"the list of layers holds {brief(layer)}, which is not a Layer")
        if "parameters" not in vars(layer):
            raise NetError(
                f"a layer of class {type(layer).__name__} has not called "
                "super().__init__(name, bottoms)"
            )
        if "run" in vars(layer):
            layer.fail(
                "belongs to a net already; make another from the list of layers that it was made "
                "from, or from net.descriptions"
            )
    return layers


def sort_layers(layers: list[Layer]) -> list[Layer]:
    """Return the layers in an order in which every blob is made before it is read.

    Layers keep the order of the list as far as that allows.
    """
    producers: dict[str, Layer] = {}
    names: set[str] = set()
    for layer in layers:
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
    for layer in layers:
        for name in layer.after():
            if name not in names:
                layer.fail(f"there is no layer {name!r} to use; {closest(name, names)}")
    ordered: list[Layer] = []
    made: set[str] = set()
    there: set[str] = set()
    waiting = list(layers)
    while waiting:
        ready = next(
            (x for x in waiting if made.issuperset(x.bottoms) and there.issuperset(x.after())), None
        )
        if ready is None:
            raise NetError(_cycle(waiting, producers))
        waiting.remove(ready)
        ordered.append(ready)
        made.update(ready.tops)
        there.add(ready.name)
    return ordered


def _cycle(waiting: list[Layer], producers: dict[str, Layer]) -> str:
    """Say which layers feed each other in a circle, by walking upstream until one repeats."""
    missing = {x.name: x for x in waiting}
    path = [waiting[0]]
    while True:
        needed = [*(producers[b].name for b in path[-1].bottoms), *path[-1].after()]
        upstream = next(missing[name] for name in needed if name in missing)
        if upstream in path:
            circle = [*path[path.index(upstream) :], upstream][::-1]
            return "these layers feed each other in a circle: " + " -> ".join(
                repr(x.name) for x in circle
            )
        path.append(upstream)


def needing_gradients(layers: list[Layer], gradients: str) -> list[Layer]:
    """Return the layers that take part in the backward pass, in the order of `layers`.

    A layer does if something trainable is in it or upstream, and a loss downstream; see the
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
            able = not layer.is_metric and top not in layer.integer_blobs
            wants[top] = able and (everything or upstream)
    anywhere = everything or not any(layer.is_loss for layer in layers)
    reaches = dict.fromkeys(wants, anywhere)  # blob -> its value changes a loss
    for layer in reversed(layers):
        if layer.is_loss or any(reaches[t] for t in layer.tops):
            for i, bottom in enumerate(layer.bottoms):
                reaches[bottom] |= layer.differentiable(i) and not layer.is_metric
    return [
        layer
        for layer in layers
        if any(wants[t] for t in layer.tops)
        and (layer.is_loss or any(reaches[t] for t in layer.tops))
    ]


def readers_of(active: list[Layer], blobs: Iterable[str]) -> dict[str, list[tuple[str, int]]]:
    """Map each blob to (layer, bottom number) of the active layers with a gradient for it."""
    readers: dict[str, list[tuple[str, int]]] = {name: [] for name in blobs}
    for layer in active:
        for i, bottom in enumerate(layer.bottoms):
            if bottom in readers and layer.differentiable(i):
                readers[bottom].append((layer.name, i))
    return readers


class ForwardWires(NamedTuple):
    """Blobs of a layer in the forward pass."""

    layer: Layer
    bottoms: list[Blob]
    tops: list[Blob]


class BackwardWires(NamedTuple):
    """Blobs of a layer in the backward pass.

    Attributes:
        gathers: tops with diffs to be added up before.
        sums: parts of parameters' gradients to be added up afterwards; None where the layer alone
            has parts in the gradients of its parameters.
    """

    layer: Layer
    bottoms: list[Blob]
    tops: list[Blob]
    gathers: list[tuple[Blob, list[Blob]]]
    sums: list[Sum] | None


@dataclass
class Wires:
    """Blobs that the layers of a net read and write, in the order in which the layers run.

    Attributes:
        forward, backward: by layer; in the backward pass a bottom is the blob itself, or a branch
            of it if other layers read it too, or if this one must not write its diff.
        branches: the blobs that only the backward pass knows.
        idle: parameters whose diffs no layer fills.
    """

    forward: list[ForwardWires] = field(default_factory=list)
    backward: list[BackwardWires] = field(default_factory=list)
    branches: list[Blob] = field(default_factory=list)
    idle: list[Parameter] = field(default_factory=list)


def connect(layers: list[Layer], blobs: Mapping[str, Blob], gradients: str, run: Run) -> Wires:
    """Decide which blobs get a diff, give it to them, and connect them to the layers.

    Args:
        layers: the layers, in the order in which they run.
        blobs: name -> Blob, each of a whole batch.
        gradients: see Net.
        run: of the net.
    """

    def zeros(blob: Blob) -> Array:
        return run.backend.zeros((run.batch_size, *blob.shape), run.dtype)

    def part(p: Parameter) -> Array:
        return run.backend.zeros(p.shape, run.dtype)

    wires = Wires()
    for layer in layers:
        bottoms, tops = [blobs[b] for b in layer.bottoms], [blobs[t] for t in layer.tops]
        wires.forward.append(ForwardWires(layer, bottoms, tops))
    active = needing_gradients(layers, gradients)
    sums = share_out(layers, active, part)
    filled = {id(p) for x in active for p in (*own(x), *(p.source for p in used(x)))}
    wires.idle = [p for x in layers for p in own(x) if id(p) not in filled]
    with_diff = {top for layer in active for top in layer.tops}
    for name, blob in blobs.items():
        blob.set_diff(zeros(blob) if name in with_diff else None)
    views: dict[tuple[str, int], Blob] = {}
    branches: dict[str, list[Blob]] = {}
    for name, places in readers_of(active, with_diff).items():
        blob = blobs[name]
        if len(places) == 1:
            views[places[0]] = blob  # the only reader writes the blob's own diff
        else:
            # Added up by name: the list's order must not decide how the sum is rounded.
            places = sorted(places)
            branches[name] = [blob.branch(zeros(blob)) for _ in places]
            views.update(zip(places, branches[name], strict=True))
            wires.branches += branches[name]
    for layer in reversed(active):
        bottoms = []
        for i, name in enumerate(layer.bottoms):
            if (layer.name, i) not in views:  # its diff must not be written
                views[layer.name, i] = blobs[name].branch(None)
                wires.branches.append(views[layer.name, i])
            bottoms.append(views[layer.name, i])
        tops = [blobs[t] for t in layer.tops]
        gathers = [(t, branches[t.name]) for t in tops if t.name in branches]
        wires.backward.append(BackwardWires(layer, bottoms, tops, gathers, sums.get(layer.name)))
    return wires
