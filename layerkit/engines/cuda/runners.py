"""Runners of the engine for GPUs: which kernel is launched with which arrays."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from layerkit import layers as L
from layerkit.backends import philox
from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.base import Runner
from layerkit.engines.cuda.data import DataRunner, ResidentData
from layerkit.layer import Layer, overrides
from layerkit.layers.data import Data
from layerkit.layers.loss import rows
from layerkit.layers.neuron import Neuron

THREADS = 256  # of a block
SLICE = 256  # rows of which a block adds up the gradients of the biases, as in dense.cu
FEW = 16  # examples up to which one kernel for all is faster than several by cuBLAS
SPAN = 256  # units whose weights a block then reads
NEAR = 1024  # inputs up to which eight threads then add up a unit
TOGETHER = 3  # layers that can be run together
WIDE = 128  # numbers of an example beyond which it has a block of threads for itself
SLICES = 32  # of a batch, of which the gradients of a convolution's biases are added up apart

ACTIVATIONS: dict[type, tuple[str, str | None]] = {  # in formulas/activations.h; its setting
    L.ReLU: ("Relu", None), L.LeakyReLU: ("LeakyRelu", "slope"), L.ELU: ("Elu", "alpha"),
    L.Sigmoid: ("Sigmoid", None), L.Tanh: ("Tanh", None), L.Softplus: ("Softplus", None),
    L.Exponential: ("Exponential", None), type(None): ("Linear", None),
}


def three(arrays: list[Any]) -> list[Any]:
    """Return arrays with None for those that are missing to TOGETHER."""
    return [*arrays, *[None] * TOGETHER][:TOGETHER]


def lanes(size: int) -> int:
    """Return how many threads share an example of so many numbers."""
    return THREADS if size > WIDE else 32


class ArrayRunner(Runner):
    """A layer that is run by its array code, on CuPy."""

    def __init__(self, layer: Any):
        super().__init__(layer)
        self.recordable = layer.recordable and overrides(
            type(layer), "recordable", ("forward", "backward")
        )


class KernelRunner(Runner):
    """A layer that is run by CUDA kernels; defines `run_forward` and `run_backward`.

    Attributes:
        engine: the engine.
        launch, blocks: its methods.
    """

    recordable = True

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer)
        self.engine, self.launch, self.blocks = engine, engine.launch, engine.blocks
        self.forward, self.backward = self.run_forward, self.run_backward
        self.forward_backward = None

    @classmethod
    def fits(cls, layer: Any, engine: Any) -> bool:
        """Return whether the kernels can do what the layer's settings ask for."""
        return True

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the data of every top; see Layer.forward."""
        raise NotImplementedError

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the diffs of parameters and bottoms; see Layer.backward."""
        raise NotImplementedError

    def zeros(self, *shape: int) -> Array:
        """Return work space of the net's dtype."""
        return self.engine.backend.zeros(shape, self.layer.run.dtype)

    def each(self, source: str, name: str, size: int, *args: Any, **defines: Any) -> None:
        """Launch a kernel with a thread for each of `size` elements, its first argument."""
        self.launch(source, name, self.blocks(size), size, *args, **defines)

    def noise(self) -> tuple[Any, ...]:
        """Return what noise depends on: seed, stream and the clock."""
        layer = self.layer
        return *philox.keys(layer.run.seed, layer.stream), self.engine.clock


class Activated(KernelRunner):
    """A layer that has an activation, or is one."""

    def activation(self) -> tuple[float, dict[str, str]]:
        """Return the setting of the activation, and the macro that names it."""
        neuron = self.layer if isinstance(self.layer, Neuron) else self.layer.neuron
        name, setting = ACTIVATIONS[type(neuron)]
        return float(getattr(neuron, setting)) if setting else 0.0, {"ACTIVATION": name}


class Elementwise(Activated):
    """An activation by itself."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x)."""
        (setting, defines), y = self.activation(), tops[0].data
        self.each("activation", "activate", y.size, setting, bottoms[0].data, y, **defines)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = dy * a'(x)."""
        (setting, defines), top, dx = self.activation(), tops[0], bottoms[0].diff
        if dx is not None:
            self.each(
                "activation", "differentiate", dx.size, setting, top.data, top.diff, dx, **defines
            )


