"""Layers whose passes are formulas, element by element; see arithmetic.h and elementwise.h."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from layerkit import layers as L
from layerkit.backends.base import Array
from layerkit.blob import Blob, Parameter
from layerkit.engines.cpu.runners.base import KernelRunner

NAMES = (
    "copy",
    "scale",
    "add",
    "subtract",
    "multiply",
    "multiply_three",
    "divide",
    "divide_slope",
    "affine",
    "prelu",
    "prelu_slope",
    "prelu_steepness",
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}  # as in elementwise.h

# A formula: its name, then its operands: a and b, the bottoms; y and dy; the layer's window; or a
# parameter's name.
Formula = tuple[str, ...]
# class -> the formula of y, and those of the diffs of bottoms and parameters
ROWS: dict[type, tuple[Formula, dict[str, Formula]]] = {
    L.Affine: (
        ("affine", "a", "gain", "bias"),
        {"a": ("multiply", "dy", "gain"), "gain": ("multiply", "dy", "a"), "bias": ("copy", "dy")},
    ),
    L.Divide: (
        ("divide", "a", "b"),
        {"a": ("divide", "dy", "b"), "b": ("divide_slope", "dy", "b", "y")},
    ),
    L.PReLU: (
        ("prelu", "a", "slope"),
        {"a": ("prelu_slope", "a", "dy", "slope"), "slope": ("prelu_steepness", "a", "dy")},
    ),
    L.Subtract: (("subtract", "a", "b"), {"a": ("copy", "dy"), "b": ("scale", "dy")}),
    L.Taper: (("multiply", "a", "window"), {"a": ("multiply", "dy", "window")}),
}
SETTINGS = {L.Subtract: -1.0}  # of the formula "scale"
MISSING = {"gain": 1.0, "bias": 0.0}  # what stands for a parameter that a layer was made without


def combine(kernels: Any, name: str, out: Array, *operands: Array, setting: float = 0.0) -> None:
    """Compute out = a formula of up to three arrays.

    Arrays are repeated along axes that they have of size 1, or not at all; where `out` is shorter
    than the operands it is the sum along such axes.
    """
    three = [*operands, operands[0], operands[0]][:3]
    shape = np.broadcast_shapes(out.shape, *(a.shape for a in operands))
    arrays = [np.broadcast_to(a, shape) for a in (*three, out)]
    kernels.elementwise(NUMBERS[name], setting, *arrays)


class Formulas(KernelRunner):
    """A layer with a row in ROWS."""

    def combine(self, name: str, out: Array, *operands: Array, setting: float = 0.0) -> None:
        """Compute out = a formula of up to three arrays; see `combine`."""
        combine(self.kernels, name, out, *operands, setting=setting)

    def settings(self) -> tuple[Any, ...]:
        """Return which parameters get a gradient."""
        return tuple(p.trainable for p in self.layer.parameters.values())

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y."""
        self._run(ROWS[type(self.layer)][0], tops[0].data, bottoms, tops)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the diffs that are wanted, summed where an operand was repeated."""
        for name, formula in ROWS[type(self.layer)][1].items():
            diff: Array | None
            if name in "ab":
                diff = bottoms["ab".index(name)].diff
            else:
                p = self.layer.parameters.get(name)
                diff = None if p is None or not p.trainable else self._spread(p, p.diff, bottoms)
            if diff is not None:
                self._run(formula, diff, bottoms, tops)

    def _run(self, formula: Formula, out: Array, bottoms: list[Blob], tops: list[Blob]) -> None:
        name, *operands = formula
        arrays = [self._operand(operand, bottoms, tops) for operand in operands]
        self.combine(name, out, *arrays, setting=SETTINGS.get(type(self.layer), 0.0))

    def _operand(self, name: str, bottoms: list[Blob], tops: list[Blob]) -> Array:
        if name in ("y", "dy"):
            return tops[0].data if name == "y" else tops[0].diff
        if name in "ab":
            return bottoms["ab".index(name)].data
        if name == "window":
            return self.layer.window.reshape(bottoms[0].shape)
        p = self.layer.parameters.get(name)
        if p is None:
            return np.full(1, MISSING[name], self.layer.run.dtype)
        return self._spread(p, p.data, bottoms)

    def _spread(self, parameter: Parameter, array: Array, bottoms: list[Blob]) -> Array:
        """Return an array of a parameter's shape so that it is repeated along the other axes."""
        after = bottoms[0].data.ndim - 2 - getattr(self.layer, "axis", 0)
        return array.reshape(*parameter.shape, *[1] * after)


