"""SpatialTransform as operators of ONNX."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from layerkit.layers.pictures.pose import LATENTS
from layerkit.saving.onnx.graph import Graph


def spatial_transform(graph: Graph, layer: Any) -> None:
    """Compute the similarity of each pose, and the place in the bottom of each pixel of the top."""
    picture, pose = layer.bottoms
    side, shape = layer.side, graph.bottom_shape(layer)

    def op(kind: str, *inputs: str, **settings: Any) -> str:
        return graph.op(kind, layer, inputs, **settings)

    def times(x: str, factor: float) -> str:
        return op("Mul", x, graph.numbers(layer, "factor", factor))

    count = graph.bottom_shape(layer, 1)[0]
    whole = op(
        "MatMul", pose, graph.numbers(layer, "whole", np.eye(count, LATENTS))
    )  # 0 if missing
    columns = [graph.new(f"{layer.name}/u{i}") for i in range(LATENTS)]
    graph.several("Split", [whole, graph.sizes(layer, "ones", [1] * LATENTS)], columns, axis=1)
    sign = 1 if layer.inverse else -1
    # 2 pi turns (Phi(u) - 1/2) is half the span times erf(u / sqrt(2)).
    angle = times(op("Erf", times(columns[0], math.sqrt(0.5))), sign * layer.span / 2)
    scale = op("Exp", times(columns[1], sign * layer.size_spread))
    x, y = (times(u, layer.shift_spread) for u in columns[2:])
    a, b = op("Mul", scale, op("Cos", angle)), op("Mul", scale, op("Sin", angle))
    if not layer.inverse:
        x, y = (
            op("Sub", op("Mul", b, y), op("Mul", a, x)),
            op("Neg", op("Add", op("Mul", b, x), op("Mul", a, y))),
        )
    rows = op("Concat", a, op("Neg", b), x, b, a, y, axis=1)
    maps = graph.shaped(layer, rows, (2, 3))
    line = (np.arange(side) - (side - 1) / 2) * 2 / (side - 1)  # from -1 to 1
    pixels = np.stack(
        [np.tile(line, side), np.repeat(line, side), np.full(side**2, 2 / (side - 1))]
    )
    places = op("MatMul", maps, graph.numbers(layer, "pixels", pixels))
    grid = graph.shaped(layer, op("Transpose", places, perm=[0, 2, 1]), (side, side, 2))
    seen = op(
        "GridSample",
        graph.shaped(layer, picture, (1, side, side)),
        grid,
        mode="bilinear",
        padding_mode="border",
        align_corners=1,
    )
    graph.shaped(layer, seen, shape, layer.tops[0])
