"""Activity: the units of a net that are never active, and biases to start with none of them.

A rectified linear unit whose input is negative for every example passes nothing on and gets no
gradient: training cannot revive it, and the net is smaller than it looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from layerkit.data.arrays import some_rows
from layerkit.errors import NetError, brief
from layerkit.layer import Layer
from layerkit.layers import ELU, Dense, LeakyReLU, ReLU
from layerkit.net import Net
from layerkit.passes.feeding import examples
from layerkit.settings import fitting

RECTIFIERS = (ReLU, LeakyReLU, ELU)


@dataclass(frozen=True)
class Inactive:
    """Units of each layer with a rectifier that are never above zero; print it.

    Attributes:
        examples: number of examples looked at.
        units: name of each layer with a ReLU, LeakyReLU or ELU -> bool (units,), true for a unit
            that is never above zero.  A unit of a layer of pictures is a channel.
    """

    examples: int
    units: dict[str, np.ndarray]

    @property
    def counts(self) -> dict[str, int]:
        """The number of units never above zero, by name of their layer."""
        return {name: int(never.sum()) for name, never in self.units.items()}

    def __str__(self) -> str:
        if not self.units:
            return "no layer has rectified units"
        parts = [
            f"{count} of {len(self.units[name])} in {name}"
            for name, count in self.counts.items()
            if count
        ]
        which = ", ".join(parts) if parts else "none"
        seen = f"{self.examples} example" + "s" * (self.examples != 1)
        return f"units never active on {seen}: {which}"


@fitting(NetError)
def find_inactive(net: Net, **given: Any) -> Inactive:
    """Find the rectified units that are not above zero for a single example.

    Args:
        net: any net; layers that the given blobs do not lead to are left out.
        given: arrays as for `Net.infer`, such as x=images, of shape (rows, ...).

    Raises:
        NetError: nothing is given, or it does not fit the net.
    """
    if not isinstance(net, Net):
        raise NetError(f"find_inactive: expected a net to look at, got {brief(net)}")
    given, total = examples(net, "find_inactive", given)
    names = {layer.name: layer.tops[0] for layer in _after(net, given) if _rectifies(layer)}
    never: dict[str, np.ndarray] = {}
    size = net.run.batch_size
    for start in range(0, total if names else 0, size):
        piece = some_rows(given, start, min(start + size, total))
        for name, y in zip(names, net.infer(list(names.values()), **piece), strict=True):
            by_unit = y.reshape(*y.shape[:2], -1) if y.ndim == 4 else y.reshape(len(y), -1, 1)
            now = (by_unit <= 0).all(axis=(0, 2))
            never[name] = never[name] & now if name in never else now
    return Inactive(total, never)


@fitting(NetError)
def centre_biases(net: Net, **given: Any) -> None:
    """Set the biases of rectified Dense layers so that each unit is active for some examples.

    The mean of each unit's input over the examples becomes zero, layer by layer.  With positive
    inputs, such as pictures, that input would otherwise have nearly one sign for all of them.
    Call this before training.  A layer without biases stays as it is.

    Args:
        net: any net; its parameters change.
        given: arrays as for `Net.infer`, such as x=images, of shape (rows, ...).

    Raises:
        NetError: nothing is given, or it does not fit the net.
    """
    if not isinstance(net, Net):
        raise NetError(f"centre_biases: expected a net to centre, got {brief(net)}")
    given, _ = examples(net, "centre_biases", given)
    for layer in _after(net, given):
        if isinstance(layer, Dense) and layer.b is not None and _rectifies(layer):
            x = np.asarray(net.infer(layer.bottoms[0], **given), "float64")
            w, b = (
                net.backend.to_host(layer.matrix(layer.w.data)),
                net.backend.to_host(layer.b.data),
            )
            with np.errstate(all="ignore"):  # what is not finite is named below
                level = x.reshape(len(x), -1).mean(axis=0) @ w + b
                biases = (b - level).astype(net.dtype)
            if not (np.isfinite(level).all() and np.isfinite(biases).all()):
                raise NetError(
                    f"centre_biases: what layer {layer.name!r} rectifies is not finite in the mean "
                    "over the examples; leave out examples with infinities or not-a-numbers"
                )
            layer.b.data[...] = net.backend.asarray(biases)


def _rectifies(layer: Layer) -> bool:
    return isinstance(layer, RECTIFIERS) or isinstance(getattr(layer, "neuron", None), RECTIFIERS)


def _after(net: Net, given: dict[str, Any]) -> list[Layer]:
    """Return the layers that can be run from what is given, and are not themselves given."""
    known, found = set(given), []
    for layer in net.layers.values():
        if layer.bottoms and known.issuperset(layer.bottoms) and known.isdisjoint(layer.tops):
            known.update(layer.tops)
            found.append(layer)
    return found
