"""Convolution and Deconvolution; see kernels/pictures/windows.cu."""

from __future__ import annotations

import math
from typing import Any

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.activations import has_formula
from layerkit.engines.cuda.runners.base import Activated
from layerkit.layers.pictures.windows import pictures

SLICES = 32  # of a batch, of which the gradients of biases are added up apart


class Windowed(Activated):
    """Base class of Convolution and Deconvolution: windows, and gradients of biases."""

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.geometry = *layer.windows.numbers, layer.groups, *layer.picture
        self.sums = self.zeros(min(SLICES, layer.run.batch_size), layer.channels)

    @classmethod
    def fits(cls, layer: Any, engine: Any) -> bool:
        """Return whether the activation has a formula."""
        return has_formula(layer.neuron)

    def cut(self, picture: Array) -> None:
        """Fill the layer's `columns` with the windows of pictures."""
        columns = self.layer.columns.data
        self.each(
            "windows",
            "cut_windows",
            columns.size,
            len(picture),
            *self.geometry,
            picture,
            columns,
            ACTIVATION="Linear",
        )

    def add_up(self, picture: Array, diffs: bool) -> None:
        """Fill pictures with the sums of the windows, and unless they are diffs activate them."""
        inner = None if diffs else self.layer.inner
        (out,), setting, defines = self.entering([picture], [inner])
        self.each(
            "windows",
            "add_up_windows",
            picture.size,
            len(picture),
            *self.geometry,
            diffs,
            setting,
            self.layer.columns.data,
            None if diffs else self.bias(),
            out,
            **defines,
        )
        self.activate(picture, inner)

    def bias(self) -> Array | None:
        """Return b, or None where the layer has none."""
        return None if self.layer.b is None else self.layer.b.data

    def channels_last(self, small: Array) -> None:
        """Fill the layer's `rows` from (n, channels, down, across)."""
        layer = self.layer
        self.each(
            "windows",
            "channels_last",
            small.size,
            small.shape[1],
            layer.places,
            small,
            layer.rows.data,
            ACTIVATION="Linear",
        )

    def channels_first(self, small: Array, diffs: bool) -> None:
        """Fill (n, channels, down, across) from `rows`, and unless they are diffs activate them."""
        layer = self.layer
        inner = None if diffs else layer.inner
        (out,), setting, defines = self.entering([small], [inner])
        self.each(
            "windows",
            "channels_first",
            small.size,
            small.shape[1],
            layer.places,
            diffs,
            setting,
            layer.rows.data,
            None if diffs else self.bias(),
            out,
            **defines,
        )
        self.activate(small, inner)

    def before(self, top: Blob) -> Array:
        """Return d loss / d what was activated, and fill db."""
        layer, d, (setting, defines) = self.layer, pictures(top.diff), self.activation()
        if layer.neuron:
            d = layer.before.data
            known = self.known(top, layer.inner)
            self.each("activation", "differentiate", d.size, setting, known, top.diff, d, **defines)
        if layer.b is not None and layer.b.trainable:
            (count, channels), places = d.shape[:2], math.prod(d.shape[2:])
            slices = min(len(self.sums), count)
            self.launch(
                "windows",
                "channel_sums",
                channels * slices,
                count,
                channels,
                places,
                slices,
                d,
                self.sums if slices > 1 else layer.b.diff,
                ACTIVATION="Linear",
            )
            if slices > 1:
                self.launch(
                    "dense",
                    "sum_slices",
                    self.blocks(channels),
                    slices,
                    channels,
                    self.sums,
                    layer.b.diff,
                    ACTIVATION="Linear",
                )
        return d


class Convolution(Windowed):
    """Windows times W."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x * W + b)."""
        layer = self.layer
        self.cut(pictures(bottoms[0].data))
        for windows, rows, w in layer.matrices(layer.w.data):
            layer.backend.gemm(windows, w, out=rows)
        self.channels_first(pictures(tops[0].data), diffs=False)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all gradients."""
        layer, gemm = self.layer, self.layer.backend.gemm
        self.channels_last(self.before(tops[0]))
        if layer.w.trainable:
            self.cut(pictures(bottoms[0].data))
            for windows, rows, dw in layer.matrices(layer.w.diff):
                gemm(windows.T, rows, out=dw)
        if bottoms[0].diff is not None:
            for windows, rows, w in layer.matrices(layer.w.data):
                gemm(rows, w.T, out=windows)
            self.add_up(pictures(bottoms[0].diff), diffs=True)


class Deconvolution(Windowed):
    """The transpose of a Convolution."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x *^T W + b)."""
        layer = self.layer
        self.channels_last(pictures(bottoms[0].data))
        for windows, rows, w in layer.matrices(layer.w.data):
            layer.backend.gemm(rows, w, out=windows)
        self.add_up(pictures(tops[0].data), diffs=False)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all gradients."""
        layer, gemm = self.layer, self.layer.backend.gemm
        self.cut(self.before(tops[0]))
        if layer.w.trainable:
            self.channels_last(pictures(bottoms[0].data))
            for windows, rows, dw in layer.matrices(layer.w.diff):
                gemm(rows.T, windows, out=dw)
        if bottoms[0].diff is not None:
            for windows, rows, w in layer.matrices(layer.w.data):
                gemm(windows, w.T, out=rows)
            self.channels_first(pictures(bottoms[0].diff), diffs=True)
