"""Layers, and their activations, as operators of ONNX."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from layerkit.errors import NetError
from layerkit.layer import Layer
from layerkit.saving.onnx.graph import Convert, Graph, Shape, is_own

CONVERTERS: dict[str, Convert] = {}  # name of a class in layerkit.layers -> what converts it

# Activations: (graph, layer, activation, x, name of y).


def _plain(kind: str, **names: str) -> Callable[..., None]:
    """Convert to one operator, whose settings are attributes of the activation."""

    def convert(graph: Graph, layer: Layer, neuron: Any, x: str, y: str) -> None:
        settings: dict[str, Any] = {ours: getattr(neuron, its) for ours, its in names.items()}
        graph.op(kind, layer, [x], y, **settings)

    return convert


def _gelu(graph: Graph, layer: Layer, neuron: Any, x: str, y: str) -> None:
    scaled = graph.op("Mul", layer, [x, graph.numbers(layer, "root", math.sqrt(0.5))])
    erf = graph.op("Erf", layer, [scaled])
    twice = graph.op("Add", layer, [erf, graph.numbers(layer, "one", 1.0)])
    half = graph.op("Mul", layer, [x, graph.numbers(layer, "half", 0.5)])
    graph.op("Mul", layer, [half, twice], y)


def _silu(graph: Graph, layer: Layer, neuron: Any, x: str, y: str) -> None:
    graph.op("Mul", layer, [x, graph.op("Sigmoid", layer, [x])], y)


def _prelu(graph: Graph, layer: Layer, neuron: Any, x: str, y: str) -> None:
    shape = graph.net.blobs[layer.tops[0]].shape
    slope = _spread(graph.array(layer.parameters["slope"]), 0, shape)
    graph.op("PRelu", layer, [x, graph.numbers(layer, "slope", slope)], y)


ACTIVATIONS: dict[str, Callable[..., None]] = {
    "ELU": _plain("Elu", alpha="alpha"),
    "Exponential": _plain("Exp"),
    "GELU": _gelu,
    "LeakyReLU": _plain("LeakyRelu", alpha="slope"),
    "PReLU": _prelu,
    "ReLU": _plain("Relu"),
    "SiLU": _silu,
    "Sigmoid": _plain("Sigmoid"),
    "Softplus": _plain("Softplus"),
    "Tanh": _plain("Tanh"),
}


def _activated(graph: Graph, layer: Layer, neuron: Any, x: str) -> None:
    """Make the top of an activation of x, or of x itself where there is none."""
    if neuron is None:
        graph.op("Identity", layer, [x], layer.tops[0])
        return
    kind, name = type(neuron), type(neuron).__name__
    if name not in ACTIVATIONS or not is_own(kind):
        raise NetError(f"export_onnx: {layer.label()}: its activation {name} cannot be exported")
    ACTIVATIONS[name](graph, layer, neuron, x, layer.tops[0])


# Layers.


def converts(*names: str) -> Callable[[Convert], Convert]:
    """Register what converts layers of these classes; a decorator."""

    def register(convert: Convert) -> Convert:
        CONVERTERS.update(dict.fromkeys(names, convert))
        return convert

    return register


@converts(*ACTIVATIONS)
def _activation(graph: Graph, layer: Any) -> None:
    _activated(graph, layer, layer, layer.bottoms[0])


@converts("Dropout", "Reparameterize")
def _first_bottom(graph: Graph, layer: Any) -> None:
    graph.op("Identity", layer, layer.bottoms[:1], layer.tops[0])


@converts("Dense", "TiedDense")
def _dense(graph: Graph, layer: Any) -> None:
    x, shape = layer.bottoms[0], graph.bottom_shape(layer)
    if len(shape) != 1:
        x = graph.shaped(layer, x, (math.prod(shape),))
    inputs = [x, graph.numbers(layer, "weight", graph.array(layer.parameters["weight"]))]
    if "bias" in layer.parameters:
        inputs.append(graph.numbers(layer, "bias", graph.array(layer.parameters["bias"])))
    turned = int(type(layer).__name__ == "TiedDense")
    _activated(graph, layer, layer.neuron, graph.op("Gemm", layer, inputs, transB=turned))


@converts("Convolution", "Deconvolution")
def _convolution(graph: Graph, layer: Any) -> None:
    shape, top = graph.bottom_shape(layer), graph.net.blobs[layer.tops[0]].shape
    axes = len(shape) - 1
    kernel, stride, pad, dilation = (_along(layer, name, axes) for name in WINDOWS)
    settings: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": stride,
        "pads": [*pad, *pad],
        "dilations": dilation,
        "group": getattr(layer, "groups", 1),
    }
    weight, kind = graph.array(layer.parameters["weight"]), "Conv"
    if type(layer).__name__ == "Convolution":
        weight = np.moveaxis(weight, (-1, -2), (0, 1))
    else:
        weight, kind = np.moveaxis(weight, -1, 1), "ConvTranspose"
        sizes = zip(shape[1:], top[1:], kernel, stride, pad, dilation, strict=True)
        settings["output_padding"] = [
            size - ((n - 1) * s + (k - 1) * d + 1 - 2 * p) for n, size, k, s, p, d in sizes
        ]
    inputs = [layer.bottoms[0], graph.numbers(layer, "weight", weight)]
    if "bias" in layer.parameters:
        inputs.append(graph.numbers(layer, "bias", graph.array(layer.parameters["bias"])))
    _activated(graph, layer, layer.neuron, graph.op(kind, layer, inputs, **settings))


WINDOWS = ("kernel", "stride", "pad", "dilation")


def _along(layer: Any, name: str, axes: int) -> list[int]:
    """Return a setting of windows for each spatial axis."""
    value = getattr(layer, name, 1)
    return list(value) if isinstance(value, tuple) else [value] * axes


@converts("Pooling")
def _pooling(graph: Graph, layer: Any) -> None:
    shape, top = graph.bottom_shape(layer), graph.net.blobs[layer.tops[0]].shape
    axes = len(shape) - 1
    kernel, stride, pad = (_along(layer, name, axes) for name in WINDOWS[:3])
    # The last windows may reach beyond the pads, as `ceil` has it.
    ends = [
        max((n - 1) * s + k - p - size, 0)
        for n, size, k, s, p in zip(top[1:], shape[1:], kernel, stride, pad, strict=True)
    ]
    settings: dict[str, Any] = {"kernel_shape": kernel, "strides": stride}
    if layer.mode == "max":
        graph.op("MaxPool", layer, layer.bottoms, layer.tops[0], pads=[*pad, *ends], **settings)
        return
    x = layer.bottoms[0]
    if any(pad) or any(ends):
        pads = graph.sizes(layer, "pads", [0, 0, *pad, 0, 0, *ends])
        x = graph.op("Pad", layer, [x, pads])
    means = graph.op("AveragePool", layer, [x], **settings)
    factor = np.ones((1, 1))
    for n, size, k, s, p in zip(top[1:], shape[1:], kernel, stride, pad, strict=True):
        starts = np.arange(n) * s - p
        factor = factor[..., None] * k / (np.minimum(starts + k, size + p) - starts)
    graph.op("Mul", layer, [means, graph.numbers(layer, "factor", factor)], layer.tops[0])


@converts("GlobalPooling")
def _global_pooling(graph: Graph, layer: Any) -> None:
    shape = graph.bottom_shape(layer)
    axes = list(range(2, 1 + len(shape)))
    kind = "ReduceMax" if layer.mode == "max" else "ReduceMean"
    graph.op(kind, layer, layer.bottoms, layer.tops[0], axes=axes, keepdims=0)


@converts("Reduce")
def _reduce(graph: Graph, layer: Any) -> None:
    count = len(graph.bottom_shape(layer))
    axes = range(count) if layer.axes is None else layer.axes
    numbers, keep = [1 + axis % count for axis in axes], int(layer.keep)
    if layer.mode == "sum":
        inputs = [layer.bottoms[0], graph.sizes(layer, "axes", numbers)]
        graph.op("ReduceSum", layer, inputs, layer.tops[0], keepdims=keep)
        return
    kind = "ReduceMax" if layer.mode == "max" else "ReduceMean"
    graph.op(kind, layer, layer.bottoms, layer.tops[0], axes=numbers, keepdims=keep)


@converts("Normalise")
def _normalise(graph: Graph, layer: Any) -> None:
    count, x = len(graph.bottom_shape(layer)), layer.bottoms[0]
    axes = range(count) if layer.axes is None else layer.axes
    numbers = graph.sizes(layer, "axes", [1 + axis % count for axis in axes])
    graph.op("Div", layer, [x, graph.op("ReduceSum", layer, [x, numbers])], layer.tops[0])


@converts("Add", "Multiply", "Subtract", "Divide")
def _arithmetic(graph: Graph, layer: Any) -> None:
    kind = {"Add": "Add", "Multiply": "Mul", "Subtract": "Sub", "Divide": "Div"}
    y, *others = layer.bottoms
    for x in others:
        y = graph.op(kind[type(layer).__name__], layer, [y, x])
    graph.op("Identity", layer, [y], layer.tops[0])


@converts("MatMul")
def _matmul(graph: Graph, layer: Any) -> None:
    order = list(range(1 + len(graph.bottom_shape(layer))))
    order[-2:] = order[:-3:-1]
    flags = (layer.transpose_a, layer.transpose_b)
    inputs = [
        graph.op("Transpose", layer, [x], perm=order) if flag else x
        for x, flag in zip(layer.bottoms, flags, strict=True)
    ]
    graph.op("MatMul", layer, inputs, layer.tops[0])


@converts("Concat")
def _concat(graph: Graph, layer: Any) -> None:
    graph.op("Concat", layer, layer.bottoms, layer.tops[0], axis=1 + getattr(layer, "axis", 0))


@converts("Slice")
def _slice(graph: Graph, layer: Any) -> None:
    axis = getattr(layer, "axis", 0)
    sizes = [graph.net.blobs[top].shape[axis] for top in layer.tops]
    inputs = [layer.bottoms[0], graph.sizes(layer, "sizes", sizes)]
    graph.several("Split", inputs, layer.tops, axis=1 + axis)


@converts("Reshape")
def _reshape(graph: Graph, layer: Any) -> None:
    shape = graph.net.blobs[layer.tops[0]].shape
    graph.shaped(layer, layer.bottoms[0], shape, layer.tops[0])


@converts("Permute")
def _permute(graph: Graph, layer: Any) -> None:
    count = len(layer.order)
    order = [0, *(1 + axis % count for axis in layer.order)]
    graph.op("Transpose", layer, layer.bottoms, layer.tops[0], perm=order)


@converts("Softmax")
def _softmax(graph: Graph, layer: Any) -> None:
    shape = graph.bottom_shape(layer)
    if layer.axis is None:
        flat = graph.shaped(layer, layer.bottoms[0], (math.prod(shape),))
        y = graph.op("Softmax", layer, [flat], axis=1)
        graph.shaped(layer, y, shape, layer.tops[0])
    else:
        axis = 1 + layer.axis % len(shape)
        graph.op("Softmax", layer, layer.bottoms, layer.tops[0], axis=axis)


@converts("Embed")
def _embed(graph: Graph, layer: Any) -> None:
    ids = graph.op("Cast", layer, layer.bottoms, to=graph.library.TensorProto.INT64)
    weight = graph.numbers(layer, "weight", graph.array(layer.parameters["weight"]))
    graph.op("Gather", layer, [weight, ids], layer.tops[0], axis=0)


@converts("OneHot")
def _one_hot(graph: Graph, layer: Any) -> None:
    ids = graph.op("Cast", layer, layer.bottoms, to=graph.library.TensorProto.INT64)
    depth = graph.sizes(layer, "count", layer.count)
    values = graph.numbers(layer, "values", [0.0, 1.0])
    axis = 1 + layer.axis % (1 + len(graph.bottom_shape(layer)))
    graph.op("OneHot", layer, [ids, depth, values], layer.tops[0], axis=axis)


GATES = {"GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}  # those of ours in the order of ONNX's


@converts("GRU", "LSTM")
def _recurrent(graph: Graph, layer: Any) -> None:
    kind = type(layer).__name__
    names = ("weight", "recurrent", "bias")
    weight, recurrent, bias = (graph.array(layer.parameters[name]) for name in names)
    if kind == "LSTM":
        layer.part(bias[None], 1)[...] += layer.forget

    def ordered(values: np.ndarray) -> np.ndarray:
        """Return (..., gates * units) as (1, gates * units, ...), for one direction."""
        parts = np.split(values, layer.gates, axis=-1)
        return np.concatenate([parts[i] for i in GATES[kind]], axis=-1).T[None]

    biases = np.concatenate([ordered(bias), np.zeros((1, bias.size))], axis=1)  # of x W, of h U
    arrays = {"weight": ordered(weight), "recurrent": ordered(recurrent), "bias": biases}
    constants = [graph.numbers(layer, name, values) for name, values in arrays.items()]
    settings: dict[str, Any] = {"hidden_size": layer.units}
    settings["direction"] = "reverse" if layer.reverse else "forward"
    if kind == "GRU":
        settings["linear_before_reset"] = 1
    x = graph.op("Transpose", layer, layer.bottoms, perm=[1, 0, 2])
    h = graph.new(f"{layer.name}/{kind}")
    outputs = ["", h] if layer.last else [h]  # of all steps, and of the last one
    graph.several(kind, [x, *constants], outputs, **settings)
    direction = graph.sizes(layer, "direction", [0 if layer.last else 1])
    if layer.last:
        graph.op("Squeeze", layer, [h, direction], layer.tops[0])
    else:
        h = graph.op("Squeeze", layer, [h, direction])
        graph.op("Transpose", layer, [h], layer.tops[0], perm=[1, 0, 2])


@converts("Affine")
def _affine(graph: Graph, layer: Any) -> None:
    _gain_and_bias(graph, layer, layer.bottoms[0], layer.axis)


@converts("Taper")
def _taper(graph: Graph, layer: Any) -> None:
    window = graph.net.backend.to_host(layer.window).reshape(graph.bottom_shape(layer))
    inputs = [layer.bottoms[0], graph.numbers(layer, "window", window)]
    graph.op("Mul", layer, inputs, layer.tops[0])


@converts("BatchNorm")
def _batch_norm(graph: Graph, layer: Any) -> None:
    shape = graph.bottom_shape(layer)
    mean, variance = (
        graph.array(layer.statistics[name]).astype("float64") for name in ("mean", "variance")
    )
    factor = _spread(1 / np.sqrt(variance + layer.epsilon), layer.axis, shape)
    centre = graph.numbers(layer, "mean", _spread(mean, layer.axis, shape))
    x = graph.op("Sub", layer, [layer.bottoms[0], centre])
    x = graph.op("Mul", layer, [x, graph.numbers(layer, "factor", factor)])
    _gain_and_bias(graph, layer, x, layer.axis)


@converts("LayerNorm")
def _layer_norm(graph: Graph, layer: Any) -> None:
    shape = graph.bottom_shape(layer)
    x = _normalised(graph, layer, (math.prod(shape[: layer.axis]), math.prod(shape[layer.axis :])))
    _gain_and_bias(graph, layer, x, layer.axis)


@converts("GroupNorm")
def _group_norm(graph: Graph, layer: Any) -> None:
    size = math.prod(graph.bottom_shape(layer)) // layer.groups
    _gain_and_bias(graph, layer, _normalised(graph, layer, (layer.groups, size)), 0)


def _normalised(graph: Graph, layer: Any, view: tuple[int, int]) -> str:
    """Give the numbers of each of `view[0]` groups mean 0 and variance 1."""
    x = graph.shaped(layer, layer.bottoms[0], view)
    mean = graph.op("ReduceMean", layer, [x], axes=[2], keepdims=1)
    d = graph.op("Sub", layer, [x, mean])
    square = graph.op("Mul", layer, [d, d])
    variance = graph.op("ReduceMean", layer, [square], axes=[2], keepdims=1)
    safe = graph.op("Add", layer, [variance, graph.numbers(layer, "epsilon", layer.epsilon)])
    y = graph.op("Div", layer, [d, graph.op("Sqrt", layer, [safe])])
    return graph.shaped(layer, y, graph.bottom_shape(layer))


def _gain_and_bias(graph: Graph, layer: Any, x: str, axis: int) -> None:
    """Make the top, gain x + bias, of parameters that belong to axes from `axis` on."""
    for name, kind in (("gain", "Mul"), ("bias", "Add")):
        if name in layer.parameters:
            values = graph.array(layer.parameters[name])
            values = _spread(values, axis, graph.bottom_shape(layer))
            x = graph.op(kind, layer, [x, graph.numbers(layer, name, values)])
    graph.op("Identity", layer, [x], layer.tops[0])


def _spread(values: np.ndarray, axis: int, shape: Shape) -> np.ndarray:
    """Return values of some axes of an example, from `axis` on, so that they fit a batch."""
    return values.reshape(*values.shape, *[1] * (len(shape) - axis - values.ndim))
