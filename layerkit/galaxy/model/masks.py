"""Masks: pixels without data, which count for nothing in the likelihood of an image.

An image is then a masked array.  Its likelihood reads a second blob beside it, with 1 for pixels
that count and 0 for others.  The encoder sees all pixels, those under the mask as they are filled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from layerkit.data.arrays import data_of, hidden
from layerkit.layer import Layer, Shape
from layerkit.layers import Input, Reshape, Slice
from layerkit.layers.likelihoods.reconstruction import Reconstruction
from layerkit.layers.sources.data import Data
from layerkit.net import Net
from layerkit.wiring.wires import Layers, flattened

BESIDE = "_mask"  # what the name of the mask's blob ends in, after that of the image


def with_mask(layers: Layers, shape: Shape) -> list[Layer]:
    """Return the layers of a galaxy net, whose likelihood then reads a mask, another input.

    Args:
        layers: of the net.
        shape: of an image; that of the mask, whose blob is called as the image's, and "_mask".
    """
    found: list[Layer] = []
    for layer in flattened(layers):
        if isinstance(layer, Reconstruction):
            image = layer.bottoms[0]
            layer = layer.with_mask(image + BESIDE)
            found.append(Input(image + BESIDE, shape=shape))
        found.append(layer)
    return found


def with_masked_data(layers: Layers, source: Data) -> list[Layer]:
    """Return the layers of a galaxy net, with a data layer in place of its image and of the mask.

    Args:
        layers: with an Input layer for the image.
        source: its one top holds image and mask, (2, side, side), which so turn together; see
            `beside_mask`.
    """
    layers = flattened(layers)
    (image,) = (x.bottoms[0] for x in layers if isinstance(x, Reconstruction))
    (shape,) = (x.shape for x in layers if isinstance(x, Input) and image in x.tops)
    blobs, (both,) = (image, image + BESIDE), source.tops
    pieces = [f"{both}_{blob}" for blob in blobs]
    return [
        source,
        Slice(f"{both}_pieces", both, tops=pieces),
        *(Reshape(blob, piece, shape=shape) for blob, piece in zip(blobs, pieces, strict=True)),
        *(x for x in with_mask(layers, shape) if not (isinstance(x, Input) and x.tops[0] in blobs)),
    ]


class Scorers:
    """The nets by which a model scores images: its own, and one that takes masks, made when needed.

    Args:
        net: the model's own.
        image: the blob of the image.
    """

    def __init__(self, net: Net, image: str):
        self.net, self.image = net, image
        self._masked: Net | None = None

    def blobs(self, images: Any) -> dict[str, Any]:
        """Return the images by the name of their blob and, if any is masked, their weights."""
        weights = weights_of(images)
        beside = {} if weights is None else {self.image + BESIDE: weights}
        return {self.image: data_of(images), **beside}

    @contextmanager
    def of(self, given: Mapping[str, Any]) -> Iterator[Net]:
        """Make a block in which a net takes these blobs, and draws what the model's own would."""
        net = self.net
        if self.image + BESIDE not in given:
            yield net
            return
        if self._masked is None:
            layers = with_mask(net.descriptions, net.blobs[self.image].shape)
            self._masked = Net(
                layers, net.run.batch_size, net.backend.name, net.dtype.name, net.run.seed, "test",
                share=net, kernels=net.kernels, tf32=net.tf32,
            )  # fmt: skip
        with self._masked.run.following(net.run):
            yield self._masked


def beside_mask(images: np.ndarray) -> np.ndarray:
    """Return images (n, side, side), each with a picture of 1 where pixels count and 0 elsewhere.

    Returns:
        float32 (n, 2, side, side).
    """
    found = np.ones((len(images), 2, *images.shape[1:]), np.float32)
    found[:, 0] = data_of(images)
    if (weights := weights_of(images)) is not None:
        found[:, 1] = weights
    return found


def weights_of(images: Any) -> np.ndarray | None:
    """Return 1 for pixels that count and 0 for others, of the images' shape; None if all count."""
    mask = hidden(images)
    return None if mask is None else np.where(mask, np.float32(0), np.float32(1))
