"""Refinement: z found for each image by gradient, starting from the encoder's answer.

The encoder is trained to be right on average, in one pass, and on an image it has not seen it is a
few standard deviations of the posterior off.  Like the fits of other models to an image, these
follow the gradient; the model's parameters do not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import numpy as np

from layerkit.blob import Blob
from layerkit.data.arrays import hidden
from layerkit.errors import NetError
from layerkit.galaxy.model.checked import checked_model
from layerkit.galaxy.model.masks import BESIDE, Scorers, with_mask
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.posterior.posterior import Posterior, check_images
from layerkit.galaxy.model.roles import Roles
from layerkit.layer import Layer, Shape
from layerkit.layers import Multiply, SquareLoss
from layerkit.net import Net
from layerkit.settings import Sizes, Tops, Truth, Whole, accept, fitting
from layerkit.solvers import Adam, rates
from layerkit.system.bars import bar
from layerkit.wiring.wires import sort_layers

BATCH = 256
REFINE_STEPS = 100
CLOSEST_STEPS = 200
FIRST_RATE = 0.3  # of Adam, in the units of a FreeBlob
SECOND_MOMENT_DECAY = 0.99  # remembers 100 steps, as there are few; Adam's default, 1000
CLOSEST_UNIT = 0.15  # of z, whose prior has a standard deviation of 1


class FreeBlob(Layer):
    """A blob with learned values for each example instead of computed ones: start + unit * values.

    Args:
        name: of the layer.
        shape: of the blob, without the batch.
        tops: the name of the blob.
    """

    recordable = True

    def __init__(self, name: str, *, shape: Annotated[Shape, Sizes()], tops: Tops | None = None):
        super().__init__(name, [], tops)
        self.shape = shape

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declare a parameter of the size of a batch."""
        self.values = self.parameter("values", (self.run.batch_size, *self.shape), 0.0)
        self.start, self.unit = self.buffer(self.shape), self.buffer(self.shape)
        return [self.shape]

    def place(self, start: np.ndarray, unit: np.ndarray) -> None:
        """Reset the blob to `start`, to be changed in steps of `unit`, both (n, *shape)."""
        self.values.data.fill(0)
        for buffer, value in ((self.start, start), (self.unit, unit)):
            buffer.resize(len(start))
            buffer.data[...] = self.backend.asarray(value, self.run.dtype)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute start + unit * values."""
        top = tops[0].data
        top[...] = self.start.data + self.unit.data * self.values.data[: len(top)]

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute d values = unit * d top, 0 for rows beyond those of the batch."""
        diff = tops[0].diff
        self.values.diff.fill(0)
        self.xp.multiply(self.unit.data, diff, out=self.values.diff[: len(diff)])


@fitting(NetError)
@np.errstate(under="ignore")
def refine(
    model: GalaxyModel,
    images: np.ndarray,
    steps: int = REFINE_STEPS,
    progress: bool = False,
    tempered: bool = True,
) -> Posterior:
    """Move q(z | x) of each image from g(x) to a higher evidence lower bound.

    Any q gives a lower bound on log p(x), so the bound with this q is one too, and tighter.  With
    several stochastic layers, those below z keep their q.

    Args:
        model: the model; it does not change.
        images: (n, ...), prepared as for training.
        steps: of Adam, each with one sample of z; 0 returns g(x).
        progress: shows a bar.
        tempered: returns standard deviations at the model's temperature, the default, rather than
            those that maximise the bound (see GalaxyModel.temper).

    Raises:
        NetError: no GalaxyModel, or a negative number of steps.
        DataError: images that the model does not take.

    Source: Kim et al., "Semi-amortized variational autoencoders" (2018), section 3, in testing.
    """
    steps = _check(model, steps, "refine")
    images = check_images(images, model.pixels)
    tempered = accept(Truth(), tempered, "tempered", "refine")
    start = model.encode(images, tempered=False)
    if not steps:
        return model.temper(start) if tempered else start
    mean, log_variance = model.roles.z_mean, model.roles.z_log_variance
    free = {mean: start.mean, log_variance: 2 * np.log(start.sd)}
    units = {mean: start.sd, log_variance: np.ones_like(start.sd)}
    layers = _layers(model, images)
    losses = [layer for layer in layers if layer.tops[0] in model.roles.bound_terms]
    found = _minimise(
        model, images, losses, free, units, steps, True, "refining" if progress else ""
    )
    refined = Posterior(found[mean], np.exp(0.5 * found[log_variance]))
    return model.temper(refined) if tempered else refined