class Dense(Activated):
    """Products by cuBLAS, and the rest in one pass; for few examples, all of it in one.

    Layers of equal units that read one blob can be run together; see engines/cuda/siblings.py.
    """

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        capacity, units = layer.run.batch_size, layer.units
        self.few, self.inputs = capacity <= FEW, layer.w.size // units
        slices = -(-capacity // SLICE)
        self.sums = self.zeros(slices if slices > 1 else 0, units)
        self.places: dict[Any, Any] = {}  # of the matrices of products made together
        self.spans = -(-units // SPAN) if self.few else 1
        self.dx_sums = self.zeros(self.spans if self.spans > 1 else 0, capacity * self.inputs)

    @classmethod
    def fits(cls, layer: Any, engine: Any) -> bool:
        """Return whether the activation has a formula, and elements can be counted with 32 bits."""
        most = max(layer.run.batch_size * layer.units, layer.w.size + layer.units)
        return type(layer.neuron) in ACTIVATIONS and TOGETHER * most < 2**32

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x W + b)."""
        self.forward_together([self], bottoms[0].data, tops)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all gradients."""
        self.backward_together([self], bottoms[0].data, tops, bottoms[0].diff, self.dx_sums)

    def forward_together(self, runners: list[Dense], x: Array, tops: list[Blob]) -> None:
        """Compute the tops of layers that read x, each of which has one."""
        layers, ys, (setting, defines) = [r.layer for r in runners], [], self.activation()
        ys = [top.data for top in tops]
        ws, bs = [layer.w.data for layer in layers], [layer.b.data for layer in layers]
        units, count = self.layer.units, len(x)
        if self.few:
            # Where there are many inputs, more blocks and more threads share them.
            width = 4 if self.inputs > NEAR else 32
            self.launch(
                "dense", "few_forward", -(-units // width) * len(layers), count, self.inputs, units,
                setting, x, *three(ws), *three(bs), *three(ys), **self.defines(width),
            )
            return
        self.engine.backend.gemms([rows(x)] * len(layers), ws, ys, self.places)
        self.launch(
            "dense", "bias_activation", self.blocks(len(layers) * ys[0].size), ys[0].size,
            len(layers), units, setting, *three(bs), *three(ys), **defines,
        )

    def backward_together(
        self, runners: list[Dense], x: Array, tops: list[Blob], dx: Array | None, dx_sums: Array
    ) -> None:
        """Compute all gradients of layers that read x.

        Args:
            dx: where the sum of their derivatives by x is wanted, or None.
            dx_sums: work space for it, for few examples: a slice for each span of each layer.
        """
        layers, backend = [r.layer for r in runners], self.engine.backend
        if self.few:
            self._backward_few(layers, x, tops, dx, dx_sums)
            return
        ds = self._before(runners, tops)
        trained = [(layer.w.diff, d) for layer, d in zip(layers, ds, strict=True)
                   if layer.w.trainable]
        if trained:
            dws, before = [dw for dw, _ in trained], [d for _, d in trained]
            backend.gemms([rows(x).T] * len(trained), before, dws, self.places)
        if dx is not None:
            for i, (layer, d) in enumerate(zip(layers, ds, strict=True)):
                backend.gemm(d, layer.w.data.T, out=rows(dx), add=i > 0)

    def defines(self, width: int = 32) -> dict[str, str]:
        """Return the macros of kernels for few examples."""
        rows = self.layer.run.batch_size
        return {
            **self.activation()[1], "ROWS": f"{rows}u", "SPAN": f"{SPAN}u", "LANES": f"{width}u",
        }

    def _backward_few(
        self, layers: list[Any], x: Array, tops: list[Blob], dx: Array | None, dx_sums: Array
    ) -> None:
        slices = self.spans * len(layers)
        self.launch(
            "dense", "few_backward", -(-(self.inputs + 1) // 8) * slices, len(x), self.inputs,
            self.layer.units, len(layers), self.activation()[0], x,
            dx if dx is None or slices == 1 else dx_sums,
            *three([top.data for top in tops]), *three([top.diff for top in tops]),
            *three([layer.w.data for layer in layers]),
            *three([layer.w.diff if layer.w.trainable else None for layer in layers]),
            *three([layer.b.diff if layer.b.trainable else None for layer in layers]),
            **self.defines(),
        )
        if dx is not None and slices > 1:
            self.launch(
                "dense", "sum_slices", self.blocks(dx.size), slices, dx.size, dx_sums, dx,
                ACTIVATION="Linear",
            )

    def _before(self, runners: list[Dense], tops: list[Blob]) -> list[Array]:
        """Return d loss / d (x W + b) of layers, and fill their db."""
        layers, count, units = [r.layer for r in runners], len(tops[0].data), self.layer.units
        slices, (setting, defines) = -(-count // SLICE), self.activation()
        ds = [layer.before.data if layer.neuron else None for layer in layers]
        sums = [
            None if not r.layer.b.trainable else r.layer.b.diff if slices == 1 else r.sums
            for r in runners
        ]
        if any(to is not None for to in [*ds, *sums]):
            self.launch(
                "dense", "columns", -(-units // 32) * slices * len(layers), count, units, setting,
                *three([top.data for top in tops]), *three([top.diff for top in tops]), *three(ds),
                *three(sums), **defines,
            )
        for runner in runners if slices > 1 else []:
            if runner.layer.b.trainable:
                self.launch(
                    "dense", "sum_slices", self.blocks(units), slices, units, runner.sums,
                    runner.layer.b.diff, **defines,
                )
        return [top.diff if d is None else d for top, d in zip(tops, ds, strict=True)]


class Windowed(Activated):
    """What Convolution and Deconvolution have in common: windows, and gradients of biases."""

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
            "windows", "cut_windows", columns.size, *self.geometry(picture), picture, columns,
            ACTIVATION="Linear",
        )
        return columns

    def add_up(self, picture: Array, bias: Array | None) -> None:
        """Fill pictures with the sums of the windows, through bias and activation if any."""
        setting, defines = self.activation()
        self.each(
            "windows", "add_up_windows", picture.size, *self.geometry(picture), setting,
            self.layer.columns.data, bias, picture, **defines,
        )

    def channels_last(self, small: Array) -> Array:
        """Return (n, channels, down, across) as rows (n * places, channels)."""
        layer, found = self.layer, self.matrix(self.layer.rows)
        self.each(
            "windows", "channels_last", small.size, small.shape[1], layer.places, small, found,
            ACTIVATION="Linear",
        )
        return found

    def channels_first(self, small: Array, bias: Array | None) -> None:
        """Fill (n, channels, down, across), through bias and activation if there is one."""
        layer, (setting, defines) = self.layer, self.activation()
        self.each(
            "windows", "channels_first", small.size, small.shape[1], layer.places, setting,
            layer.rows.data, bias, small, **defines,
        )

    def before(self, top: Blob) -> Array:
        """Return d loss / d what was activated, and fill db."""
        layer, d, (setting, defines) = self.layer, top.diff, self.activation()
        if layer.neuron:
            d = layer.before.data
            self.each(
                "activation", "differentiate", d.size, setting, top.data, top.diff, d, **defines
            )
        if layer.b.trainable:
            (count, channels), places = d.shape[:2], math.prod(d.shape[2:])
            slices = min(len(self.sums), count)
            self.launch(
                "windows", "channel_sums", channels * slices, count, channels, places, slices, d,
                self.sums if slices > 1 else layer.b.diff, ACTIVATION="Linear",
            )
            if slices > 1:
                self.launch(
                    "dense", "sum_slices", self.blocks(channels), slices, channels, self.sums,
                    layer.b.diff, ACTIVATION="Linear",
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


class Loss(KernelRunner):
    """A loss whose diffs come in the pass that computes its value; defines `run`."""

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.forward_backward = self.run_backward

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the loss of each example."""
        self.run(bottoms, tops, [None] * len(bottoms))

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the diffs, and the loss over again."""
        self.run(bottoms, tops, [b.diff for b in bottoms])

    def run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array | None]) -> None:
        """Compute the loss, and the diffs that are wanted."""
        raise NotImplementedError


class Pairs(Loss):
    """A sum over pairs of numbers."""

    kernel: ClassVar[str]

    def run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array | None]) -> None:
        """Compute the sum of each example, and both diffs."""
        (count, size), top = rows(bottoms[0].data).shape, tops[0]
        self.launch(
            "losses", self.kernel, self.blocks(count * lanes(size)), count, size, lanes(size),
            *(b.data for b in bottoms), top.diff, top.data, *diffs,
        )


class SquareLoss(Pairs):
    """Half the squared distance."""

    kernel = "squared_distance"


class BinaryCrossEntropy(Pairs):
    """The cross entropy of Bernoulli variables."""

    kernel = "bernoulli_entropy"


class SoftmaxLoss(Loss):
    """The cross entropy of a class."""

    def run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array | None]) -> None:
        """Compute the cross entropy of each example, and the diff of the logits."""
        (count, classes), top = rows(bottoms[0].data).shape, tops[0]
        self.launch(
            "losses", "softmax_loss", self.blocks(count * lanes(classes)), count, classes,
            lanes(classes), bottoms[0].data, bottoms[1].data, top.diff, top.data, diffs[0],
        )


