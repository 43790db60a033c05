"""Input: a blob whose values the caller gives in every pass."""

from __future__ import annotations

from typing import Annotated

from layerkit.blob import Blob
from layerkit.layer import Layer, Shape
from layerkit.settings import Flag, Sizes, Tops

# Keywords that stand beside the inputs in a call: `infer(..., sample=)`, `profile(iterations=)`,
# and the settings of `check_gradients`.
RESERVED = ("sample", "iterations", "tolerance", "directions", "elements", "seed")


class Input(Layer):
    """Values given by the caller: `net.forward(x=array)` for `Input("x", shape=(4761,))`.

    They are given by the name of the blob, which is `tops` if that is set.  The names in
    `RESERVED`, which calls use otherwise, are refused.

    Shapes: no bottom; top (n, *shape), with n rows given, up to the net's batch size.

    Args:
        shape: shape of one example, without the batch axis; () for one number per example.
        integers: True for labels and ids whose values are kept however large they are: the blob
            holds int64, and has no diff.  Only layers that look something up by its numbers read
            it - SoftmaxLoss, Accuracy, HingeLoss and ContrastiveLoss their labels, Embed and OneHot
            their ids - and Slice, Concat, Reshape and Permute, whose tops then hold integers, too.
            False, the default, makes floats of them, which is exact up to 2^24 (float32) or 2^53
            (float64); an integer beyond is refused.

    Raises:
        NetError: a top with one of these reserved names.

    Source: Caffe's Input layer.
    """

    recordable = True
    decided = (*Layer.decided, "shape", "integers")

    def __init__(
        self,
        name: str,
        *,
        shape: Annotated[Shape, Sizes()],
        integers: Flag = False,
        tops: Tops | None = None,
    ):
        super().__init__(name, [], tops)
        for top in self.tops:
            if top in RESERVED:
                self.fail(
                    f"inputs are given by name, and {top}= is a setting of another kind in some "
                    f"calls; choose another name than {', '.join(RESERVED)}"
                )
        self.shape, self.integers = shape, integers

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Return the shape given; declare no parameters."""
        self.integer_blobs = frozenset(self.tops if self.integers else ())
        return [self.shape]

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: the net has put the values in place."""

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Do nothing: the diff of the input stays for the caller to read."""
