"""Graph: an ONNX model in the making."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from layerkit.errors import NetError
from layerkit.layer import Layer
from layerkit.layers.sources.input import Input
from layerkit.net import Net
from layerkit.settings.names import quoted

OPSET, IR = 17, 8  # versions of ONNX (2022)
Shape = tuple[int, ...]
Convert = Callable[["Graph", Any], None]


def is_own(kind: type) -> bool:
    """Tell whether a class is one of layerkit's layers, and no subclass of somebody's."""
    return kind.__module__.startswith("layerkit.layers.")


class Graph:
    """The model in the making: nodes, which name what they make, and constants.

    Args:
        net: the net.
        library: the module onnx.
        converters: name of a class in layerkit.layers -> what converts it.
    """

    def __init__(self, net: Net, library: Any, converters: Mapping[str, Convert]):
        self.net, self.library, self.converters = net, library, converters
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._used = set(net.blobs)

    def model(self, outputs: list[str], given: list[str]) -> Any:
        """Make the model; see `export_onnx`."""
        needed, layers, inputs = set(outputs), [], []
        for layer in reversed(list(self.net.layers.values())):
            wanted = [top for top in layer.tops if top in needed and top not in given]
            if wanted and (layer.is_source or isinstance(layer, Input)):
                inputs += wanted
            elif wanted and not set(given).isdisjoint(layer.tops):
                raise NetError(
                    f"export_onnx: {layer.label()} makes {quoted(wanted)}, which is needed, beside "
                    "what is given; give both, or neither"
                )
            elif wanted:
                mean = type(layer).__name__ == "Reparameterize"  # its first bottom is all it takes
                needed.update(layer.bottoms[:1] if mean else layer.bottoms)
                layers.append(layer)
        inputs += [name for name in given if name in needed]
        if unused := [name for name in given if name not in needed]:
            raise NetError(f"export_onnx: {quoted(unused)} is not needed for {quoted(outputs)}")
        for layer in reversed(layers):
            self._convert(layer)
        helper = self.library.helper
        order = [name for name in self.net.blobs if name in inputs]
        ends = [name for name in outputs if name in inputs]
        if ends:
            raise NetError(f"export_onnx: {quoted(ends)} is an input of the model, not an output")
        graph = helper.make_graph(
            self.nodes,
            "net",
            [self._value(name) for name in order],
            [self._value(name) for name in outputs],
            self.constants,
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(
            graph, producer_name="layerkit", opset_imports=[opset], ir_version=IR
        )

    def _convert(self, layer: Layer) -> None:
        kind = type(layer)
        converter = self.converters.get(kind.__name__)
        if converter is None or not is_own(kind):
            raise NetError(
                f"export_onnx: {layer.label()}: this kind of layer cannot be exported; end before "
                "it (outputs=), or begin after it (inputs=)"
            )
        converter(self, layer)

    def _value(self, name: str) -> Any:
        kind = self.library.helper.np_dtype_to_tensor_dtype(self.net.blobs[name].data.dtype)
        shape = ["n", *self.net.blobs[name].shape]
        return self.library.helper.make_tensor_value_info(name, kind, shape)

    # For converters.

    def new(self, name: str) -> str:
        """Return a name that nothing has yet."""
        while name in self._used:
            name += "'"
        self._used.add(name)
        return name

    def constant(self, name: str, array: Any) -> str:
        """Add a constant; return its name."""
        name = self.new(name)
        self.constants.append(
            self.library.numpy_helper.from_array(np.ascontiguousarray(array), name)
        )
        return name

    def numbers(self, layer: Layer, name: str, values: Any) -> str:
        """Add a constant in the net's floats."""
        return self.constant(f"{layer.name}/{name}", np.asarray(values, self.net.dtype))

    def sizes(self, layer: Layer, name: str, values: Sequence[int]) -> str:
        """Add a constant of whole numbers."""
        return self.constant(f"{layer.name}/{name}", np.asarray(values, np.int64))

    def array(self, own: Any) -> np.ndarray:
        """Return the values of a parameter or statistic."""
        return self.net.backend.to_host(own.data)

    def op(
        self,
        kind: str,
        layer: Layer,
        inputs: Sequence[str],
        output: str | None = None,
        **settings: Any,
    ) -> str:
        """Add a node; return the name of its output, a new one unless it is given."""
        output = output or self.new(f"{layer.name}/{kind}")
        self.several(kind, inputs, [output], **settings)
        return output

    def several(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **settings: Any
    ) -> None:
        """Add a node with several outputs."""
        node = self.library.helper.make_node(kind, list(inputs), list(outputs), **settings)
        self.nodes.append(node)

    def shaped(self, layer: Layer, x: str, shape: Shape, output: str | None = None) -> str:
        """Give each example a shape."""
        sizes = self.sizes(layer, "shape", [-1, *shape])
        return self.op("Reshape", layer, [x, sizes], output)

    def bottom_shape(self, layer: Layer, number: int = 0) -> Shape:
        """Return the shape of an example of a bottom."""
        return self.net.blobs[layer.bottoms[number]].shape
