"""Layers that work element by element; see kernels/elementwise.cu and activation.cu."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.cuda.runners.base import Activated, KernelRunner


class Elementwise(Activated):
    """An activation by itself."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x)."""
        (setting, defines), y = self.activation(), tops[0].data
        self.each("activation", "activate", y.size, setting, bottoms[0].data, y, **defines)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = dy * a'(x)."""
        (setting, defines), dx = self.activation(), bottoms[0].diff
        if dx is not None:
            known = bottoms[0].data if self.layer.from_input else tops[0].data
            self.each(
                "activation", "differentiate", dx.size, setting, known, tops[0].diff, dx, **defines
            )


class Arithmetic(KernelRunner):
    """A sum or a product of blobs of one shape."""

    @classmethod
    def fits(cls, layer: Any, engine: Any) -> bool:
        """Return whether no bottom is repeated along an axis."""
        return not layer.broadcasts


class Add(Arithmetic):
    """A sum, two blobs at a time."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = the sum."""
        y = tops[0].data
        if len(bottoms) == 1:
            self.engine.copy(bottoms[0].data, y)
        else:
            self.engine.add_up([b.data for b in bottoms], y)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the top's diff to every bottom's."""
        for bottom in bottoms:
            if bottom.diff is not None:
                self.engine.copy(tops[0].diff, bottom.diff)


class Multiply(Arithmetic):
    """A product, two blobs at a time."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = the product."""
        self._product([b.data for b in bottoms], tops[0].data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx_i = dy times the product of the others."""
        for i, bottom in enumerate(bottoms):
            if bottom.diff is not None:
                others = [b.data for j, b in enumerate(bottoms) if j != i]
                self._product([tops[0].diff, *others], bottom.diff)

    def _product(self, factors: list[Array], out: Array) -> None:
        if len(factors) == 1:
            self.engine.copy(factors[0], out)
        product = factors[0]
        for factor in factors[1:]:
            self.engine.multiply(product, factor, out)
            product = out


class Taper(KernelRunner):
    """A product with a window that all examples share."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = w x."""
        self._windowed(bottoms[0].data, tops[0].data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = w dy."""
        if bottoms[0].diff is not None:
            self._windowed(tops[0].diff, bottoms[0].diff)

    def _windowed(self, x: Array, y: Array) -> None:
        window = self.layer.window
        self.each("elementwise", "multiply_rows", y.size, window.size, x, window, y)


class Reparameterize(KernelRunner):
    """Noise that is drawn as it is needed."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute z = mean + sd * noise."""
        layer, z = self.layer, tops[0].data
        self.launch(
            "elementwise",
            "reparameterize",
            self.blocks(-(-z.size // 4)),
            z.size,
            bottoms[0].data,
            bottoms[1].data,
            layer.scaled.data,
            z,
            int(layer.run.sample),
            *self.noise(),
        )

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute both diffs at once."""
        dz = tops[0].diff
        self.each(
            "elementwise",
            "reparameterize_backward",
            dz.size,
            self.layer.scaled.data,
            dz,
            *(b.diff for b in bottoms),
        )


class Normal(KernelRunner):
    """The noise of Reparameterize, for means and logarithms of variances that are 0."""

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.nothing, self.scaled = self.zeros(2, layer.run.batch_size, *layer.shape)

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Draw the noise."""
        y, zeros = tops[0].data, self.nothing
        arguments = zeros, zeros, self.scaled, y, int(self.layer.run.sample), *self.noise()
        blocks = self.blocks(-(-y.size // 4))
        self.launch("elementwise", "reparameterize", blocks, y.size, *arguments)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: there is no bottom."""


class Dropout(KernelRunner):
    """A mask that is drawn as it is needed."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = x * mask."""
        self._mask(bottoms[0].data, tops[0].data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = dy * mask, drawn again."""
        if bottoms[0].diff is not None:
            self._mask(tops[0].diff, bottoms[0].diff)

    def _mask(self, x: Array, y: Array) -> None:
        ratio = self.layer.ratio if self.layer.run.training else 0.0
        self.launch(
            "elementwise",
            "dropout",
            self.blocks(-(-y.size // 4)),
            y.size,
            x,
            y,
            np.float64(ratio),
            float(1 / (1 - ratio)),
            *self.noise(),
        )


class Pieces(KernelRunner):
    """A layer that copies pieces of rows between a wide blob and narrow ones."""

    def to_wide(self, narrow: list[Array | None], wide: Array) -> None:
        """Copy narrow arrays side by side into the wide one."""
        for span, part in zip(self.layer.spans, narrow, strict=True):
            if part is not None:
                offset, width, apart = self._piece(span, self.layer.along(wide))
                self.each(
                    "elementwise",
                    "copy_rows",
                    part.size,
                    width,
                    part,
                    width,
                    wide.reshape(-1)[offset:],
                    apart,
                )

    def to_narrow(self, wide: Array, narrow: list[Array | None]) -> None:
        """Copy the pieces of the wide array to narrow ones."""
        for span, part in zip(self.layer.spans, narrow, strict=True):
            if part is not None:
                offset, width, apart = self._piece(span, self.layer.along(wide))
                self.each(
                    "elementwise",
                    "copy_rows",
                    part.size,
                    width,
                    wide.reshape(-1)[offset:],
                    apart,
                    part,
                    width,
                )

    @staticmethod
    def _piece(span: slice, wide: Array) -> tuple[int, int, int]:
        """Return where a span of the first axis of each example begins, its size, and a row's."""
        inner = math.prod(wide.shape[2:])
        return span.start * inner, (span.stop - span.start) * inner, wide.shape[1] * inner


class Concat(Pieces):
    """Copies of rows, piece by piece."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the bottoms side by side."""
        self.to_wide([b.data for b in bottoms], tops[0].data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy to each bottom's diff its piece of the top's."""
        self.to_narrow(tops[0].diff, [b.diff for b in bottoms])


class Slice(Pieces):
    """Copies of rows, piece by piece."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy each piece to its top."""
        self.to_narrow(bottoms[0].data, [t.data for t in tops])

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the tops' diffs side by side."""
        if bottoms[0].diff is not None:
            self.to_wide([t.diff for t in tops], bottoms[0].diff)
