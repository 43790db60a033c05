"""Breaks of a run: learning curves, the parameters with the best bound, and a progress bar."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import SnapshotError
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.layers.likelihoods.reconstruction import Reconstruction


def copy_parameters(source: lk.Net, target: lk.Net) -> None:
    """Copy the parameters of a net to another of the same layers."""
    for name, p in target.params.items():
        p.data[...] = source.params[name].data


class Best:
    """The parameters with the best bound so far, in a file beside the snapshot they came from.

    Args:
        layers: of the net.
        backend: of the net.

    Attributes:
        net: has the parameters.
        bound: that they reach, in nats.
        iteration: after which they were found; 0 if there are none.
        saved: files that hold them.
    """

    def __init__(self, layers: list[lk.Layer], backend: str):
        self.net = lk.Net(layers, 1, backend, phase="test")
        self.bound, self.iteration = -math.inf, 0
        self.saved: set[Path] = set()

    def offer(self, net: lk.Net, bound: float, iteration: int) -> None:
        """Take the parameters of a net if its bound is better."""
        if bound > self.bound:
            copy_parameters(net, self.net)
            self.bound, self.iteration = bound, iteration
            self.saved.clear()

    def save(self, path: Path) -> None:
        """Write them, if there are any that are not there yet."""
        if path not in self.saved and self.iteration:
            extra = {"bound": self.bound, "iteration": self.iteration}
            lk.save(path, self.net, extra=extra)
            self.saved.add(path)

    def load(self, path: Path) -> None:
        """Read what was written, if anything was.

        Raises:
            SnapshotError: the file is none that `save` wrote for this net.
        """
        if path.exists():
            extra = lk.load(path, self.net)
            try:
                self.bound, self.iteration = float(extra["bound"]), int(extra["iteration"])
            except (LookupError, TypeError, ValueError) as error:
                raise SnapshotError(f"{path} lacks what a run keeps in it ({error!r})") from error
            self.saved.add(path)


class Watch(lk.breaks.Break):
    """The bound on the galaxies that training is watched with, and on those of the steps between.

    Args:
        every: iterations from one look to the next.
        model: the model that is trained.
        images: the galaxies.

    Attributes:
        best: is offered the parameters, unless it is None, the default.
        history: the learning curves.
        recent: the loss in each step since the last look.
    """

    place = 20
    everywhere = False

    def __init__(self, every: int, model: GalaxyModel, images: np.ndarray):
        super().__init__(every)
        self.model, self.images = model, images
        self.best: Best | None = None
        self.history: dict[str, list[float]] = {
            "iteration": [],
            "train_elbo": [],
            "validation_elbo": [],
            "kl": [],
        }
        self.recent: list[float] = []

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take the curves over from the `extra` of a snapshot.

        Raises:
            LookupError, TypeError, ValueError: they are not in it.
        """
        self.history.update(
            {key: [float(x) for x in saved["history"][key]] for key in self.history}
        )
        self.recent = [float(x) for x in saved["recent"]]

    def after(self, trainer: lk.Trainer, losses: np.ndarray) -> None:
        """Note the losses of steps, with each term of the bound at its full weight."""
        curves = [
            trainer.solver.curves[layer.name]
            for layer in trainer.net.layers.values()
            if isinstance(layer, Reconstruction | L.GaussianKL)
        ]
        self.recent.extend(np.sum(curves, axis=0).tolist())

    def take(self, trainer: lk.Trainer) -> None:
        """Evaluate the bound."""
        self.model.net.run.passes = trainer.iteration  # the same noise, resumed or not
        bound, kl = self.model.bound(self.images)
        train_elbo = -float(np.mean(self.recent)) if self.recent else math.nan
        self.history["iteration"].append(trainer.iteration)
        self.history["train_elbo"].append(train_elbo)
        self.history["validation_elbo"].append(float(bound.mean()))
        self.history["kl"].append(float(kl.mean()))
        self.recent.clear()
        trainer.publish("loss", -train_elbo)
        trainer.publish("bound", self.history["validation_elbo"][-1])
        if self.best is not None:
            self.best.offer(trainer.net, self.history["validation_elbo"][-1], trainer.iteration)


class Bar(lk.breaks.Progress):
    """A progress bar in images, with loss and bound."""

    def shown(self, trainer: lk.Trainer) -> dict[str, str]:
        """Return them as whole nats."""
        return {name: f"{value:.0f}" for name, value in trainer.values.items()}
