"""Data: the base class of layers that bring their own data."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from layerkit.backends import philox
from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.data.arrays import NUMBERS, check_exact, integers, keeps_axes, narrowed
from layerkit.data.augment import Windows, dihedral, dihedral_table
from layerkit.data.moments import Deviation, Mean
from layerkit.data.order import epoch_order, passages
from layerkit.data.prefetch import Ahead
from layerkit.errors import DataError
from layerkit.layer import Layer, Shape
from layerkit.layers.sources.standard import Numbers, Standard
from layerkit.run import Run
from layerkit.settings import Choice, Flag, Number, Optional, Pair, Tops, Whole

__all__ = [
    "NUMBERS",
    "Augmentation",
    "Batch",
    "Crop",
    "Data",
    "Depth",
    "Deviation",
    "Mean",
    "Scale",
]

Augmentation = Annotated[str | None, Choice(None, "dihedral")]
Scale = Annotated[float, Number(zero=False)]
Crop = Annotated[int | tuple[int, int] | None, Optional(Pair(1))]
Depth = Annotated[int, Whole(0, 1024)]
Fetch = Callable[[int, int, int], list[Array]]


class Batch(NamedTuple):
    """All that decides what is in a batch.

    Attributes:
        number: of the pass.
        position, rows: the examples served before, and those in the batch.
        seed, shuffle, augment, mirror: of the net and the layer.
        measured: the bytes of measured means and deviations.
    """

    number: int
    position: int
    rows: int
    seed: int
    shuffle: bool
    augment: str | None
    mirror: bool
    measured: tuple[bytes, ...]


class Data(Layer):
    """Source of examples from arrays of equal length, one top for each array, epoch after epoch.

    In training batches are always full: one that reaches the end of an epoch continues in the next.
    In a net of phase "test" the order is that of the arrays, nothing is random, and a batch ends
    with the epoch: the last may have fewer rows, so an epoch serves each example once (or `repeat`
    times).  `Net.evaluate` runs through one epoch.

    Integers that are not scaled must keep their values in the net's floats: float32 is exact up to
    2^24, float64 up to 2^53.

    **Settings of every data layer.**  All but `integers` and `prefetch` concern the first array, of
    shape (n, ..., height, width) where it holds pictures; y = (scale x - mean) / deviation, and
    then:

    * `augment="dihedral"` turns and mirrors each picture at random, by one of the eight symmetries
      of the square;
    * `scale`: factor, for example 1/255 for uint8 images, default 1;
    * `mean`, `deviation`: a number; an array that fits an example, of one axis for numbers by
      channel; or measured when the first batch is asked for, over one epoch of scaled numbers:
      one number for "all", one for each "channel" (first axis), or one for each "element".
      Measured numbers are statistics of the net, `net.statistics["x/mean"]`: snapshots keep them,
      and nets that share parameters share them, so a test net uses those of the training set;
    * `crop`: (height, width) of the window to be cut out of each picture, one number for both:
      anywhere in training, each place equally probable, and the middle in phase "test";
    * `mirror`: True to mirror each picture left to right with probability 1/2;
    * `integers`: a name, or a list of names, of tops that hold integers of 64 bits as they are, for
      labels and ids of any size; see Input.  The first top is not scaled or standardised then;
    * `prefetch`: how many batches a thread prepares while the net works on those before, 0 for
      none.  The numbers are bit for bit equal.

    Windows and mirror images are drawn by the seed, the layer's name and the number of the example
    in the endless run of epochs, whatever the batch size, so any machine draws the same.

    A subclass defines `example_shapes` and `fetch`; one that also defines `host` and `dtypes` can
    feed a training step that a GPU replays, and be prefetched; one that defines `stored`, measured.

    Attributes:
        position: number of examples served so far; a snapshot stores it.
        count: number of examples in an epoch, each counted `repeat` times.
        endless: whether their number is unknown; then `count` is an upper bound.
        shapes: shape of one example of each top; None stands for those of the arrays.
        own_shapes: shape of one example of each array, known after `setup`.
    """

    is_source = True
    decided = (
        *Layer.decided,
        *("shapes", "own_shapes", "count", "repeat", "scale"),
        *("mean", "deviation", "crop", "integers", "prefetch"),
    )
    repeat = 1
    endless = False
    position: Annotated[int, Whole(0, 2**62)]

    def __init__(
        self,
        name: str,
        tops: Tops | None,
        shuffle: Flag,
        augment: Augmentation,
        scale: Scale,
        mean: Mean = None,
        deviation: Deviation = None,
        crop: Crop = None,
        mirror: Flag = False,
        prefetch: Depth = 0,
        integers: Tops | None = None,
    ):
        super().__init__(name, [], tops)
        self.shuffle, self.augment, self.scale = shuffle, augment, scale
        self.mean, self.deviation, self.crop, self.mirror = mean, deviation, crop, mirror
        self.prefetch = prefetch
        self.integers = [integers] if isinstance(integers, str) else list(integers or ())
        self.position = 0
        self.count = 0
        self.shapes: list[Shape] | None = None
        self.own_shapes: list[Shape] = []
        self._order: tuple[tuple[int, int, bool], np.ndarray] | None = None

    # For a subclass to define.

    def example_shapes(self) -> list[Shape]:
        """Return the shape of one example of each array."""
        raise NotImplementedError

    def fetch(self, epoch: int, start: int, stop: int) -> list[Array]:
        """Return examples start..stop of an epoch's order, from each array, on the backend."""
        return [self.backend.asarray(a) for a in self.host(epoch, start, stop)]

    def host(self, epoch: int, start: int, stop: int) -> list[np.ndarray]:
        """Return the examples of `fetch` as NumPy arrays."""
        raise NotImplementedError

    def stored(self, start: int, stop: int) -> np.ndarray:
        """Return rows of the first array in its own order, for means and deviations."""
        raise NotImplementedError

    @property
    def stored_count(self) -> int:
        """The number of rows that `stored` has."""
        return self.count // self.repeat

    def dtypes(self) -> list[np.dtype]:
        """Return the dtype of each array."""
        raise NotImplementedError

    def signature(self) -> list[Any]:
        """Return bytes and arrays that tell these examples from others, for processes to compare.

        A subclass adds some of the examples.
        """
        served = self.shuffle, self.augment, self.scale, self.crop, self.mirror
        return [repr((self.count, self.own_shapes, served)).encode()]

    # For a subclass to call.

    def rows(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Return the numbers of the rows in this stretch of an epoch, in its order."""
        key = (self.run.seed, epoch, self.shuffle)
        if self._order is None or self._order[0] != key:
            count = self.count // self.repeat
            order = epoch_order(count, self.run.seed, self.stream, epoch, self.shuffle)
            self._order = key, order
        return self._order[1][np.arange(start, stop) // self.repeat]

    def wrong(self, message: str) -> DataError:
        """Make the error about what the data hold; the caller raises it."""
        return DataError(f"{self.label()}: {message}")

    @property
    def epoch(self) -> float:
        """The number of epochs served so far, with a fraction for the current one."""
        return self.position / self.count

    def can_measure(self) -> bool:
        """Tell whether there is a method `stored`."""
        return type(self).stored is not Data.stored

    @property
    def plain(self) -> bool:
        """Tell whether examples are only gathered, turned and scaled, as kernels can do."""
        return (
            self.mean is None and self.deviation is None and self.crop is None and not self.mirror
        )

    def attach(self, run: Run) -> Layer:
        """Return a copy for one net, which starts at the first example."""
        layer: Any = super().attach(run)
        layer.position = 0
        layer.shuffle = self.shuffle and run.training
        layer.augment = self.augment if run.training else None
        layer.mirror = self.mirror and run.training
        return layer

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Check scale, arrays and shapes; return the shapes of the tops."""
        own = self.own_shapes = self.example_shapes()
        with np.errstate(over="ignore", under="ignore"):
            scale = self.run.dtype.type(self.scale)
        if not scale or not math.isfinite(scale):
            self.fail(f"scale is {self.scale:.3g}, which {self.run.dtype} rounds to {scale}")
        if len(own) != len(self.tops):
            self.fail(f"has {len(own)} arrays for {len(self.tops)} tops {self.tops}; name them all")
        if self.augment:
            self.table  # noqa: B018  # fails where there can be none
        shown = [self._window(), *own[1:]]
        self._set_integers()
        self._standard = Standard(self)
        for top, wanted, has in zip(self.tops, self.shapes or shown, shown, strict=True):
            if not keeps_axes(has, wanted):
                order = math.prod(wanted) == math.prod(has)
                self.fail(
                    f"examples of top {top!r} have shape {has}, but the net takes {wanted}"
                    + ("; the axes are in another order: transpose them" if order else "")
                )
        if self.prefetch and type(self).host is Data.host:
            self.fail("prefetch needs a method host, which gives batches as NumPy arrays")
        self._ahead: Ahead | None = None
        return self.shapes or shown

    def _set_integers(self) -> None:
        """Check which tops hold integers."""
        for name in self.integers:
            if name not in self.tops:
                self.fail(f"integers: {name!r} is none of its tops, {self.tops}")
        first = self.tops[0] in self.integers
        if first and not (self.scale == 1 and self.mean is None and self.deviation is None):
            self.fail(
                f"integers: {self.tops[0]!r} is to be scaled, which makes floats of its numbers; "
                "leave scale, mean and deviation out"
            )
        self.integer_blobs = frozenset(self.integers)

    def _window(self) -> Shape:
        """Return the shape of an example of the first top, and what it is cut to."""
        own = self.own_shapes[0]
        if self.crop is None and not self.mirror:
            return own
        if len(own) < 2:
            self.fail(f"crop and mirror need pictures (..., height, width), got examples {own}")
        pair = self.crop if isinstance(self.crop, tuple) else (self.crop, self.crop)
        window = (pair[0] or own[-2], pair[1] or own[-1])
        if window[0] > own[-2] or window[1] > own[-1]:
            self.fail(f"crop is {window}, larger than its pictures, {own[-2:]}")
        return *own[:-2], *window

    @functools.cached_property
    def table(self) -> Array:
        """The pixels of the eight symmetries of the first array's images, on the backend."""
        return self.backend.asarray(self._host_table)

    @functools.cached_property
    def _host_table(self) -> np.ndarray:
        shape = self.own_shapes[0]
        if len(shape) < 2 or shape[-1] != shape[-2]:
            self.fail(f"augment='dihedral' needs square images, got examples {shape}")
        return dihedral_table(shape[-1])

    def check(self, arrays: Sequence[Array]) -> None:
        """Refuse numbers too large for the net's floats, and unscaled integers they cannot hold."""
        for i, (top, array) in enumerate(zip(self.tops, arrays, strict=True)):
            what = f"layer {self.name!r} ({type(self).__name__}): top {top!r}"
            if top in self.integers:
                integers(array, what)
                continue
            if i or self.scale == 1:
                check_exact(array, self.run.dtype, what)
            if isinstance(array, np.ndarray):
                for start in range(0, len(array), 1024):
                    narrowed(array[start : start + 1024], self.run.dtype, what)

    # Running.

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Fill the tops with the next examples."""
        self._standard.measure()
        rows = len(tops[0].data)
        batch = Batch(
            self.run.passes,
            self.position,
            rows,
            self.run.seed,
            self.shuffle,
            self.augment,
            self.mirror,
            self._standard.fingerprint(),
        )
        if self.prefetch:
            if self._ahead is None:
                self._ahead = Ahead(self.prefetch, self._following)
            numbers = self._standard.numbers(host=True)
            kinds = [(top.shape, top.data.dtype) for top in tops]

            def make(batch: Batch) -> list[np.ndarray]:
                arrays = [np.empty((batch.rows, *shape), dtype) for shape, dtype in kinds]
                with np.errstate(all="ignore"), self.run.flushed():
                    self._fill(batch, arrays, np, self.host, numbers)
                return arrays

            for top, array in zip(tops, self._ahead.take(batch, make), strict=True):
                top.data[...] = self.backend.asarray(array)
        else:
            numbers = self._standard.numbers()
            self._fill(batch, [top.data for top in tops], self.xp, self.fetch, numbers)
        self.position += rows

    def _following(self, batch: Batch) -> Batch:
        """Return the batch that follows another where nothing comes in between."""
        position, rows = batch.position + batch.rows, batch.rows
        if not self.run.training:
            rows = min(self.run.batch_size, self.count - position % self.count)
        return batch._replace(number=batch.number + 1, position=position, rows=rows)

    def _fill(
        self, batch: Batch, outs: Sequence[Array], xp: Any, fetch: Fetch, numbers: Numbers
    ) -> None:
        """Fill arrays of the net's floats with a batch, on the backend or, for a thread, NumPy."""
        which, windows = None, None
        if batch.augment:
            bits = philox.bits(xp, batch.rows, batch.seed, self.stream, batch.number)
            which = (bits & xp.uint64(7)).astype("int64")
        own, shown = self.own_shapes[0], self._window()
        if shown != own or batch.mirror:
            windows = Windows(
                own[-2:],
                shown[-2:],
                batch.position,
                batch.rows,
                batch.seed,
                self.run.stream_of(f"{self.name}/window"),
                self.run.training,
                batch.mirror,
            )
        filled = 0
        for epoch, start, stop in passages(batch.position, batch.rows, self.count):
            span = slice(filled, filled + stop - start)
            arrays = fetch(epoch, start, stop)
            self.check(arrays)
            for out, array in zip(outs[1:], arrays[1:], strict=True):
                out[span] = array.reshape(out[span].shape)
            pictures, out = arrays[0].reshape(-1, *own), outs[0][span].reshape(-1, *shown)
            if numbers.by_pixel:  # of pictures as they are stored
                pictures = pictures.astype(self.run.dtype)
                numbers.apply(pictures)
            if which is not None:
                table = self._host_table if xp is np else self.table
                pictures = dihedral(xp, pictures, table, which[span])
            if windows is not None:
                windows.cut(pictures, span, out)
            else:
                out[...] = pictures
            if not numbers.by_pixel:
                numbers.apply(out)
            filled += stop - start

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: data depend on nothing."""
