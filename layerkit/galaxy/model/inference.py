"""What an image says of z, found for that very image rather than read off by g.

g is trained to be right on average, in one pass, and on an image it has not seen it is a few
standard deviations of the posterior off.  Like the fits of other models to an image, these start
from there and follow the gradient; the model's parameters stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
from tqdm import tqdm

from layerkit.blob import Blob
from layerkit.errors import NetError, brief
from layerkit.galaxy.model.model import GalaxyModel, Posterior
from layerkit.layer import Layer, Shape
from layerkit.layers import SquareLoss
from layerkit.net import Net
from layerkit.settings import Sizes, Tops, Whole, accept, fitting
from layerkit.solvers import Adam, rates
from layerkit.wiring import sort_layers

BATCH = 256
RATE = 0.3  # of Adam at the start, in the units of a Free layer
CLOSEST_UNIT = 0.15  # of z, whose prior has a standard deviation of 1


class Free(Layer):
    """Learned numbers of each example in the place of computed ones: start + unit * values."""

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
        """Begin anew from other numbers, (n, *shape)."""
        self.values.data.fill(0)
        for buffer, value in ((self.start, start), (self.unit, unit)):
            buffer.resize(len(start))
            buffer.data[...] = self.backend.asarray(value, self.run.dtype)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute start + unit * values."""
        top = tops[0].data
        top[...] = self.start.data + self.unit.data * self.values.data[: len(top)]

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute d values = unit * d top, 0 for rows that a batch does not have."""
        diff = tops[0].diff
        self.values.diff.fill(0)
        self.xp.multiply(self.unit.data, diff, out=self.values.diff[: len(diff)])


@fitting(NetError)
@np.errstate(under="ignore")
def refine(
    model: GalaxyModel,
    images: np.ndarray,
    steps: int = 100,
    progress: bool = False,
    tempered: bool = True,
) -> Posterior:
    """Move q(z | x) of each image from g(x) to where the evidence lower bound is higher.

    Any q gives a lower bound on log p(x), so that the bound with this q is one too, and tighter.
    Where there are several stochastic layers, those below z keep their q.

    Args:
        model: the model; nothing in it changes.
        images: (n, ...).
        steps: of Adam, with one sample of z in each; 0 leaves g(x) as it is.
        progress: shows a bar.
        tempered: gives standard deviations at the model's temperature, the default; the q that the
            bound is highest with has them without (see GalaxyModel.temper).

    Source: Kim et al., "Semi-amortized variational autoencoders" (2018), section 3, in testing.
    """
    steps = _steps(model, steps, "refine")
    start = model.encode(images, tempered=False)
    if not steps:
        return model.temper(start) if tempered else start
    free = {model.z_mean: start.mean, model.z_log_variance: 2 * np.log(start.sd)}
    units = {model.z_mean: start.sd, model.z_log_variance: np.ones_like(start.sd)}
    losses = [layer for layer in _layers(model) if layer.tops[0] in model.terms]
    found = _climb(model, images, losses, free, units, steps, True, "refining" if progress else "")
    q = Posterior(found[model.z_mean], np.exp(0.5 * found[model.z_log_variance]))
    return model.temper(q) if tempered else q


@fitting(NetError)
@np.errstate(under="ignore")
def closest(
    model: GalaxyModel, images: np.ndarray, steps: int = 200, progress: bool = False
) -> np.ndarray:
    """The z, (n, latent), whose picture f_mu(z) has the least squared error to each image.

    It is to the model what a least-squares fit is to a profile, and a projection to principal
    components: the nearest picture there is, however improbable.

    Args:
        model, images, progress: as for `refine`.
        steps: of Adam.
    """
    steps = _steps(model, steps, "closest")
    start = model.encode(images).mean
    loss = SquareLoss("squared_error", model.x_mean, model.x)
    units = {model.z: np.full_like(start, CLOSEST_UNIT)}
    return _climb(
        model,
        images,
        [loss],
        {model.z: start},
        units,
        steps,
        False,
        "closest pictures" if progress else "",
    )[model.z]


def _steps(model: GalaxyModel, steps: int, what: str) -> int:
    """Return the number of steps, once it and the model are known to be valid."""
    if not isinstance(model, GalaxyModel):
        raise NetError(f"{what}: expected a GalaxyModel, got {brief(model)}")
    return accept(Whole(), steps, "steps", what)


def _climb(
    model: GalaxyModel,
    images: np.ndarray,
    losses: Sequence[Layer],
    free: dict[str, np.ndarray],
    units: dict[str, np.ndarray],
    steps: int,
    sample: bool,
    name: str,
) -> dict[str, np.ndarray]:
    """Blobs, free to move from where they are given, at which the losses' sum is least."""
    made = [Free(f"free {blob}", shape=model.net.blobs[blob].shape, tops=blob) for blob in free]
    net = Net(
        [*made, *_upstream(_layers(model), losses, free)],
        BATCH,
        model.net.backend.name,
        model.net.dtype.name,
        model.net.run.seed,
        "test",
        gradients="parameters",
    )
    for layer in losses:
        net.layers[layer.name].weight = 1.0
    with model.net.lock:  # another thread may train it
        for key, p in net.params.items():
            if key in model.net.params:
                p.data[...] = model.net.params[key].data
    net.freeze(*(key for key in net.params if key in model.net.params))
    # Not the default memory of squares, of a thousand steps, for a hundred.  One solver for all
    # batches, as a GPU records its step once.
    solver = Adam(net, rates.Cosine(RATE, steps), beta2=0.99)
    net.run.sample = sample
    found: dict[str, list[np.ndarray]] = {blob: [] for blob in free}
    with tqdm(total=len(images), desc=name, unit="image", disable=not name) as bar:
        for first in range(0, len(images), BATCH):
            batch = images[first : first + BATCH]
            for layer in net.layers.values():
                if isinstance(layer, Free):
                    start, unit = free[layer.tops[0]], units[layer.tops[0]]
                    layer.place(start[first : first + BATCH], unit[first : first + BATCH])
            solver.iteration = 0
            for history in solver.history.values():
                history.fill(0)
            if steps:
                solver.steps(steps, **{model.x: batch})
            net.forward(**{model.x: batch})
            for blob in free:
                found[blob].append(net.backend.to_host(net.blobs[blob].data).copy())
            bar.update(len(batch))
    return {blob: np.concatenate(parts) for blob, parts in found.items()}


def _layers(model: GalaxyModel) -> list[Layer]:
    return sort_layers(model.net.descriptions)


def _upstream(layers: list[Layer], losses: Iterable[Layer], given: Iterable[str]) -> list[Layer]:
    """The losses and what they are made from, down to what is given."""
    needed = list(losses)
    wanted = {b for layer in needed for b in layer.bottoms} - set(given)
    for layer in reversed(layers):
        if wanted & set(layer.tops) and layer not in needed:
            needed.append(layer)
            wanted |= set(layer.bottoms) - set(given)
    return needed
