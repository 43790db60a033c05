"""Runners of the compiled engine for CPUs: which kernel is called with which arrays."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from layerkit import layers as L
from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.data.order import passages
from layerkit.engines.base import Runner, Update
from layerkit.layers.loss import rows
from layerkit.layers.neuron import Neuron

LARGE = 1 << 16  # weights of which it is worth while to keep the gradient out of memory
NOTHING = np.zeros((0, 0))  # stands for an array that is not wanted


def flat_rows(array: Array) -> Array:
    """Return (n, ...) as (n, size)."""
    return array.reshape(len(array), -1)


def piece(array: Array, span: slice) -> Array:
    """Return those columns of (n, size) that a span of the first axis of each example is."""
    inner = math.prod(array.shape[2:])
    return flat_rows(array)[:, span.start * inner : span.stop * inner]


def or_nothing(array: Array | None) -> Array:
    """Return an array, or one of no elements where there is none."""
    return NOTHING if array is None else array


def straight(neuron: Neuron | None) -> tuple[float, Neuron | None]:
    """Return the slope below zero of an activation of two straight lines, else 1 and the neuron.

    The first kind is part of the kernels; others follow them.
    """
    if isinstance(neuron, L.ReLU):
        return 0.0, None
    if isinstance(neuron, L.LeakyReLU):
        return float(neuron.slope), None
    return 1.0, neuron


class KernelRunner(Runner):
    """A layer that is run by kernels of the extension module; defines `run_forward` and the like.

    Attributes:
        engine: the engine.
        kernels: the extension module.
    """

    recordable = True

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer)
        self.engine, self.kernels = engine, engine.kernels
        self.forward, self.backward = self.run_forward, self.run_backward
        self.forward_backward = None

    @classmethod
    def fits(cls, layer: Any) -> bool:
        """Return whether the kernels can do what the layer's settings ask for."""
        return True

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the data of every top; see Layer.forward."""
        raise NotImplementedError

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the diffs of parameters and bottoms; see Layer.backward."""
        raise NotImplementedError


