"""Dense layers, alone or several that read one blob, and MatMul; see kernels/dense.cu."""

from __future__ import annotations

from typing import Any

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.activations import has_formula
from layerkit.engines.cuda.runners.base import Activated, KernelRunner
from layerkit.layers.losses.loss import rows

SLICE = 256  # rows of which a block adds up the gradients of the biases
FEW = 16  # examples up to which one kernel for all is faster than several by cuBLAS
SPAN = 256  # units whose weights a block then reads
NEAR = 1024  # inputs up to which eight threads then add up a unit
TOGETHER = 3  # layers that can be run together


def few_rows(capacity: int) -> str:
    """Return ROWS of kernels for few examples: a power of two, so that few of them are compiled."""
    return f"{1 << (capacity - 1).bit_length()}u"


def three(arrays: list[Any]) -> list[Any]:
    """Return arrays with None for those that are missing to TOGETHER."""
    return [*arrays, *[None] * TOGETHER][:TOGETHER]


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
        self.no_bias = self.zeros(0 if layer.b else units)
        self.places: dict[Any, Any] = {}  # of the matrices of products made together
        self.spans = -(-units // SPAN) if self.few else 1
        self.dx_sums = self.zeros(self.spans if self.spans > 1 else 0, capacity * self.inputs)

    @classmethod
    def fits(cls, layer: Any, engine: Any) -> bool:
        """Return whether the activation has a formula, and elements can be counted with 32 bits."""
        most = max(layer.run.batch_size * layer.units, layer.w.size + layer.units)
        return has_formula(layer.neuron) and TOGETHER * most < 2**32

    def bias(self) -> Array:
        """Return b, or zeros where the layer has none."""
        return self.layer.b.data if self.layer.b else self.no_bias

    def bias_diff(self) -> Array | None:
        """Return db, or None where it is not wanted."""
        b = self.layer.b
        return b.diff if b and b.trainable else None

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x W + b)."""
        self.forward_together([self], bottoms[0].data, tops)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all gradients."""
        self.backward_together([self], bottoms[0].data, tops, bottoms[0].diff, self.dx_sums)

    def forward_together(self, runners: list[Dense], x: Array, tops: list[Blob]) -> None:
        """Compute the tops of layers that read x, each of which has one."""
        layers = [r.layer for r in runners]
        ys, setting, defines = self.entering(
            [top.data for top in tops], [layer.inner for layer in layers]
        )
        ws, bs = [layer.w.data for layer in layers], [r.bias() for r in runners]
        units, count = self.layer.units, len(x)
        if self.few:
            # If there are many inputs, more blocks and more threads share them.
            width = 4 if self.inputs > NEAR else 32
            self.launch(
                "dense",
                "few_forward",
                -(-units // width) * len(layers),
                count,
                self.inputs,
                units,
                setting,
                x,
                *three(ws),
                *three(bs),
                *three(ys),
                **self.few_defines(width),
                **defines,
            )
        else:
            self.engine.backend.gemms([rows(x)] * len(layers), ws, ys, self.places)
            self._add_biases(bs, ys, setting, defines)
        for layer, top in zip(layers, tops, strict=True):
            self.activate(top.data, layer.inner)

    def _add_biases(
        self, bs: list[Array], ys: list[Array], setting: float, defines: dict[str, str]
    ) -> None:
        """Add the biases of layers to what they have multiplied, and activate it."""
        self.launch(
            "dense",
            "bias_activation",
            self.blocks(len(ys) * ys[0].size),
            ys[0].size,
            len(ys),
            self.layer.units,
            setting,
            *three(bs),
            *three(ys),
            **defines,
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
            self._backward_few(runners, x, tops, dx, dx_sums)
            return
        ds = self._before(runners, tops)
        trained = [
            (layer.w.diff, d) for layer, d in zip(layers, ds, strict=True) if layer.w.trainable
        ]
        if trained:
            dws, before = [dw for dw, _ in trained], [d for _, d in trained]
            backend.gemms([rows(x).T] * len(trained), before, dws, self.places)
        if dx is not None:
            for i, (layer, d) in enumerate(zip(layers, ds, strict=True)):
                backend.gemm(d, layer.w.data.T, out=rows(dx), add=i > 0)

    def few_defines(self, width: int = 32) -> dict[str, str]:
        """Return the macros of kernels for few examples, but for the activation."""
        rows = few_rows(self.layer.run.batch_size)
        return {"ROWS": rows, "SPAN": f"{SPAN}u", "LANES": f"{width}u"}

    def _backward_few(
        self, runners: list[Dense], x: Array, tops: list[Blob], dx: Array | None, dx_sums: Array
    ) -> None:
        layers = [r.layer for r in runners]
        slices, (setting, defines) = self.spans * len(layers), self.activation()
        self.launch(
            "dense",
            "few_backward",
            -(-(self.inputs + 1) // 8) * slices,
            len(x),
            self.inputs,
            self.layer.units,
            len(layers),
            setting,
            x,
            dx if dx is None or slices == 1 else dx_sums,
            *three([self.known(top, r.inner) for top, r in zip(tops, layers, strict=True)]),
            *three([top.diff for top in tops]),
            *three([layer.w.data for layer in layers]),
            *three([layer.w.diff if layer.w.trainable else None for layer in layers]),
            *three([r.bias_diff() for r in runners]),
            **self.few_defines(),
            **defines,
        )
        if dx is not None and slices > 1:
            self.launch(
                "dense",
                "sum_slices",
                self.blocks(dx.size),
                slices,
                dx.size,
                dx_sums,
                dx,
                ACTIVATION="Linear",
            )

    def _before(self, runners: list[Dense], tops: list[Blob]) -> list[Array]:
        """Return d loss / d (x W + b) of layers, and fill their db."""
        layers, count, units = [r.layer for r in runners], len(tops[0].data), self.layer.units
        slices, (setting, defines) = -(-count // SLICE), self.activation()
        ds = [layer.before.data if layer.neuron else None for layer in layers]
        dbs = [r.bias_diff() for r in runners]
        sums = [
            r.sums if slices > 1 and db is not None else db
            for r, db in zip(runners, dbs, strict=True)
        ]
        if any(to is not None for to in [*ds, *sums]):
            self.launch(
                "dense",
                "columns",
                -(-units // 32) * slices * len(layers),
                count,
                units,
                setting,
                *three([self.known(top, r.inner) for top, r in zip(tops, layers, strict=True)]),
                *three([top.diff for top in tops]),
                *three(ds),
                *three(sums),
                **defines,
            )
        for runner, db in zip(runners, dbs, strict=True) if slices > 1 else []:
            if db is not None:
                self.launch(
                    "dense",
                    "sum_slices",
                    self.blocks(units),
                    slices,
                    units,
                    runner.sums,
                    db,
                    **defines,
                )
        return [top.diff if d is None else d for top, d in zip(tops, ds, strict=True)]


class TiedDense(Dense):
    """Products with the transpose by cuBLAS, however many examples there are."""

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.few = False

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x W^T + b)."""
        layer, y = self.layer, tops[0].data
        (out,), setting, defines = self.entering([y], [layer.inner])
        self.engine.backend.gemm(rows(bottoms[0].data), layer.w.data.T, out=out)
        self._add_biases([self.bias()], [out], setting, defines)
        self.activate(y, layer.inner)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all gradients."""
        layer, gemm, dx = self.layer, self.engine.backend.gemm, bottoms[0].diff
        d = self._before([self], tops)[0]
        if layer.w.trainable:
            gemm(d.T, rows(bottoms[0].data), out=layer.w.diff)
        if dx is not None:
            gemm(d, layer.w.data, out=rows(dx))


class MatMul(KernelRunner):
    """Products of matrices, all of a batch in one call of cuBLAS."""

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.places: dict[Any, Any] = {}  # of the matrices

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a b."""
        self._products(*self.layer.factors(bottoms), tops[0].data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute da and db."""
        for a, b, out in self.layer.slope_factors(bottoms, tops):
            self._products(a, b, out)

    def _products(self, *arrays: Array) -> None:
        matrices = [list(a.reshape(-1, *a.shape[-2:])) for a in arrays]
        self.engine.backend.gemms(*matrices, self.places)
