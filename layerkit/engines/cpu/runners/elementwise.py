"""Layers that work element by element, or copy."""

from __future__ import annotations

from typing import Any

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.cpu.runners.base import KernelRunner, flat_rows, following, or_nothing, piece


class Activation(KernelRunner):
    """An activation by itself."""

    def settings(self) -> tuple[Any, ...]:
        """Return the activation with its setting."""
        return (following(self.layer),)

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x)."""
        following(self.layer).activate(None, bottoms[0].data, tops[0].data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = dy * a'(x)."""
        if bottoms[0].diff is not None:
            known = bottoms[0].data if self.layer.from_input else tops[0].data
            following(self.layer).differentiate(None, known, tops[0].diff, bottoms[0].diff)


class Reparameterize(KernelRunner):
    """Noise that is drawn as it is needed."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute z = mean + sd * noise."""
        layer, run = self.layer, self.layer.run
        self.kernels.reparameterize(
            bottoms[0].data,
            bottoms[1].data,
            layer.scaled.data,
            tops[0].data,
            layer.stream,
            run.clock(),
        )

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute both diffs at once."""
        self.kernels.reparameterize_backward(
            self.layer.scaled.data, tops[0].diff, *(or_nothing(b.diff) for b in bottoms)
        )


class Normal(KernelRunner):
    """The noise of Reparameterize, for means and logarithms of variances that are 0."""

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        run = layer.run
        self.zeros, self.scaled = run.backend.zeros((2, run.batch_size, *layer.shape), run.dtype)

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Draw the noise."""
        layer, run, y = self.layer, self.layer.run, tops[0].data
        zeros, scaled = self.zeros[: len(y)], self.scaled[: len(y)]
        self.kernels.reparameterize(zeros, zeros, scaled, y, layer.stream, run.clock())

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: there is no bottom."""


class Pieces(KernelRunner):
    """A layer that copies pieces of rows between a wide blob and narrow ones."""

    def pair(self, span: slice, wide: Array, narrow: Array) -> tuple[Array, Array]:
        """Return, as matrices, a piece of the wide array and the narrow array that it is."""
        return piece(self.layer.along(wide), span), flat_rows(self.layer.along(narrow))


class Concat(Pieces):
    """Copies of rows, piece by piece."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the bottoms side by side."""
        for span, bottom in zip(self.layer.spans, bottoms, strict=True):
            part, whole = self.pair(span, tops[0].data, bottom.data)
            self.kernels.copy_rows(whole, part)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy to each bottom's diff its piece of the top's."""
        for span, bottom in zip(self.layer.spans, bottoms, strict=True):
            if bottom.diff is not None:
                self.kernels.copy_rows(*self.pair(span, tops[0].diff, bottom.diff))


class Slice(Pieces):
    """Copies of rows, piece by piece."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy each piece to its top."""
        for span, top in zip(self.layer.spans, tops, strict=True):
            self.kernels.copy_rows(*self.pair(span, bottoms[0].data, top.data))

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the tops' diffs side by side."""
        if bottoms[0].diff is not None:
            for span, top in zip(self.layer.spans, tops, strict=True):
                part, whole = self.pair(span, bottoms[0].diff, top.diff)
                self.kernels.copy_rows(whole, part)
