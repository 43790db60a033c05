"""Loss: what the loss layers have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from layerkit.backends import cuda
from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.errors import DataError
from layerkit.layer import Layer, Shape
from layerkit.settings import NotNegative, Tops


class Loss(Layer):
    """A layer whose top is one loss per example, shape (n,); the net adds its weighted mean.

    Args:
        weight: factor of this loss in the objective, default 1; may be changed between passes
            (`net.layers["kl"].weight = 0.1`).
    """

    is_loss = True

    def __init__(
        self, name: str, bottoms: list[str], weight: NotNegative = 1.0,
        tops: Tops | None = None,
    ):
        super().__init__(name, bottoms, tops)
        self.weight = weight

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Checks that all bottoms have one shape; the top is one number per example."""
        if len(set(shapes)) != 1:
            self.fail(f"bottoms {', '.join(self.bottoms)} must have one shape, got {shapes}")
        return [()]


def check_labels(layer: Layer, label: Blob, classes: int) -> None:
    """Fail where a label, shape (n,) or (n, 1), is no whole number from 0 to classes - 1.

    Raises:
        DataError: names the layer, the row, its label and the number of classes.
    """
    values = label.data.reshape(-1)
    good = (values >= 0) & (values < classes) & (values == layer.xp.floor(values))
    if not bool(good.all()):
        row = int(layer.xp.argmin(good))
        raise DataError(
            f"{layer.label()}: row {row} of {label.name!r} holds {float(values[row]):g}, which is "
            f"no class; labels are whole numbers from 0 to {classes - 1}, as there are {classes} "
            "classes"
        )


def rows(array: Array) -> Array:
    """(n, ...) as (n, size): what a loss sums over is the second axis."""
    return array.reshape(len(array), -1)


# CUDA.

WIDE = 128  # numbers of an example beyond which it has a block of threads for itself

PAIRS = r"""
KERNEL sum_pairs(
    i64 rows, i64 size, i64 lanes, double factor, const real* a, const real* b, const real* scale,
    real* loss, real* da, real* db)
{
    i64 row = place() / lanes;
    double total = 0;
    if (row < rows) {
        real s = scale ? scale[row] : (real)0;
        for (i64 k = threadIdx.x % lanes; k < size; k += lanes) {
            i64 j = row * size + k;
            total += term(a[j], b[j]);
            if (da) da[j] = s * by_first(a[j], b[j]);
            if (db) db[j] = s * by_second(a[j], b[j]);
        }
    }
    total = lanes_sum(total, (u32)lanes);
    if (row < rows && threadIdx.x % lanes == 0) loss[row] = (real)(factor * total);
}
"""


def pair_kernels(code: str, factor: float) -> tuple[Callable[..., None], ...]:
    """forward_cuda, backward_cuda and forward_backward_cuda of a loss that sums over two bottoms.

    Args:
        code: CUDA functions of a real number from each: `term`, a double, and the derivatives
            of factor * term, `by_first` and `by_second`.
        factor: of the sum of the terms.
    """
    code = cuda.source(code + PAIRS)

    def launch(layer: Layer, bottoms: list[Blob], tops: list[Blob], diffs: list[Any]) -> None:
        device, a = layer.run.device, rows(bottoms[0].data)
        assert device is not None
        lanes = cuda.THREADS if a.shape[1] > WIDE else 32
        device.launch(
            code, "sum_pairs", device.blocks(len(a) * lanes), len(a), a.shape[1], lanes,
            np.float64(factor), bottoms[0].data, bottoms[1].data, tops[0].diff, tops[0].data,
            *diffs,
        )

    def forward_cuda(self: Layer, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The loss of each example."""
        launch(self, bottoms, tops, [None, None])

    def backward_cuda(self: Layer, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Both diffs, and the loss over again."""
        launch(self, bottoms, tops, [b.diff for b in bottoms])

    def forward_backward_cuda(self: Layer, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Loss and diffs in one pass."""
        launch(self, bottoms, tops, [b.diff for b in bottoms])

    return forward_cuda, backward_cuda, forward_backward_cuda