class Accuracy(KernelRunner):
    """Array code that does not look at the labels first: no GPU answers while it records."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Count the logits that are not below the label's."""
        self.layer.count(bottoms, tops)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: no bottom is differentiable."""


class GaussianKL(Loss):
    """The divergence of two normal distributions."""

    def run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array | None]) -> None:
        """Compute the divergence of each example, and all diffs."""
        (count, size), top = rows(bottoms[0].data).shape, tops[0]
        four = [*(b.data for b in bottoms), None, None][:4]
        self.launch(
            "losses", "divergence", self.blocks(count * lanes(size)), count, size, lanes(size),
            *four, top.diff, top.data, *[*diffs, None, None][:4],
        )


class Reconstruction(Loss):
    """A likelihood, summed over the pixels."""

    def run(self, bottoms: list[Blob], tops: list[Blob], diffs: list[Array | None]) -> None:
        """Compute the negative log likelihood of each example, and the diffs."""
        layer, top, (count, pixels) = self.layer, tops[0], rows(bottoms[0].data).shape
        kernel, settings, most = self.formula()
        self.launch(
            "losses", kernel, count, pixels, *settings, *[*(b.data for b in bottoms), None][:most],
            float(layer.floor), np.float64(pixels * layer.constant), top.diff, top.data,
            *[*diffs, None][:most],
        )

    def formula(self) -> tuple[str, tuple[float, ...], int]:
        """Return the kernel, its settings, and how many bottoms it takes."""
        raise NotImplementedError


class GaussianReconstruction(Reconstruction):
    """The likelihood of a normal distribution."""

    def formula(self) -> tuple[str, tuple[float, ...], int]:
        """Return the kernel, without settings."""
        return "gaussian", (), 3


class StudentReconstruction(Reconstruction):
    """The likelihood of a skewed Student's t."""

    def formula(self) -> tuple[str, tuple[float, ...], int]:
        """Return the kernel, degrees of freedom and E|T|."""
        return "student", (float(self.layer.degrees), float(self.layer.fold)), 4