class Dense(KernelRunner):
    """Products with bias, activation and a solver's update, piece by piece."""

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.recordable = straight(layer.neuron)[1] is None
        if layer.w.size >= LARGE:
            self.backward_bottoms, self.gradient_bound = self.run_bottoms, self.bound_gradient
            self.backward_update = self.run_update

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x W + b)."""
        layer, y = self.layer, tops[0].data
        slope, neuron = straight(layer.neuron)
        self.kernels.dense_forward(flat_rows(bottoms[0].data), layer.w.data, layer.b.data, slope, y)
        if neuron:
            neuron.activate(layer.xp, y, y)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all gradients."""
        w, b = self.layer.w, self.layer.b
        self._differentiate(tops)
        self._run(
            bottoms, tops, bottoms[0].diff, w.diff if w.trainable else NOTHING,
            b.diff if b.trainable else NOTHING, 0, [NOTHING] * 4, NOTHING,
        )

    def run_bottoms(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx alone."""
        self._differentiate(tops)
        if bottoms[0].diff is not None:
            self._run(
                bottoms, tops, bottoms[0].diff, NOTHING, NOTHING, 0, [NOTHING] * 4, NOTHING
            )

    def settings(self) -> tuple[Any, ...]:
        """Return the activation, and which parameters get a gradient."""
        layer = self.layer
        return *straight(layer.neuron), layer.w.trainable, layer.b.trainable

    def bound_gradient(self, bottoms: list[Blob], tops: list[Blob], bound: Array) -> None:
        """Fill `bound`: an element of dW is a sum over n examples of x d, one of db that of d."""
        slope, neuron = straight(self.layer.neuron)
        d = self.layer.before.data if neuron else tops[0].diff
        self.kernels.gradient_bound(bottoms[0].data, d, slope, bound)

    def run_update(self, bottoms: list[Blob], tops: list[Blob], update: Update) -> None:
        """Change W and b block by block; db is filled, and dW never reaches memory."""
        w, b = self.layer.w, self.layer.b
        histories = [*update.histories[w.name], *update.histories[b.name]]
        self._run(bottoms, tops, None, NOTHING, b.diff, update.kind, histories, update.constants)

    def _differentiate(self, tops: list[Blob]) -> None:
        """Compute d loss / d (x W + b) where the activation is not part of the kernel."""
        neuron = straight(self.layer.neuron)[1]
        if neuron:
            before = self.layer.before.data
            neuron.differentiate(self.layer.xp, tops[0].data, tops[0].diff, before)

    def _run(
        self, bottoms: list[Blob], tops: list[Blob], dx: Array | None, dw: Array, db: Array,
        kind: int, histories: list[Array], constants: Array,
    ) -> None:
        layer, y, d = self.layer, tops[0].data, tops[0].diff
        slope, neuron = straight(layer.neuron)
        before = layer.before.data if layer.neuron else d
        self.kernels.dense_backward(
            flat_rows(bottoms[0].data), y, before if neuron else d, slope, before, layer.w.data,
            layer.b.data, dw, db, NOTHING if dx is None else flat_rows(dx), kind, *histories,
            constants,
        )


class Windowed(KernelRunner):
    """Convolution and Deconvolution, example by example."""

    transposed: ClassVar[bool] = False

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.recordable = straight(layer.neuron)[1] is None
        self.geometry = np.array([layer.kernel, layer.stride, layer.pad, *layer.grid], np.int64)

    def settings(self) -> tuple[Any, ...]:
        """Return the activation, and which parameters get a gradient."""
        layer = self.layer
        return *straight(layer.neuron), layer.w.trainable, layer.b.trainable

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x * W + b), or its transpose."""
        layer, y = self.layer, tops[0].data
        slope, neuron = straight(layer.neuron)
        self.kernels.windowed_forward(
            bottoms[0].data, self._matrix(layer.w.data), layer.b.data, slope, y, self.geometry,
            self.transposed,
        )
        if neuron:
            neuron.activate(layer.xp, y, y)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all gradients."""
        layer, y, d = self.layer, tops[0].data, tops[0].diff
        slope, neuron = straight(layer.neuron)
        before = layer.before.data if layer.neuron else d
        if neuron:
            neuron.differentiate(layer.xp, y, d, before)
            d = before
        w, b = layer.w, layer.b
        self.kernels.windowed_backward(
            bottoms[0].data, y, d, slope, before, self._matrix(w.data),
            self._matrix(w.diff) if w.trainable else NOTHING, b.diff if b.trainable else NOTHING,
            or_nothing(bottoms[0].diff), self.geometry, self.transposed,
        )

    def _matrix(self, weights: Array) -> Array:
        """Return W as the matrix that windows are multiplied by."""
        return weights.reshape(self.layer.window, -1)


class Deconvolution(Windowed):
    """The transpose of a Convolution."""

    transposed = True

    def _matrix(self, weights: Array) -> Array:
        return weights.reshape(len(weights), -1)


class Reconstruction(KernelRunner):
    """A likelihood and its derivatives in one pass over the pixels."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the negative log likelihood of each example."""
        self._run(bottoms, tops, [NOTHING] * 4)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the diffs, and the loss over again."""
        diffs = [NOTHING if b.diff is None else rows(b.diff) for b in bottoms]
        self._run(bottoms, tops, [*diffs, NOTHING][:4])

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.forward_backward = self.run_backward

    def settings(self) -> tuple[Any, ...]:
        """Return the settings of either likelihood."""
        layer = self.layer
        return layer.floor, getattr(layer, "degrees", None), getattr(layer, "constant", None)

    def _run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array]) -> None:
        raise NotImplementedError


class GaussianReconstruction(Reconstruction):
    """The likelihood of a normal distribution."""

    def _run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array]) -> None:
        top = tops[0]
        self.kernels.gaussian(
            *(rows(b.data) for b in bottoms), self.layer.floor,
            top.data if top.diff is None else top.diff, top.data, *diffs[:3],
        )


class StudentReconstruction(Reconstruction):
    """The likelihood of a skewed Student's t."""

    def _run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array]) -> None:
        layer, top = self.layer, tops[0]
        self.kernels.student(
            *[*(rows(b.data) for b in bottoms), NOTHING][:4], layer.floor, layer.degrees,
            layer.fold, layer.constant, top.data if top.diff is None else top.diff, top.data,
            *diffs,
        )


