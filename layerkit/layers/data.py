"""Data: what the layers that bring their own data have in common."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from layerkit.arrays import NUMBERS, check_exact, keeps_axes, narrowed
from layerkit.backends import cuda, philox
from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.data.augment import dihedral, dihedral_table
from layerkit.data.order import passages
from layerkit.data.staging import Staging
from layerkit.layer import Layer, Run, Shape, overrides
from layerkit.settings import Choice, Flag, Number, Tops, Whole

__all__ = ["NUMBERS", "Augmentation", "Data", "Scale", "readable"]

Augmentation = Annotated[str | None, Choice(None, "dihedral")]
Scale = Annotated[float, Number(zero=False)]


class Data(Layer):
    """Serves examples from arrays of equal length, one top for each array, epoch after epoch.

    In training batches are always full: one that reaches the end of an epoch goes on in the next.
    In a net of phase "test" the order is that of the arrays, nothing is augmented, and a batch ends
    with the epoch: the last has fewer rows, so an epoch serves each example once (`repeat` times,
    where that is set).  `Net.evaluate` goes through one.

    Integers must keep their values in the net's floats, where they are not scaled: float32 is exact
    up to 2^24, float64 up to 2^53.

    A subclass defines `example_shapes` and `fetch`; one that also defines `host` and `dtypes` can
    feed a training step that a GPU replays.

    Attributes:
        position: how many examples have been served; a snapshot stores it.
        count: how many there are, each of them `repeat` times.
        shapes: shape of one example of each top; None takes that of the array.
    """

    is_source = True
    repeat = 1
    position: Annotated[int, Whole(0, 2**62)]

    def __init__(
        self, name: str, tops: Tops | None, shuffle: Flag, augment: Augmentation, scale: Scale
    ):
        super().__init__(name, [], tops)
        self.shuffle, self.augment, self.scale = shuffle, augment, scale
        self.position = 0
        self.count = 0
        self.place = 0  # among the data layers of the net
        self.shapes: list[Shape] | None = None

    def example_shapes(self) -> list[Shape]:
        """Shape of one example of each array."""
        raise NotImplementedError

    def fetch(self, epoch: int, start: int, stop: int) -> list[Array]:
        """Examples start..stop of an epoch's order, from each array, on the backend."""
        raise NotImplementedError

    def host(self, epoch: int, start: int, stop: int) -> list[np.ndarray]:
        """The same in the computer's own memory."""
        raise NotImplementedError

    def dtypes(self) -> list[np.dtype]:
        """What each array holds."""
        raise NotImplementedError

    @property
    def epoch(self) -> float:
        """How often the data set has been gone through."""
        return self.position / self.count

    def attach(self, run: Run) -> Layer:
        """A copy for one net; it starts at the beginning."""
        layer: Any = super().attach(run)
        layer.position = 0
        layer.shuffle = self.shuffle and run.training
        layer.augment = self.augment if run.training else None
        return layer

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """The tops have the shapes of the arrays' examples; no parameters."""
        own = self._own_shapes = self.example_shapes()
        with np.errstate(over="ignore", under="ignore"):
            scale = self.run.dtype.type(self.scale)
        if not scale or not math.isfinite(scale):
            self.fail(f"scale is {self.scale:.3g}, which {self.run.dtype} rounds to {scale}")
        if len(own) != len(self.tops):
            self.fail(f"has {len(own)} arrays for {len(self.tops)} tops {self.tops}; name them all")
        if self.augment:
            if len(own[0]) < 2 or own[0][-1] != own[0][-2]:
                self.fail(f"augment='dihedral' needs square images, got examples {own[0]}")
            self.table = self.backend.asarray(dihedral_table(own[0][-1]))
        for top, wanted, has in zip(self.tops, self.shapes or own, own, strict=True):
            if not keeps_axes(has, wanted):
                order = math.prod(wanted) == math.prod(has)
                self.fail(
                    f"examples of top {top!r} have shape {has}, but the net takes {wanted}"
                    + ("; the axes are in another order: transpose them" if order else "")
                )
        return self.shapes or own

    def check(self, arrays: Sequence[Array]) -> None:
        """Refuse what the net's floats cannot hold: large numbers, and integers unless scaled."""
        for i, (top, array) in enumerate(zip(self.tops, arrays, strict=True)):
            what = f"layer {self.name!r} ({type(self).__name__}): top {top!r}"
            if i or self.scale == 1:
                check_exact(array, self.run.dtype, what)
            if isinstance(array, np.ndarray):
                for start in range(0, len(array), 1024):
                    narrowed(array[start : start + 1024], self.run.dtype, what)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Fills the tops with the next examples."""
        rows = len(tops[0].data)
        if self.augment:
            bits = philox.bits(self.xp, rows, self.run.seed, self.stream, self.run.passes)
            which = (bits & self.xp.uint64(7)).astype("int64")
        filled = 0
        for epoch, start, stop in passages(self.position, rows, self.count):
            span = slice(filled, filled + stop - start)
            arrays = self.fetch(epoch, start, stop)
            self.check(arrays)
            for top, array in zip(tops, arrays, strict=True):
                if self.augment and top is tops[0]:
                    array = dihedral(self.xp, array, self.table, which[span])
                top.data[span] = array.reshape(top.data[span].shape)
            filled += stop - start
        if self.scale != 1:
            tops[0].data[...] *= self.scale
        self.position += rows

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Nothing: data do not depend on anything."""

    # With CUDA: examples come from arrays in the GPU's memory, `resident`, or else batch by batch
    # through `staging`; which ones, kernels work out from the clock.

    resident: list[Array] | None = None

    def can_use_kernels(self) -> bool:
        """Tell whether batches can be brought to the GPU ahead of time."""
        return overrides(type(self), "host", ("fetch",))

    @property
    def _comes_in_batches(self) -> bool:
        return self.resident is None and "forward" in vars(self)  # where `use_kernels` puts kernels

    @functools.cached_property
    def staging(self) -> Staging:
        """For data that are not resident."""
        rows, kinds = self.run.batch_size, [readable(d) for d in self.dtypes()]
        return Staging(self.xp, rows, self._own_shapes, kinds)

    def prepare(self) -> None:
        """Called before each pass: has the examples that follow `position` ready for the GPU."""
        if self._comes_in_batches:
            self._bring(self.run.passes, self.position)
            self.staging.begin(self.run.passes % 2)

    def look_ahead(self) -> None:
        """Called when a pass, of which `position` is the end, has been handed to the GPU."""
        if self._comes_in_batches:
            self.staging.end(self.run.passes % 2)
            self._bring(self.run.passes + 1, self.position)

    def _bring(self, number: int, position: int) -> None:
        batch = self.run.seed, position
        if not self.staging.holds(number % 2, batch):
            passed = passages(position, self.run.batch_size, self.count)
            pieces = [self.host(*piece) for piece in passed]
            for arrays in pieces:
                self.check(arrays)
            self.staging.fill(number % 2, batch, pieces)

    def forward_cuda(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Gathers, turns and scales in one pass."""
        device, count = self.run.device, len(tops[0].data)
        assert device is not None
        staged = self.resident is None
        arrays = self.staging.arrays if staged else self.resident
        orders = None if staged else self.orders()
        slots = 0 if orders is None else len(orders)
        for i, (top, array) in enumerate(zip(tops, arrays or (), strict=True)):
            table = self.table if i == 0 and self.augment else None
            size = math.prod(top.shape)
            pieces = -(-size // CHUNK)
            device.launch(
                GATHER[array.dtype.name], "gather", count * pieces, size, pieces,
                self.run.batch_size, array, orders, self.count, self.repeat, slots, self.place,
                float(self.scale) if i == 0 else 1.0, table,
                0 if table is None else table.shape[1],
                *philox.keys(self.run.seed, self.stream), device.clock, top.data,
            )
        self.position += count

    def orders(self) -> Array:
        """Row numbers of a few epochs, (slots, count / repeat), in the lower half of uint64."""
        raise NotImplementedError


# CUDA.

CHUNK = 1024  # numbers of an example that a block of threads goes through
TYPES = {
    "bool": "bool", "uint8": "unsigned char", "int8": "signed char", "uint16": "unsigned short",
    "int16": "short", "uint32": "unsigned int", "int32": "int", "uint64": "unsigned long long",
    "int64": "long long", "float32": "float", "float64": "double",
}


def readable(dtype: np.dtype) -> np.dtype:
    """The dtype itself where kernels can read it, else one that holds the same numbers."""
    if dtype.name in TYPES:
        return dtype.newbyteorder("=")
    return np.dtype("float32" if dtype.itemsize < 4 else "float64")


GATHER = {
    name: cuda.source(f"#define CHUNK {CHUNK}\ntypedef {c} number;\n" + philox.CUDA + r"""
KERNEL gather(
    i64 size, i64 pieces, i64 rows, const number* from, const u64* orders, i64 count, i64 repeat,
    i64 slots, i64 source, real scale, const i64* table, i64 pixels, u64 seed, u32 stream,
    const i64* clock, real* out)
{
    __shared__ i64 example;
    __shared__ u32 turn;
    u32 row = blockIdx.x / (u32)pieces, start = blockIdx.x % (u32)pieces * CHUNK;
    u32 stop = start + CHUNK < (u32)size ? start + CHUNK : (u32)size;
    if (clock[HALTED]) return;
    if (threadIdx.x == 0) {
        example = (clock[PASS] & 1) * rows + row;
        if (orders) {
            i64 position = clock[POSITION + source] + row;
            i64 slot = position / count % slots, rank = position % count / repeat;
            example = (u32)orders[slot * (count / repeat) + rank];
        }
        if (table) {
            u32 words[4];
            philox_block(row / 4, seed, stream, (u64)clock[PASS], words);
            turn = words[row % 4] & 7;
        }
    }
    __syncthreads();
    const number* image = from + example * size;
    real* target = out + row * size;
    for (u32 j = start + threadIdx.x; j < stop; j += THREADS) {
        u32 k = j;
        if (table) {
            u32 pixel = j % (u32)pixels;
            k = j - pixel + (u32)table[turn * (u32)pixels + pixel];
        }
        target[j] = (real)image[k] * scale;
    }
}
""") for name, c in TYPES.items()
}
