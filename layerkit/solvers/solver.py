"""Solver: one training step, and what all solvers have in common."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from layerkit.backends.base import Array
from layerkit.errors import NetError, NotFiniteError
from layerkit.net import Net
from layerkit.solvers.rates import RatePolicy, get


class Solver:
    """Minimises a net's objective; a subclass defines `update`.

    Args:
        net: the net to train; it needs at least one loss layer.
        rate: learning rate, a number or a policy from layerkit.rates.
        clip: largest allowed Euclidean norm of the whole gradient; a larger one is scaled down to
            it.  None, the default, does not clip.

    Attributes:
        iteration: how many steps have been made.
        history: name -> flat array beside the net's arena, such as Adam's moments.
    """

    histories: ClassVar[tuple[str, ...]] = ()

    def __init__(self, net: Net, rate: float | RatePolicy, clip: float | None = None):
        if not any(layer.is_loss for layer in net.layers.values()):
            raise NetError("this net has no loss layer, so there is nothing to minimise; add one")
        if net.gradients == "none":
            raise NetError("this net has no gradients (phase 'test'); train one of phase 'train'")
        if clip is not None and not clip > 0:
            raise NetError(f"clip must be positive or None, got {clip}")
        self.net = net
        self.rate = get(rate)
        self.clip = clip
        self.iteration = 0
        size = net.arena.data.shape
        self.history = {name: net.backend.zeros(size, net.dtype) for name in self.histories}

    def step(self, **inputs: Any) -> float:
        """Forward, backward, update; returns the objective before the update.

        Args:
            inputs: one array for each Input layer of the net; see Net.forward.

        Raises:
            NotFiniteError: the objective is infinite or not a number; no parameter has changed.
        """
        loss = self.net.forward(**inputs)
        if not math.isfinite(loss):
            where = self.net.first_non_finite() or "the sum of the losses"
            raise NotFiniteError(
                f"the loss is {loss} at iteration {self.iteration}: first in {where}; lower the "
                "rate, clip the gradient, or look at the data"
            )
        self.net.backward()
        rate = self.rate(self.iteration)
        arena = self.net.arena
        spans = arena.trainable_spans()
        if self.clip is not None:
            self._clip([arena.diff[span] for span in spans])
        self.iteration += 1
        for span in spans:
            history = {name: array[span] for name, array in self.history.items()}
            self.update(arena.data[span], arena.diff[span], rate, **history)
        return loss

    def _clip(self, diffs: list[Array]) -> None:
        norm = math.sqrt(sum(float(self.net.xp.dot(d, d)) for d in diffs))
        if self.clip is not None and norm > self.clip:
            for diff in diffs:
                diff *= self.clip / norm

    def update(self, w: Array, g: Array, rate: float, **history: Array) -> None:
        """Changes the parameters `w` given their gradient `g`; all arrays are flat.

        `self.iteration` counts this step, from 1.
        """
        raise NotImplementedError