class Add(Formulas):
    """A sum, two blobs at a time."""

    formula: ClassVar[str] = "add"

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = the sum, or the product."""
        self._fold([b.data for b in bottoms], tops[0].data)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the top's diff to every bottom's."""
        for bottom in bottoms:
            if bottom.diff is not None:
                self.combine("copy", bottom.diff, tops[0].diff)

    def _fold(self, arrays: list[Array], out: Array) -> None:
        first, *others = arrays
        if not others:
            self.combine("copy", out, first)
        for other in others:
            self.combine(self.formula, out, first, other)
            first = out


class Multiply(Add):
    """A product, two blobs at a time."""

    formula = "multiply"

    @classmethod
    def fits(cls, layer: Any, engine: Any) -> bool:
        """Return whether a bottom's diff is one formula, or no bottom is repeated."""
        return len(layer.bottoms) <= 3 or not layer.broadcasts

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx_i = dy times the product of the others."""
        for i, bottom in enumerate(bottoms):
            if bottom.diff is None:
                continue
            factors = [tops[0].diff, *(b.data for j, b in enumerate(bottoms) if j != i)]
            if len(factors) == 3:
                self.combine("multiply_three", bottom.diff, *factors)
            else:
                self._fold(factors, bottom.diff)


class Permute(Formulas):
    """A copy, with the axes in another order."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the data."""
        self.combine("copy", tops[0].data, bottoms[0].data.transpose(self.layer.axes))

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Copy the diff."""
        if bottoms[0].diff is not None:
            self.combine("copy", bottoms[0].diff, tops[0].diff.transpose(self.layer.back))


class Reduce(Formulas):
    """A sum, a mean or a maximum along some axes."""

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the sum, mean or maximum."""
        layer, x, y = self.layer, bottoms[0].data, tops[0].data
        if layer.mode == "max":
            self.kernels.largest(x.transpose(layer.order), y.reshape(len(y), *layer.kept))
        else:
            self.combine("scale", self._with_ones(y, x), x, setting=self._share())

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = dy for a sum, dy / count for a mean, and dy at the first of the largest."""
        layer, x, dx, dy = self.layer, bottoms[0].data, bottoms[0].diff, tops[0].diff
        if dx is None:
            return
        if layer.mode == "max":
            self.kernels.largest_backward(
                x.transpose(layer.order),
                dy.reshape(len(dy), *layer.kept),
                dx.transpose(layer.order),
            )
        else:
            self.combine("scale", dx, self._with_ones(dy, x), setting=self._share())

    def _share(self) -> float:
        return 1 / self.layer.count if self.layer.mode == "mean" else 1.0

    def _with_ones(self, y: Array, x: Array) -> Array:
        """Return y with axes of size 1 where x has those that are summed over."""
        reduced = self.layer.order[1 + len(self.layer.kept) :]
        return y.reshape([1 if axis in reduced else size for axis, size in enumerate(x.shape)])


class Dropout(Formulas):
    """A mask that is drawn in the forward pass, and kept."""

    def settings(self) -> tuple[Any, ...]:
        """Return whether there is a mask, and the ratio."""
        return self.layer.run.training, self.layer.ratio

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = x * mask."""
        layer, run = self.layer, self.layer.run
        ratio = layer.ratio if run.training else 0.0
        arrays = bottoms[0].data, layer.mask.data, tops[0].data
        self.kernels.dropout(*arrays, ratio, layer.stream, run.clock())

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = dy * mask."""
        if bottoms[0].diff is not None:
            self.combine("multiply", bottoms[0].diff, tops[0].diff, self.layer.mask.data)
