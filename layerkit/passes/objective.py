"""Objective: the weighted means of the losses of a net, and its terms of regularisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from layerkit.layer import Layer
from layerkit.wiring.part import Part

if TYPE_CHECKING:
    from layerkit.net import Net


class Objective(Part):
    """The number that a net's solver makes small, and where it comes from.

    Args:
        net: the net; its blobs stay as they are.
    """

    def __init__(self, net: Net):
        super().__init__(net)
        count = len(net.reported)
        self._means = net.backend.zeros((count,), "float64")
        self._each = [self._means[i : i + 1] for i in range(count)]
        self._shares = np.zeros((count, 1))

    def measure(self) -> None:
        """Take the mean of each loss and metric layer's top; calls of the engine, and no others."""
        net = self.net
        for layer, mean in zip(net.reported, self._each, strict=True):
            net.engine.mean(net.blobs[layer.tops[0]].data, mean)

    def value(self) -> float:
        """Put what was measured into the net's losses and metrics; return the objective."""
        net, total = self.net, 0.0
        if net.reported:
            for layer, mean in zip(net.reported, net.backend.to_host(self._means), strict=True):
                if layer.is_loss:
                    net.losses[layer.name] = float(mean)
                    total += layer.weight * float(mean)
                else:
                    net.metrics[layer.name] = float(mean)
        net.regularisation = 0.0
        for p in net.params.values():
            l1, l2 = p.penalty
            if l1:
                net.regularisation += l1 * float(net.xp.abs(p.data).sum(dtype="float64"))
            if l2:
                net.regularisation += l2 / 2 * float(net.xp.square(p.data).sum(dtype="float64"))
        return total + net.regularisation

    def shares(self, losses: list[Layer]) -> dict[str, np.ndarray]:
        """Return the derivative by a value of each of these layers' tops, weight / rows, by name.

        Each is an array of one number, and the same one from call to call, which recorded calls
        read.
        """
        shares = self._shares[: len(losses)]
        shares[:, 0] = [layer.weight / self.net.rows for layer in losses]
        return {layer.name: share for layer, share in zip(losses, shares, strict=True)}

    def add_regularisation(self) -> None:
        """Add the derivatives of the L1 and L2 terms to the diffs of the parameters."""
        for p in self.net.params.values():
            l1, l2 = p.penalty
            if p.trainable and l1:
                p.diff += l1 * self.net.xp.sign(p.data)
            if p.trainable and l2:
                p.diff += l2 * p.data
