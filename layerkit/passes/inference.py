"""Inference: the values of some blobs of a net given those of others, without a trace in the net.

The layers are the net's own; blobs and buffers are not, so that a backward pass after it still
finds what the forward pass before it has left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.data.arrays import some_rows
from layerkit.errors import NetError, brief
from layerkit.layer import Layer
from layerkit.layers.sources.input import Input
from layerkit.passes.feeding import examples, fill
from layerkit.settings import Whole, accept
from layerkit.settings.names import closest, quoted
from layerkit.system.uninterrupted import undoing
from layerkit.wiring import contract
from layerkit.wiring.part import Part

if TYPE_CHECKING:
    from layerkit.net import Net


class Mirror(Part):
    """The second set of blobs and buffers of a net, in which it infers; made as it is needed."""

    def __init__(self, net: Net):
        super().__init__(net)
        self.blobs: dict[str, Blob] = {}
        self._memory: dict[int, Array] = {}

    def blob(self, name: str) -> Blob:
        """Return the blob that stands for the net's blob of this name, made when needed."""
        net = self.net
        if name not in self.blobs:
            own = net.blobs[name]
            self.blobs[name] = Blob.allocate(
                name, net.run.batch_size, own.shape, net.backend, own.data.dtype
            )
        return self.blobs[name]

    def memory(self, buffer: Blob) -> Array:
        """Return the memory that a layer's buffer has while the net infers."""
        memory = self._memory.get(id(buffer))
        if memory is None:
            memory = self.net.backend.zeros(buffer.whole.shape, buffer.whole.dtype)
            memory[...] = buffer.whole
            self._memory[id(buffer)] = memory
        return memory


class Inference(Part):
    """The calls that lead from given blobs to others.

    Args:
        net: the net.
        mirror: its second set of blobs.
        outputs: names of the blobs that are wanted.
        given: names of those that are given.
        caller: what messages call the function that infers.

    Raises:
        NetError: an unknown blob, or one that is needed and not given.
    """

    def __init__(
        self,
        net: Net,
        mirror: Mirror,
        outputs: Sequence[str],
        given: Iterable[str],
        caller: str = "infer",
    ):
        super().__init__(net)
        self.mirror = mirror
        self.outputs, self.given = list(outputs), list(given)
        for name in (*self.outputs, *self.given):
            if name not in net.blobs:
                raise NetError(f"{caller}: no blob {name!r}; {closest(name, net.blobs)}")
        layers = _needed(list(net.layers.values()), self.outputs, set(self.given), caller)
        self.calls = [
            (layer, [mirror.blob(b) for b in layer.bottoms], [mirror.blob(t) for t in layer.tops])
            for layer in layers
        ]
        names = {*self.outputs, *self.given}
        names.update(name for layer in layers for name in (*layer.bottoms, *layer.tops))
        self.blobs = [mirror.blob(name) for name in names]
        self.checked = False

    def run(self, rows: int, arrays: dict[str, Any], sample: bool) -> list[np.ndarray]:
        """Run all layers on `rows` rows of the given blobs; return the outputs' values."""
        net, layers = self.net, [layer for layer, _, _ in self.calls]
        for blob in self.blobs:
            blob.resize(rows)
        for name, array in arrays.items():
            fill(net, self.mirror.blob(name), array)
        kept, attributes = net.run.kept(), [dict(vars(layer)) for layer in layers]
        moves = [
            (buffer, buffer.whole, self.mirror.memory(buffer))
            for layer in layers
            for buffer in layer.buffers
        ]

        def look() -> None:
            for buffer, _, memory in moves:
                buffer.move(memory, rows)
            net.run.look(sample)
            net.engine.set_pass(net.run)
            for layer, bottoms, tops in self.calls:
                call: contract.Call = net.runners[layer.name].forward
                if self.checked:
                    contract.make(layer, call, bottoms, tops)
                else:
                    contract.forward(layer, call, bottoms, tops)

        def undo() -> None:
            for buffer, own, _ in moves:
                buffer.move(own, net.rows)
            for layer, its in zip(layers, attributes, strict=True):
                vars(layer).update(its)  # such as what it keeps for its backward pass
            net.run.put_back(kept)
            net.engine.set_pass(net.run)

        undoing(look, undo)
        self.checked = True
        return [net.backend.to_host(self.mirror.blob(name).data) for name in self.outputs]


class Inferences(Part):
    """The inferences of a net, each made up when it is first asked for.

    Args:
        net: the net.
    """

    def __init__(self, net: Net):
        super().__init__(net)
        self._mirror = Mirror(net)
        self._found: dict[tuple[tuple[str, ...], tuple[str, ...]], Inference] = {}

    def infer(
        self,
        outputs: str | Sequence[str],
        sample: bool,
        given: dict[str, Any],
        caller: str = "infer",
        count: Any = None,
    ) -> Any:
        """Return the values of some blobs given those of others; see Net.infer.

        Args:
            caller: what messages call the function that infers.
        """
        net = self.net
        if not isinstance(sample, bool | np.bool_):
            raise NetError(
                f"infer: sample= must be True or False, got {brief(sample)}; a blob of that name "
                "cannot be given"
            )
        names = [outputs] if isinstance(outputs, str) else outputs
        if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
            raise NetError(
                f"infer: expected the name of a blob, or a list of names, got {brief(names)}"
            )
        if count is not None:
            count = accept(Whole(1), count, "count", "infer")
            if given:
                raise NetError(
                    f"infer: count={count} says how many rows there are where no blob is given, "
                    f"but {quoted(given)} came; leave one of them out"
                )
        key = (tuple(names), tuple(sorted(given)))
        if key not in self._found:
            self._found[key] = Inference(net, self._mirror, names, given, caller)
        arrays, total = ({}, count) if count is not None else examples(net, caller, given)
        blobs = [net.blobs[name] for name in names]
        collected = [np.empty((total, *blob.shape), blob.data.dtype) for blob in blobs]
        before, after = net.run.beside(total)
        net.run.skip_looks(before)
        for start in range(0, total, net.run.batch_size):
            stop = min(start + net.run.batch_size, total)
            batch = some_rows(arrays, start, stop)
            values = self._found[key].run(stop - start, batch, bool(sample))
            for whole, part in zip(collected, values, strict=True):
                whole[start:stop] = part
        net.run.skip_looks(after)
        return collected[0] if isinstance(outputs, str) else collected


def _needed(layers: list[Layer], outputs: list[str], known: set[str], caller: str) -> list[Layer]:
    """Find the layers that make the outputs from what is known, in the order in which they run."""
    needed, found = set(outputs), []
    for layer in reversed(layers):
        wanted = [t for t in layer.tops if t in needed and t not in known]
        if wanted and (layer.is_source or isinstance(layer, Input)):
            raise NetError(f"{caller}: {wanted[0]!r} is needed for {outputs}; give {wanted[0]}=")
        if wanted and not known.isdisjoint(layer.tops):
            raise NetError(
                f"{caller}: layer {layer.name!r} would overwrite what is given; give {wanted[0]}="
            )
        if wanted:
            needed.update(layer.bottoms)
            found.append(layer)
    return found[::-1]
