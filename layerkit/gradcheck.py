"""Gradient checks: does a backward pass agree with finite differences of its forward pass?

Rules, after Caffe's checker and those of Chainer and JAX: float64; central differences, refined by
Richardson extrapolation; an error relative to max(1, |analytic|, |numeric|); noise held fixed, so
that the forward pass is a function; seeded random directions through whole arrays, and element by
element where arrays are small; points too close to a kink recognised by differences that do not
settle, and left out, but never many of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from layerkit.errors import GradientError
from layerkit.layer import Layer
from layerkit.layers.input import Input
from layerkit.net import Net

STEP = 1e-4
TOLERANCE = 1e-6
SETTLED = 1e-5  # two difference quotients this close (relative) are one derivative


@dataclass
class GradientReport:
    """What a gradient check found.

    Attributes:
        errors: name of each parameter and blob checked -> its largest relative error.
        checked: how many derivatives were compared.
        kinks: how many were left out because the function has a kink there.
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


def check_gradients(
    net: Net | Layer | Sequence[Layer], *, tolerance: float = TOLERANCE, directions: int = 4,
    elements: int = 64, seed: int = 0, **inputs: Any,
) -> GradientReport:
    """Checks every parameter and every differentiable input of a net, or of a layer of your own.

    The net is rebuilt in float64 on NumPy, with the same parameter values.  The function that is
    differentiated is the net's objective plus a random weighting of every top that nothing reads,
    so layers without a loss can be checked too.

    Args:
        net: a Net, a list of layers, or one layer, whose bottoms are then the inputs.
        tolerance: largest allowed |analytic - numeric| / max(1, |analytic|, |numeric|).
        directions: random directions through each array.
        elements: arrays of at most this many elements are also checked one by one, larger ones at
            this many random places.
        seed: of the directions and places.
        inputs: an array for each input: `check_gradients(MyLayer("y", "x"), x=array)`.

    Returns:
        A report; print it.

    Raises:
        GradientError: the two disagree; lists where, both numbers and the error.
        NetError: inputs that do not fit.
    """
    check = _Check(_as_net(net, inputs), inputs, tolerance, seed)
    for name, (array, diff) in check.targets.items():
        check.array(name, array, diff, directions, elements)
    report = check.report
    if report.kinks > report.checked:
        report.failures.append(
            f"{report.kinks} of {report.kinks + report.checked} derivatives do not settle: the "
            "forward pass is not smooth here, or changes from call to call"
        )
    if report.failures:
        shown = "\n  ".join(report.failures[:10])
        raise GradientError(f"{len(report.failures)} wrong derivatives:\n  {shown}")
    return report


def _as_net(net: Net | Layer | Sequence[Layer], inputs: dict[str, Any]) -> Net:
    rows = max((len(np.asarray(a)) for a in inputs.values()), default=1)
    if isinstance(net, Net):
        rows = rows if inputs else net.run.batch_size
        return net.rebuild(
            batch_size=rows, backend="numpy", dtype="float64", gradients="all"
        )
    layers = [net] if isinstance(net, Layer) else list(net)
    made = {top for layer in layers for top in layer.tops}
    given = [Input(k, shape=np.asarray(a).shape[1:]) for k, a in inputs.items() if k not in made]
    return Net([*given, *layers], batch_size=rows, dtype="float64", gradients="all")