class GaussianKL(KernelRunner):
    """The divergence of two normal distributions."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the divergence of each example."""
        self.kernels.divergence(*self._four(bottoms), tops[0].data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all diffs at once."""
        diffs = [NOTHING if b.diff is None else rows(b.diff) for b in bottoms]
        self.kernels.divergence_backward(
            *self._four(bottoms), tops[0].diff, *[*diffs, NOTHING, NOTHING][:4]
        )

    def _four(self, bottoms: list[Blob]) -> list[Array]:
        """Return the bottoms, without a prior the last two with no rows."""
        return [*(rows(b.data) for b in bottoms), NOTHING, NOTHING][:4]


class Reparameterize(KernelRunner):
    """Noise that is drawn as it is needed."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute z = mean + sd * noise."""
        layer, run = self.layer, self.layer.run
        self.kernels.reparameterize(
            bottoms[0].data, bottoms[1].data, layer.scaled.data, tops[0].data, layer.stream,
            run.clock(),
        )

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute both diffs at once."""
        self.kernels.reparameterize_backward(
            self.layer.scaled.data, tops[0].diff, *(or_nothing(b.diff) for b in bottoms)
        )


class MemoryData(KernelRunner):
    """Rows that are gathered, turned and scaled in one pass."""

    recordable = False  # other rows in each pass

    @classmethod
    def fits(cls, layer: Any) -> bool:
        """Return whether the arrays hold numbers of a kind that kernels read, row by row.

        An array that stays in its file may be any view of it: in Fortran's order, or a field.
        """
        return all(
            a.dtype.isnative and a.dtype not in ("e", "g") and a.flags.aligned
            and a[0].flags.c_contiguous and a.strides[0] % a.itemsize == 0
            for a in layer.resident
        )

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Fill the tops with the next rows."""
        layer, run = self.layer, self.layer.run
        rows, filled = len(tops[0].data), 0
        for epoch, start, stop in passages(layer.position, rows, layer.count):
            index = layer.rows(epoch, start, stop)
            for i, (array, top) in enumerate(zip(layer.resident, tops, strict=True)):
                self.kernels.gather(
                    flat_rows(array), index, flat_rows(top.data), filled,
                    layer.scale if i == 0 else 1.0,
                    layer.table if i == 0 and layer.augment else NOTHING,
                    run.seed % 2**64, layer.stream, run.passes,
                )
            filled += stop - start
        layer.position += rows

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: data do not depend on anything."""


class Pose(KernelRunner):
    """A layer that knows what the numbers of a pose mean."""

    def settings(self) -> tuple[Any, ...]:
        """Return the scales of the numbers of a pose."""
        return self.layer.span, self.layer.size_spread, self.layer.shift_spread


class ImagePose(Pose):
    """Sky, moments and what follows from them, picture by picture."""

    def settings(self) -> tuple[Any, ...]:
        """Return what decides where light begins, and the scales."""
        return self.layer.threshold, self.layer.size, *super().settings()

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Measure the poses."""
        side = self.layer.side
        images = bottoms[0].data.reshape(-1, side, side)
        self.kernels.measure_poses(images, *self.settings(), tops[0].data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: the bottom is not differentiable."""


class SpatialTransform(Pose):
    """Pictures that are resampled pixel by pixel."""

    def settings(self) -> tuple[Any, ...]:
        """Return the scales, and the direction."""
        return *super().settings(), self.layer.inverse

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the resampled pictures."""
        layer, (picture, pose) = self.layer, bottoms
        self.kernels.resample(
            rows(picture.data), pose.data, layer.side, *self.settings(), layer.maps.data,
            rows(tops[0].data),
        )

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute both diffs in one pass over the pixels."""
        layer, (picture, pose) = self.layer, bottoms
        self.kernels.resample_backward(
            rows(picture.data), pose.data, layer.side, *self.settings(), layer.maps.data,
            rows(tops[0].diff), NOTHING if picture.diff is None else rows(picture.diff),
            or_nothing(pose.diff),
        )


class Input(KernelRunner):
    """Nothing: the net puts the values in place before a pass."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing."""

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing."""


class Add(KernelRunner):
    """A sum, two blobs at a time."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = the sum."""
        y, total = tops[0].data, bottoms[0].data
        if len(bottoms) == 1:
            self.engine.copy(total, y)
        for bottom in bottoms[1:]:
            self.kernels.add(total, bottom.data, y)
            total = y

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the top's diff to every bottom's."""
        for bottom in bottoms:
            if bottom.diff is not None:
                self.engine.copy(tops[0].diff, bottom.diff)


class Multiply(KernelRunner):
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
            self.kernels.multiply_elements(product, factor, out)
            product = out


class Concat(KernelRunner):
    """Copies of rows, piece by piece."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the bottoms side by side."""
        for span, bottom in zip(self.layer.spans, bottoms, strict=True):
            self.kernels.copy_rows(flat_rows(bottom.data), piece(tops[0].data, span))

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy to each bottom's diff its piece of the top's."""
        for span, bottom in zip(self.layer.spans, bottoms, strict=True):
            if bottom.diff is not None:
                self.kernels.copy_rows(piece(tops[0].diff, span), flat_rows(bottom.diff))


class Slice(KernelRunner):
    """Copies of rows, piece by piece."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy each piece to its top."""
        for span, top in zip(self.layer.spans, tops, strict=True):
            self.kernels.copy_rows(piece(bottoms[0].data, span), flat_rows(top.data))

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the tops' diffs side by side."""
        if bottoms[0].diff is not None:
            for span, top in zip(self.layer.spans, tops, strict=True):
                self.kernels.copy_rows(flat_rows(top.diff), piece(bottoms[0].diff, span))


class Reshape(KernelRunner):
    """A copy."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the data."""
        self.engine.copy(bottoms[0].data, tops[0].data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the diff back."""
        if bottoms[0].diff is not None:
            self.engine.copy(tops[0].diff, bottoms[0].diff)


RUNNERS: dict[type, type[KernelRunner]] = {
    L.Add: Add, L.Concat: Concat, L.Convolution: Windowed, L.Deconvolution: Deconvolution,
    L.Dense: Dense, L.GaussianKL: GaussianKL, L.GaussianReconstruction: GaussianReconstruction,
    L.ImagePose: ImagePose, L.Input: Input, L.MemoryData: MemoryData, L.Multiply: Multiply,
    L.Reparameterize: Reparameterize, L.Reshape: Reshape, L.Slice: Slice,
    L.SpatialTransform: SpatialTransform, L.StudentReconstruction: StudentReconstruction,
}