class Reparameterize(KernelRunner):
    """Noise that is drawn as it is needed."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute z = mean + sd * noise."""
        layer, z = self.layer, tops[0].data
        self.launch(
            "elementwise", "reparameterize", self.blocks(-(-z.size // 4)), z.size, bottoms[0].data,
            bottoms[1].data, layer.scaled.data, z, int(layer.run.sample), *self.noise(),
        )

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute both diffs at once."""
        dz = tops[0].diff
        self.each(
            "elementwise", "reparameterize_backward", dz.size, self.layer.scaled.data, dz,
            *(b.diff for b in bottoms),
        )


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
            "elementwise", "dropout", self.blocks(-(-y.size // 4)), y.size, x, y,
            np.float64(ratio), float(1 / (1 - ratio)), *self.noise(),
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
            self.each("elementwise", "multiply", out.size, product, factor, out)
            product = out


class Pieces(KernelRunner):
    """A layer that copies pieces of rows between a wide blob and narrow ones."""

    def to_wide(self, narrow: list[Array | None], wide: Array) -> None:
        """Copy narrow arrays side by side into the wide one."""
        for span, part in zip(self.layer.spans, narrow, strict=True):
            if part is not None:
                offset, width, apart = self._piece(span, wide)
                self.each(
                    "elementwise", "copy_rows", part.size, width, part, width,
                    wide.reshape(-1)[offset:], apart,
                )

    def to_narrow(self, wide: Array, narrow: list[Array | None]) -> None:
        """Copy the pieces of the wide array to narrow ones."""
        for span, part in zip(self.layer.spans, narrow, strict=True):
            if part is not None:
                offset, width, apart = self._piece(span, wide)
                self.each(
                    "elementwise", "copy_rows", part.size, width, wide.reshape(-1)[offset:], apart,
                    part, width,
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


class Reshape(KernelRunner):
    """A copy."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the data."""
        self.engine.copy(bottoms[0].data.reshape(-1), tops[0].data.reshape(-1))

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the diff back."""
        if bottoms[0].diff is not None:
            self.engine.copy(tops[0].diff.reshape(-1), bottoms[0].diff.reshape(-1))


class ImagePose(KernelRunner):
    """Sky, moments and what follows from them, a block for each picture."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Measure the poses."""
        layer, poses = self.layer, tops[0].data
        self.launch(
            "pictures", "measure_poses", len(poses), layer.side, np.float64(layer.threshold),
            np.float64(layer.size), *scale(layer), layer.latents, bottoms[0].data, poses,
        )

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: the bottom is not differentiable."""


class SpatialTransform(KernelRunner):
    """Pictures that are resampled pixel by pixel."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the resampled pictures."""
        layer, (picture, pose), top = self.layer, bottoms, tops[0].data
        self.launch(
            "pictures", "make_maps", self.blocks(len(top)), len(top), pose.shape[0], *scale(layer),
            int(layer.inverse), pose.data, layer.maps.data,
        )
        self.each(
            "pictures", "resample", top.size, layer.side, layer.maps.data, picture.data, top
        )

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute both diffs."""
        layer, (picture, pose), d = self.layer, bottoms, tops[0].diff
        if picture.diff is not None:
            self.each(
                "pictures", "resample_pictures", d.size, layer.side, layer.maps.data, d,
                picture.diff,
            )
        if pose.diff is not None:
            self.launch(
                "pictures", "resample_poses", len(d), layer.side, pose.shape[0], *scale(layer),
                int(layer.inverse), pose.data, layer.maps.data, picture.data, d, pose.diff,
            )


def scale(layer: Any) -> tuple[np.float64, ...]:
    """Return the scales of the numbers of a pose, as kernels take them."""
    return tuple(np.float64(s) for s in (layer.span, layer.size_spread, layer.shift_spread))


RUNNERS: dict[type, type[KernelRunner]] = {
    **dict.fromkeys((kind for kind in ACTIVATIONS if kind is not type(None)), Elementwise),
    L.Accuracy: Accuracy, L.Add: Add, L.BinaryCrossEntropy: BinaryCrossEntropy, L.Concat: Concat,
    L.Convolution: Convolution, L.Deconvolution: Deconvolution, L.Dense: Dense, L.Dropout: Dropout,
    L.GaussianKL: GaussianKL, L.GaussianReconstruction: GaussianReconstruction,
    L.ImagePose: ImagePose, L.Input: Input, L.Multiply: Multiply,
    L.Reparameterize: Reparameterize, L.Reshape: Reshape, L.Slice: Slice,
    L.SoftmaxLoss: SoftmaxLoss, L.SpatialTransform: SpatialTransform, L.SquareLoss: SquareLoss,
    L.StudentReconstruction: StudentReconstruction,
}


def make_runner(layer: Layer, engine: Any) -> Runner:
    """Return the runner registered for exactly this class, or the layer with its array code.

    Data layers of a user's own class are fed batch by batch where they can be: where `forward` is
    that of Data, and `host` gives in the computer's own memory what `fetch` gives on the backend.
    """
    own = type(layer)
    if isinstance(layer, Data):
        if own is L.MemoryData and ResidentData.fits(layer, engine):
            return ResidentData(layer, engine)
        fed = own.forward is Data.forward and overrides(own, "host", ("fetch",))
        return DataRunner(layer, engine) if fed else ArrayRunner(layer)
    make = RUNNERS.get(own)
    return make(layer, engine) if make and make.fits(layer, engine) else ArrayRunner(layer)
