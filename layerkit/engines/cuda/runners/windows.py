"""Convolution and Deconvolution; see kernels/windows.cu."""

from __future__ import annotations

import math
from typing import Any

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.cuda.runners.base import ACTIVATIONS, Activated

SLICES = 32  # of a batch, of which the gradients of biases are added up apart


class Windowed(Activated):
    """Base class of Convolution and Deconvolution: windows, and gradients of biases."""

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.sums = self.zeros(min(SLICES, layer.run.batch_size), layer.channels)

    @classmethod
    def fits(cls, layer: Any, engine: Any) -> bool:
        """Return whether the activation has a formula."""
        return type(layer.neuron) in ACTIVATIONS

    def geometry(self, picture: Array) -> tuple[int, ...]:
        """Return how pictures, (n, channels, height, width), are cut into windows."""
        layer = self.layer
        return *picture.shape[1:], layer.kernel, layer.stride, layer.pad, *layer.grid

    def cut(self, picture: Array) -> Array:
        """Return the windows of pictures, in rows."""
        columns = self.matrix(self.layer.columns)
        self.each(
            "windows",
            "cut_windows",
            columns.size,
            *self.geometry(picture),
            picture,
            columns,
            ACTIVATION="Linear",
        )
        return columns

    def add_up(self, picture: Array, bias: Array | None) -> None:
        """Fill pictures with the sums of the windows, through bias and activation if any."""
        inner = None if bias is None else self.layer.inner
        (out,), setting, defines = self.entering([picture], [inner])
        self.each(
            "windows",
            "add_up_windows",
            picture.size,
            *self.geometry(picture),
            setting,
            self.layer.columns.data,
            bias,
            out,
            **defines,
        )
        self.activate(picture, inner)

    def channels_last(self, small: Array) -> Array:
        """Return (n, channels, down, across) as rows (n * places, channels)."""
        layer, found = self.layer, self.matrix(self.layer.rows)
        self.each(
            "windows",
            "channels_last",
            small.size,
            small.shape[1],
            layer.places,
            small,
            found,
            ACTIVATION="Linear",
        )
        return found

    def channels_first(self, small: Array, bias: Array | None) -> None:
        """Fill (n, channels, down, across), through bias and activation if there is one."""
        layer = self.layer
        inner = None if bias is None else layer.inner
        (out,), setting, defines = self.entering([small], [inner])
        self.each(
            "windows",
            "channels_first",
            small.size,
            small.shape[1],
            layer.places,
            setting,
            layer.rows.data,
            bias,
            out,
            **defines,
        )
        self.activate(small, inner)

    def before(self, top: Blob) -> Array:
        """Return d loss / d what was activated, and fill db."""
        layer, d, (setting, defines) = self.layer, top.diff, self.activation()
        if layer.neuron:
            d = layer.before.data
            known = self.known(top, layer.inner)
            self.each("activation", "differentiate", d.size, setting, known, top.diff, d, **defines)
        if layer.b.trainable:
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

    @staticmethod
    def matrix(buffer: Blob) -> Array:
        """Return a buffer (n, places, ...) as a matrix (n * places, ...)."""
        return buffer.data.reshape(-1, buffer.shape[1])


class Convolution(Windowed):
    """Windows times W."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x * W + b)."""
        layer = self.layer
        w = layer.w.data.reshape(layer.window, -1)
        self.engine.backend.gemm(self.cut(bottoms[0].data), w, out=self.matrix(layer.rows))
        self.channels_first(tops[0].data, layer.b.data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all gradients."""
        layer, gemm = self.layer, self.engine.backend.gemm
        d = self.channels_last(self.before(tops[0]))
        if layer.w.trainable:
            windows = self.cut(bottoms[0].data)
            gemm(windows.T, d, out=layer.w.diff.reshape(layer.window, -1))
        if bottoms[0].diff is not None:
            w = layer.w.data.reshape(layer.window, -1)
            gemm(d, w.T, out=self.matrix(layer.columns))
            self.add_up(bottoms[0].diff, None)


class Deconvolution(Windowed):
    """The transpose of a Convolution."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x *^T W + b)."""
        layer = self.layer
        x, w = self.channels_last(bottoms[0].data), layer.w.data.reshape(-1, layer.window)
        self.engine.backend.gemm(x, w, out=self.matrix(layer.columns))
        self.add_up(tops[0].data, layer.b.data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all gradients."""
        layer, gemm = self.layer, self.engine.backend.gemm
        d, w = self.cut(self.before(tops[0])), layer.w.data.reshape(-1, layer.window)
        if layer.w.trainable:
            x = self.channels_last(bottoms[0].data)
            gemm(x.T, d, out=layer.w.diff.reshape(w.shape))
        if bottoms[0].diff is not None:
            gemm(d, w.T, out=self.matrix(layer.rows))
            self.channels_first(bottoms[0].diff, None)
