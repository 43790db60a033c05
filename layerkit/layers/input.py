"""Input: a blob whose values the caller gives to every pass."""

from __future__ import annotations

from typing import Annotated

from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.settings import Sizes, Tops

# What stands beside the inputs in a call: `infer(..., sample=)`, `profile(iterations=)`, and the
# settings of `check_gradients`.
RESERVED = ("sample", "iterations", "tolerance", "directions", "elements", "seed")


class Input(Layer):
    """Values given by the caller: `net.forward(x=array)` for `Input("x", shape=(4761,))`.

    They go by the name of the blob, wherever they are given: `tops` if there is one.  A few names
    that calls use otherwise (`RESERVED`) are refused.

    Args:
        shape: shape of one example, without the batch axis; () for one number per example.
    """

    recordable = True
    decided = (*Layer.decided, "shape")

    def __init__(self, name: str, *, shape: Annotated[Shape, Sizes()], tops: Tops | None = None):
        super().__init__(name, [], tops)
        for top in self.tops:
            if top in RESERVED:
                self.fail(
                    f"inputs are given by name, and {top}= is a setting of another kind in some "
                    f"calls; choose another name than {', '.join(RESERVED)}"
                )
        self.shape = shape

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """The shape given; no parameters."""
        return [self.shape]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The net has put the values in place."""

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """The diff of the input stays where the caller can read it."""
