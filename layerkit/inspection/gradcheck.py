"""Gradient checks: a backward pass compared with finite differences of its forward pass.

Rules, after Caffe's checker and those of Chainer and JAX: float64; central differences, refined by
Richardson extrapolation; noise held fixed, so that the forward pass is a function; seeded random
directions through whole arrays, and element by element where arrays are small; diffs filled with
NaN before the backward pass, so that a `+=` or a gap shows.

Errors are relative to the derivatives themselves, or to the typical element of the array's
gradient if that is larger: Caffe's max(1, ...) would miss a factor 1.001 in a gradient of 1e-4,
which is what a mean over a batch leaves.  Rounding of the forward pass, which grows with its value,
is allowed for.

Points at a kink are recognised by slopes from left and right that do not meet.  That depends on the
forward pass alone, so a wrong backward pass cannot pass for a kink.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np

from layerkit.data.arrays import numbers
from layerkit.errors import ContractError, GradientError, NetError, brief
from layerkit.layer import Layer
from layerkit.layers.sources.input import Input
from layerkit.net import Net
from layerkit.settings import fitting
from layerkit.system.bars import watched
from layerkit.wiring.wires import Layers, flattened

STEPS = (1e-3, 1e-4, 1e-5)  # the longest is the most accurate, the others work closer to kinks
TOLERANCE = 1e-6
ROUNDING = 1e-14  # of a difference of two forward passes, relative to their value; measured 1e-15


@dataclass
class GradientReport:
    """Result of a gradient check; print it.

    Attributes:
        errors: name of each parameter and blob checked -> its largest relative error.
        checked: number of derivatives compared.
        kinks: number of derivatives left out because the function has a kink there.
        failures: a line for each disagreement.
    """

    errors: dict[str, float] = field(default_factory=dict)
    checked: int = 0
    kinks: int = 0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        worst = max(self.errors.items(), key=lambda item: item[1], default=("nothing", 0.0))
        return (
            f"{self.checked} derivatives of {len(self.errors)} arrays agree; the largest relative "
            f"error is {worst[1]:.1e}, in {worst[0]} ({self.kinks} left out at kinks)"
        )


@fitting(NetError)
def check_gradients(
    net: Net | Layer | Layers,
    /,
    *,
    tolerance: float = TOLERANCE,
    directions: int = 4,
    elements: int = 64,
    seed: int = 0,
    **inputs: Any,
) -> GradientReport:
    """Check every parameter and every differentiable input of a net, or of a layer of your own.

    The net is rebuilt in float64 on NumPy, with its parameter values.  The function that is
    differentiated is the net's objective plus a random weighting of every top that nothing reads:
    so layers without a loss can be checked too, and a loss layer must scale each example by itself.
    The net has room for a row more than the inputs have, so that a layer that divides by the batch
    size, and not by the number of rows, is found.  An input is checked if every layer that reads it
    has a gradient for it, metrics aside.

    A single wrong element of a large array is found by the random directions if its error is more
    than about tolerance * sqrt(size) of a typical element.

    Args:
        net: a Net, a list of layers, or one layer, whose bottoms are then the inputs.
        tolerance: largest allowed |analytic - numeric|, relative to the larger of the two or to the
            root mean square of the array's gradient.
        directions: number of random directions through each array.
        elements: arrays of at most this many elements are also checked one by one, larger ones at
            this many random places.
        seed: seed of the directions and places.
        inputs: an array for each input blob: `check_gradients(MyLayer("y", "x"), x=array)`.

    Returns:
        A report; print it.

    Raises:
        GradientError: the two disagree; it lists the places, both numbers and the error.  Or they
            cannot be compared: a forward pass that changes from call to call, is not finite, or is
            nowhere smooth.  Or a layer breaks its contract with the net: returns or replaces an
            array instead of writing into it, leaves a gap, changes what is not its own.
        NetError: inputs that do not fit, or nothing that has a gradient.
    """
    if not isinstance(tolerance, Real) or not 0 < tolerance < 1:
        raise NetError(f"tolerance must be a number between 0 and 1, got {brief(tolerance)}")
    for setting, value in (("directions", directions), ("elements", elements), ("seed", seed)):
        if not isinstance(value, int | Integral) or isinstance(value, bool) or value < 0:
            raise NetError(f"{setting} must be a whole number, at least 0, got {brief(value)}")
    if not directions and not elements:
        raise NetError("directions and elements are both 0, so there is nothing to compare")
    return check_with(
        net, inputs, tolerance=tolerance, directions=directions, elements=elements, seed=seed
    )


def check_with(
    net: Net | Layer | Layers,
    inputs: dict[str, Any],
    tolerance: float = TOLERANCE,
    directions: int = 4,
    elements: int = 64,
    seed: int = 0,
    progress: bool = False,
) -> GradientReport:
    """Do what `check_gradients` does, given the inputs in a dictionary.

    Args:
        net, tolerance, directions, elements, seed: see check_gradients, which has checked them.
        inputs: an array for each input blob, by its name.
        progress: whether to show a bar.
    """
    inputs = {name: numbers(array, f"input {name!r}") for name, array in inputs.items()}
    try:
        check = _Check(_as_net(net, inputs), inputs, tolerance, seed)
        for name in watched([*check.targets], "checking", "arrays", progress):
            check.array(name, *check.targets[name], directions, elements)
    except ContractError as error:
        raise GradientError(str(error)) from error
    failures = check.report.failures
    if failures:
        more = [f"... and {len(failures) - 10} more"] if len(failures) > 10 else []
        shown = "\n  ".join([*failures[:10], *more])
        raise GradientError(f"{len(failures)} failures of the gradient check:\n  {shown}")
    return check.report


def _as_net(net: Net | Layer | Layers, inputs: dict[str, np.ndarray]) -> Net:
    for name, array in inputs.items():
        if not array.ndim:
            raise NetError(f"input {name!r}: expected an array (n, ...), got the number {array}")
    room = max((len(a) + 1 for a in inputs.values()), default=1)
    if isinstance(net, Net):
        room = room if inputs else net.run.batch_size
        return net.rebuild(batch_size=room, backend="numpy", dtype="float64", gradients="all")
    layers = [net] if isinstance(net, Layer) else net
    layers = flattened(layers) if isinstance(layers, list | tuple) else layers
    if not isinstance(layers, list) or not all(isinstance(x, Layer) for x in layers):
        raise NetError(f"expected a net, a layer or a list of layers, got {brief(net)}")
    made = {top for layer in layers for top in layer.tops}
    given = [Input(k, shape=a.shape[1:]) for k, a in inputs.items() if k not in made]
    return Net([*given, *layers], batch_size=room, dtype="float64", gradients="all")


class _Check:
    """Check of one net whose data, noise and weights are fixed in every forward pass."""

    def __init__(self, net: Net, inputs: dict[str, np.ndarray], tolerance: float, seed: int):
        self.net, self.tolerance = net, tolerance
        self.report = GradientReport()
        self.random = np.random.default_rng(seed)
        self.inputs = {k: self._copied(k, a) for k, a in inputs.items()}
        self.state = net.state()
        net.forward(**self.inputs)  # settles the number of rows
        read = {b for layer in net.layers.values() for b in layer.bottoms}
        self.weights = {
            name: self.random.standard_normal(blob.data.shape)
            for name, blob in net.blobs.items()
            if name not in read and blob.diff is not None
        }
        first = self.value()
        net = self.net = self._used_before()
        self.middle = self.value()
        if not np.isfinite(self.middle):
            raise GradientError(f"cannot check a value of {self.middle}: {net.first_non_finite()}")
        if abs(self.value() - self.middle) > ROUNDING * self.magnitude:
            raise GradientError(
                "the forward pass changes from call to call; draw noise with self.normal or "
                "self.uniform, which repeat themselves, and keep nothing from one pass to the next"
            )
        if not abs(first - self.middle) <= ROUNDING * self.magnitude:
            raise GradientError(
                "the forward pass depends on the inputs of the passes before it: after one on "
                f"other inputs its value is {self.middle:.9g}, as a first pass {first:.9g}; keep "
                "nothing from one pass to the next"
            )
        self.backward()
        self.targets = {p.name: (p.data, p.diff.copy()) for p in net.params.values() if p.trainable}
        for layer in net.layers.values():
            blob = net.blobs[layer.tops[0]]
            if isinstance(layer, Input) and self._differentiable(blob.name):
                array = self.inputs[blob.name].reshape(blob.data.shape)
                self.inputs[blob.name] = array
                self.targets[f"input {blob.name}"] = (array, blob.diff.copy())
        if not self.targets:
            raise NetError("nothing to check: no trainable parameter, no input with a gradient")

    def _copied(self, name: str, array: np.ndarray) -> np.ndarray:
        """Return a copy of an input, in float64 unless its blob holds integers."""
        blob = self.net.blobs.get(name)
        return np.array(array, None if blob and blob.integers else "float64", order="C")

    def _used_before(self) -> Net:
        """Return a net that has made both passes on other inputs, where its layers take these.

        They are the rows in another order, a tenth smaller where they have a gradient: near the
        given ones, so in the domain of most layers.  Statistics of layers are then as before.
        """
        net = self.net.rebuild()
        net.set_state({**self.state, "passes": self.state["passes"] + 1})
        kept = {name: s.data.copy() for name, s in net.statistics.items()}
        others = {
            name: (0.9 if self._differentiable(name) else 1) * np.roll(array, 1, axis=0)
            for name, array in self.inputs.items()
        }
        try:
            net.forward(**others)
            if self.weights or net.losses:
                net.backward(**self.weights)
        except Exception:  # of any layer that refuses these inputs; the given ones will tell more
            return self.net.rebuild()
        for name, values in kept.items():
            net.statistics[name].data[...] = values
        return net

    def _differentiable(self, blob: str) -> bool:
        """Tell whether all layers that read this input claim a gradient for it."""
        claims = [
            layer.differentiable(i) and b not in layer.integer_blobs
            for layer in self.net.layers.values()
            for i, b in enumerate(layer.bottoms)
            if b == blob and not layer.is_metric
        ]
        return bool(claims) and all(claims)

    def value(self) -> float:
        """Return the function that is differentiated, at the current values of all arrays."""
        self.net.set_state(self.state)
        total = self.net.forward(**self.inputs)
        self.magnitude = max(1.0, abs(total))
        for name, weight in self.weights.items():
            terms = weight * self.net.blobs[name].data
            total += float(terms.sum())
            self.magnitude += float(np.abs(terms).sum())
        return total

    def backward(self) -> None:
        """Compute its derivatives, into diffs filled with NaN, none of which may remain."""
        for p in self.net.params.values():
            p.diff.fill(np.nan)
        for call in self.net.wires.backward:
            for blob in (*call.bottoms, *call.tops):
                if blob.diff is not None:
                    blob.diff.fill(np.nan)
        self.net.backward(**self.weights)

    def array(
        self, name: str, array: np.ndarray, diff: np.ndarray, directions: int, elements: int
    ) -> None:
        """Compare the derivative of one array along random directions and single elements."""
        self.report.errors[name] = 0.0
        typical = float(np.sqrt(np.mean(diff * diff)))
        settled = []
        for _ in range(directions):
            direction = self.random.standard_normal(array.shape)
            # A step of fixed length, however large the array, stays clear of most kinks.
            direction /= max(1.0, float(np.linalg.norm(direction)))
            label = f"{name} along a random direction"
            settled.append(self.compare(label, name, array, diff, direction, typical))
        places = self.random.permutation(array.size)[:elements]
        if len(places):
            settled = []  # one kink stops every random direction, but few elements
        for place in sorted(places):
            label = f"{name}[{', '.join(map(str, np.unravel_index(place, array.shape)))}]"
            one, its_diff = (a.reshape(-1)[place : place + 1] for a in (array, diff))
            settled.append(self.compare(label, name, one, its_diff, np.ones(1), typical))
        if sum(settled) < len(settled) / 2:
            self.report.failures.append(
                f"{name}: {len(settled) - sum(settled)} of {len(settled)} derivatives cannot be "
                "compared, as the forward pass is not smooth there; try other inputs"
            )

    def compare(
        self,
        label: str,
        name: str,
        array: np.ndarray,
        diff: np.ndarray,
        direction: np.ndarray,
        typical: float,
    ) -> bool:
        """Compare one derivative with differences; return False if these do not converge."""
        analytic = float((diff * direction).sum())
        difference = self.difference(array, direction, typical)
        if difference is None:
            self.report.kinks += 1
            return False
        numeric, rounding = difference
        scale = max(abs(analytic), abs(numeric), typical) + rounding / self.tolerance
        error = abs(analytic - numeric) / scale
        self.report.checked += 1
        self.report.errors[name] = max(self.report.errors[name], error)
        if not error <= self.tolerance:
            why = "; backward must write every diff in full, with =" if np.isnan(analytic) else ""
            self.report.failures.append(
                f"{label}: backward says {analytic:.9g}, differences say {numeric:.9g} "
                f"(relative error {error:.1e}, allowed {self.tolerance:.0e}){why}"
            )
        return True

    def difference(
        self, array: np.ndarray, direction: np.ndarray, typical: float
    ) -> tuple[float, float] | None:
        """Return the derivative along a direction and its rounding error, or None at a kink."""
        kept = array.copy()

        def at(distance: float) -> float:
            array[...] = kept + distance * direction
            return self.value()

        try:
            with np.errstate(all="ignore"):  # a step may leave the domain, as of log near 0
                return settled_difference(at, self.middle, self.magnitude, typical, self.tolerance)
        finally:
            array[...] = kept


def settled_difference(
    at: Callable[[float], float], middle: float, magnitude: float, typical: float, tolerance: float
) -> tuple[float, float] | None:
    """Return d at(t) / dt at 0 from values at three distances on each side, extrapolated to 0.

    Args:
        at: the function.
        middle: at(0).
        magnitude: sum of the magnitudes added up in `middle`, which bounds their rounding.
        typical: size of a derivative below which its error need not be relative to itself.
        tolerance: relative error that has to be detected.

    Returns:
        The derivative and its largest rounding error; None if it converges at no step, which means
        a kink (or a function that is not smooth at all).
    """
    for step in STEPS:
        distances = step / np.array([1.0, 2.0, 4.0])
        right = np.array([at(t) for t in distances])
        left = np.array([at(-t) for t in distances])
        slopes = (right - left) / (2 * distances)  # errors in even powers of the distance
        bends = (right - 2 * middle + left) / distances  # slope to the right minus to the left
        coarse, fine = (4 * slopes[1:] - slopes[:-1]) / 3
        jump = 2 * bends[2] - bends[1]
        rounding = ROUNDING * magnitude / step
        # A function that passes as smooth here has `fine` within the tolerance despite any kink.
        allowed = tolerance / 2 * max(abs(coarse), abs(fine), typical) + rounding
        inside = math.isfinite(allowed)  # else a step has led out of the domain, as to log(0)
        if inside and abs(fine - coarse) <= allowed and abs(jump) <= 2 * allowed:
            return float(fine), rounding
    return None