class _Check:
    """One net, held still: the same data, noise and weights in every forward pass."""

    def __init__(self, net: Net, inputs: dict[str, Any], tolerance: float, seed: int):
        self.net, self.tolerance = net, tolerance
        self.report = GradientReport()
        self.random = np.random.default_rng(seed)
        self.inputs = {k: np.array(a, "float64") for k, a in inputs.items()}
        self.state = net.state()
        read = {b for layer in net.layers.values() for b in layer.bottoms}
        net.forward(**self.inputs)
        self.weights = {
            name: self.random.standard_normal(blob.data.shape)
            for name, blob in net.blobs.items()
            if name not in read and blob.diff is not None and not self._is_loss(name)
        }
        self.value()
        net.backward(**self.weights)
        self.targets = {
            p.name: (p.data, p.diff.copy()) for p in net.params.values() if p.trainable
        }
        for layer in net.layers.values():
            blob = net.blobs[layer.tops[0]]
            if isinstance(layer, Input) and self._differentiable(blob.name):
                array = self.inputs[layer.name].reshape(blob.data.shape)
                self.inputs[layer.name] = array
                self.targets[f"input {layer.name}"] = (array, blob.diff.copy())

    def _is_loss(self, blob: str) -> bool:
        return any(blob in layer.tops and layer.is_loss for layer in self.net.layers.values())

    def _differentiable(self, blob: str) -> bool:
        """Whether any layer that reads this input claims a gradient for it."""
        return any(
            b == blob and layer.differentiable(i)
            for layer in self.net.layers.values() for i, b in enumerate(layer.bottoms)
        )

    def value(self) -> float:
        """The function that is differentiated, at the present values of all arrays."""
        self.net.set_state(self.state)
        total = self.net.forward(**self.inputs)
        for name, weight in self.weights.items():
            total += float((weight * self.net.blobs[name].data).sum())
        return total

    def array(
        self, name: str, array: np.ndarray, diff: np.ndarray, directions: int, elements: int
    ) -> None:
        """Compares the derivative of one array along random directions and single elements."""
        self.report.errors[name] = 0.0
        for _ in range(directions):
            direction = self.random.standard_normal(array.shape)
            # A step of fixed length, however large the array, stays clear of most kinks.
            direction /= max(1.0, float(np.linalg.norm(direction)))
            self.compare(f"{name} along a random direction", name, array, diff, direction)
        places = self.random.permutation(array.size)[:elements]
        for flat in sorted(places):
            place = np.unravel_index(flat, array.shape)
            direction = np.zeros(array.shape)
            direction[place] = 1.0
            label = f"{name}[{', '.join(map(str, place))}]"
            self.compare(label, name, array, diff, direction)

    def compare(
        self, label: str, name: str, array: np.ndarray, diff: np.ndarray, direction: np.ndarray
    ) -> None:
        """One derivative, by the backward pass and by differences."""
        analytic = float((diff * direction).sum())
        numeric = self.difference(array, direction)
        if numeric is None:
            self.report.kinks += 1
            return
        error = abs(analytic - numeric) / max(1.0, abs(analytic), abs(numeric))
        self.report.checked += 1
        self.report.errors[name] = max(self.report.errors[name], error)
        if not error <= self.tolerance:
            self.report.failures.append(
                f"{label}: backward says {analytic:.9g}, differences say {numeric:.9g} "
                f"(relative error {error:.1e}, allowed {self.tolerance:.0e})"
            )

    def difference(self, array: np.ndarray, direction: np.ndarray) -> float | None:
        """The derivative along a direction, or None at a kink."""
        kept = array.copy()

        def at(distance: float) -> float:
            array[...] = kept + distance * direction
            return self.value()

        return settled_difference(at, lambda: array.__setitem__(..., kept))


def settled_difference(
    at: Callable[[float], float], restore: Callable[[], None]
) -> float | None:
    """d at(t) / dt at t = 0 by central differences at two step lengths, extrapolated.

    Smaller steps are tried until the quotients from left and right settle on one number; None if
    they never do, which means a kink (or a function that is not one).
    """
    try:
        middle = at(0.0)
        step = STEP
        for _ in range(3):
            right, left = at(step), at(-step)
            near_right, near_left = at(step / 2), at(-step / 2)
            coarse, fine = (right - left) / (2 * step), (near_right - near_left) / step
            scale = max(1.0, abs(coarse), abs(fine))
            # At a kink the two one-sided slopes stay apart, however small the step.
            curvature = abs(right - 2 * middle + left) / step
            near_curvature = abs(near_right - 2 * middle + near_left) / (step / 2)
            smooth = near_curvature <= max(0.75 * curvature, SETTLED * scale)
            if abs(coarse - fine) <= SETTLED * scale and smooth:
                return (4 * fine - coarse) / 3
            step /= 10
        return None
    finally:
        restore()
