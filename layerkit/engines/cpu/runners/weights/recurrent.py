"""LSTM and GRU: array code with the products of the extension module.

Its threads wait without holding a core, where those of BLAS spin between the small products of one
step and the next; see product.h.
"""

from __future__ import annotations

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.cpu.runners.base import KernelRunner


class Recurrent(KernelRunner):
    """A layer with a state that goes through steps."""

    recordable = False  # array code lies between the products

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Go through the steps."""
        self.layer.go(bottoms, tops, self._product)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Go back through the steps, and compute all gradients."""
        self.layer.go_back(bottoms, tops, self._product)

    def _product(self, a: Array, b: Array, out: Array) -> None:
        self.kernels.multiply(a, b, out, False)
