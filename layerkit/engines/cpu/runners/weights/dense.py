"""Dense layers, and their updates in the same pass; see dense.h."""

from __future__ import annotations

from typing import Any

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.base import Update
from layerkit.engines.cpu.runners.base import NOTHING, KernelRunner, flat_rows, straight
from layerkit.layers.elementwise.neuron import Neuron

LARGE = 1 << 16  # weights of which it is worth while to keep the gradient out of memory


class Dense(KernelRunner):
    """Products with bias, activation and a solver's update, piece by piece."""

    def __init__(self, layer: Any, engine: Any):
        super().__init__(layer, engine)
        self.recordable = not isinstance(straight(layer.neuron)[1], Neuron)
        self.zeros = NOTHING if layer.b else layer.backend.zeros((layer.units,), layer.run.dtype)
        self.at_once = layer.w.size >= LARGE and layer.parameters.keys() <= {"weight", "bias"}

    @property
    def backward_bottoms(self) -> Any:
        """Return `run_bottoms` where there are many weights."""
        return self.run_bottoms if self.at_once else None

    @property
    def gradient_bound(self) -> Any:
        """Return `bound_gradient` where there are many weights."""
        return self.bound_gradient if self.at_once else None

    @property
    def backward_update(self) -> Any:
        """Return `run_update` where there are many weights."""
        return self.run_update if self.at_once else None

    def run_forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x W + b)."""
        layer, y = self.layer, tops[0].data
        slope, neuron = straight(layer.neuron)
        self.kernels.dense_forward(
            flat_rows(bottoms[0].data), layer.matrix(layer.w.data), self._bias(), slope, y
        )
        if neuron:
            neuron.enter(layer.xp, y, layer.inner)

    def run_backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all gradients."""
        w, b = self.layer.w, self.layer.b
        self._differentiate(tops)
        self._run(
            bottoms,
            tops,
            bottoms[0].diff,
            self.layer.matrix(w.diff) if w.trainable else NOTHING,
            b.diff if b and b.trainable else NOTHING,
            0,
            [NOTHING] * 4,
            NOTHING,
        )

    def run_bottoms(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx alone."""
        self._differentiate(tops)
        if bottoms[0].diff is not None:
            self._run(bottoms, tops, bottoms[0].diff, NOTHING, NOTHING, 0, [NOTHING] * 4, NOTHING)

    def settings(self) -> tuple[Any, ...]:
        """Return the activation, and which parameters get a gradient."""
        layer = self.layer
        return *straight(layer.neuron), layer.w.trainable, bool(layer.b and layer.b.trainable)

    def bound_gradient(self, bottoms: list[Blob], tops: list[Blob], bound: Array) -> None:
        """Fill `bound`: an element of dW is a sum over n examples of x d, one of db that of d."""
        slope, neuron = straight(self.layer.neuron)
        d = self.layer.before.data if neuron else tops[0].diff
        self.kernels.gradient_bound(bottoms[0].data, d, slope, bound)

    def run_update(self, bottoms: list[Blob], tops: list[Blob], update: Update) -> None:
        """Change W and b block by block; db is filled, and dW never reaches memory."""
        w, b = self.layer.w, self.layer.b
        histories = [*update.histories[w.name], *(update.histories[b.name] if b else [NOTHING] * 2)]
        db = b.diff if b else NOTHING
        self._run(bottoms, tops, None, NOTHING, db, update.kind, histories, update.constants)

    def _bias(self) -> Array:
        """Return b, or zeros where the layer has none."""
        return self.layer.b.data if self.layer.b else self.zeros

    def _differentiate(self, tops: list[Blob]) -> None:
        """Compute d loss / d (x W + b) where the activation is not part of the kernel."""
        neuron = straight(self.layer.neuron)[1]
        if neuron:
            layer, top = self.layer, tops[0]
            neuron.leave(layer.xp, top.data, layer.inner, top.diff, layer.before.data)

    def _run(
        self,
        bottoms: list[Blob],
        tops: list[Blob],
        dx: Array | None,
        dw: Array,
        db: Array,
        kind: int,
        histories: list[Array],
        constants: Array,
    ) -> None:
        layer, y, d = self.layer, tops[0].data, tops[0].diff
        slope, neuron = straight(layer.neuron)
        before = layer.before.data if layer.neuron else d
        self.kernels.dense_backward(
            flat_rows(bottoms[0].data),
            y,
            before if neuron else d,
            slope,
            before,
            layer.matrix(layer.w.data),
            self._bias(),
            dw,
            db,
            NOTHING if dx is None else flat_rows(dx),
            kind,
            *histories,
            constants,
        )