@fitting(NetError)
@np.errstate(under="ignore")
def closest(
    model: GalaxyModel, images: np.ndarray, steps: int = CLOSEST_STEPS, progress: bool = False
) -> np.ndarray:
    """Find the z, (n, latent), whose f_mu(z) has the least squared error to each image.

    It corresponds to the least-squares fit of a profile and to the projection onto principal
    components: the nearest image that the model can make, however improbable.

    Args:
        model: the model; it does not change.
        images: (n, ...), prepared as for training.
        steps: of Adam.
        progress: shows a bar.

    Raises:
        NetError: no GalaxyModel, or a negative number of steps.
        DataError: images that the model does not take.
    """
    steps = _check(model, steps, "closest")
    images = check_images(images, model.pixels)
    z = model.roles.z
    start = model.encode(images).mean
    losses = _square_loss(model.roles, hidden(images) is not None)
    units = np.full_like(start, CLOSEST_UNIT)
    name = "closest images" if progress else ""
    return _minimise(model, images, losses, {z: start}, {z: units}, steps, False, name)[z]


def _check(model: GalaxyModel, steps: int, function: str) -> int:
    """Return the number of steps, once it and the model are known to be valid."""
    checked_model(model, function)
    return accept(Whole(), steps, "steps", function)


def _minimise(
    model: GalaxyModel,
    images: np.ndarray,
    losses: Sequence[Layer],
    free: dict[str, np.ndarray],
    units: dict[str, np.ndarray],
    steps: int,
    sample: bool,
    name: str,
) -> dict[str, np.ndarray]:
    """Minimise the sum of losses over the values of free blobs.

    Args:
        model: the model.
        images: (n, ...).
        losses: layers.
        free: start of each free blob, (n, ...), by name.
        units: the steps of each in which it is changed.
        steps: of Adam.
        sample: draws the latent layers that are not free; without it they are at their means.
        name: of the progress bar; none is shown if it is empty.

    Returns:
        The values of the free blobs, by name.
    """
    inputs = Scorers(model.net, model.roles.x).blobs(images)
    made = [FreeBlob(f"free {blob}", shape=model.net.blobs[blob].shape, tops=blob) for blob in free]
    net = Net(
        [*made, *_upstream(_layers(model, images), losses, free)],
        BATCH,
        model.net.backend.name,
        model.net.dtype.name,
        model.net.run.seed,
        "test",
        gradients="parameters",
    )
    for layer in losses:
        if layer.is_loss:
            net.layers[layer.name].weight = 1.0
    with model.net.lock:  # another thread may train it
        for key, p in net.params.items():
            if key in model.net.params:
                p.data[...] = model.net.params[key].data
    net.freeze(*(key for key in net.params if key in model.net.params))
    # One solver for all batches, as a GPU records its step once.
    solver = Adam(net, rates.Cosine(FIRST_RATE, steps), beta2=SECOND_MOMENT_DECAY)
    net.run.sample = sample
    # Each batch before, of a larger set that these images are a stretch of, took so many passes.
    net.run.passes = model.net.run.first_row // BATCH * (steps + 1)
    found: dict[str, list[np.ndarray]] = {blob: [] for blob in free}
    with bar(len(images), name, "images", shown=bool(name)) as moving:
        for first in range(0, len(images), BATCH):
            batch = {name: array[first : first + BATCH] for name, array in inputs.items()}
            for layer in net.layers.values():
                if isinstance(layer, FreeBlob):
                    start, unit = free[layer.tops[0]], units[layer.tops[0]]
                    layer.place(start[first : first + BATCH], unit[first : first + BATCH])
            solver.iteration = 0
            for history in solver.history.values():
                history.fill(0)
            if steps:
                solver.steps(steps, **batch)
            net.forward(**batch)
            for blob in free:
                found[blob].append(net.backend.to_host(net.blobs[blob].data).copy())
            moving.update(len(batch[model.roles.x]))
    return {blob: np.concatenate(parts) for blob, parts in found.items()}


def _layers(model: GalaxyModel, images: Any) -> list[Layer]:
    """Return the layers of a model's net, with a mask if any of the images has one."""
    layers, shape = model.net.descriptions, model.net.blobs[model.roles.x].shape
    return sort_layers(layers if hidden(images) is None else with_mask(layers, shape))


def _square_loss(roles: Roles, masked: bool) -> list[Layer]:
    """Return the layers that compute the squared error, over the pixels that count."""
    if not masked:
        return [SquareLoss("squared_error", roles.x_mean, roles.x)]
    seen = {blob: f"{blob}_seen" for blob in (roles.x_mean, roles.x)}
    return [
        *(Multiply(name, blob, roles.x + BESIDE) for blob, name in seen.items()),
        SquareLoss("squared_error", *seen.values()),
    ]


def _upstream(layers: list[Layer], losses: Iterable[Layer], given: Iterable[str]) -> list[Layer]:
    """Return the losses and the layers that they depend on, down to the given blobs."""
    needed = list(losses)
    wanted = {b for layer in needed for b in layer.bottoms} - set(given)
    for layer in reversed(layers):
        if wanted & set(layer.tops) and layer not in needed:
            needed.append(layer)
            wanted |= set(layer.bottoms) - set(given)
    return needed
