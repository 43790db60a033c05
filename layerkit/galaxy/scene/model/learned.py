"""Learned: the light of galaxies as a net has learned it, a sum of round Gaussians."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq

from layerkit.backends.base import Array
from layerkit.net import Net
from layerkit.netfile import load_net
from layerkit.saving.loading import load
from layerkit.saving.snapshot import read_extra

BOXED = Path(__file__).resolve().parents[1] / "boxed" / "galaxy_profile.h5"
LEAST, MOST = 0.03, 3.0  # deviations of the Gaussians, in units that half-light radii are near


def spreads(gaussians: int) -> np.ndarray:
    """Return the standard deviations of the Gaussians, shape (gaussians,)."""
    return np.geomspace(LEAST, MOST, gaussians)


def half_light(weights: np.ndarray) -> float:
    """Return the radius with half of the light of a sum of Gaussians of these weights."""
    s = spreads(len(weights))

    def outside(r: float) -> float:
        return float(weights @ np.exp(-0.5 * (r / s) ** 2)) - 0.5

    return float(brentq(outside, LEAST, 2 * MOST, xtol=1e-12))


class Learned:
    """Sums of round Gaussians of unit half-light radius, with weights that a net decodes.

    transform(k) = sum_j w_j(z) exp(-(s_j k / h)^2 / 2), with z ~ N(0, I) and h(z) the half-light
    radius of the sum with h = 1.

    Args:
        net: as nets/galaxy_profile.py describes it, in float64, with as many rows as Gaussians and
            gradients of all blobs.
        path: of the snapshot that it was loaded from, which other processes load it from, too.
    """

    def __init__(self, net: Net, path: str | os.PathLike[str] | None = None):
        self.net, self.path = net, path
        latents = net.blobs["z"].shape[0]
        self.gaussians = net.blobs["weights"].shape[0]
        self.names = tuple(f"z{i + 1}" for i in range(latents))
        self.mean = (0.0,) * latents
        self.deviation = (1.0,) * latents

    def __reduce__(self) -> tuple[Any, ...]:
        if self.path is None:
            raise TypeError("a net that was not loaded from a file cannot go to another process")
        return learned_light, (self.path,)

    def weights(self, latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights of one galaxy and their derivatives, by the net's backward pass.

        Args:
            latents: shape (number of latents,).

        Returns:
            Shapes (gaussians,) and (gaussians, number of latents).
        """
        n = self.gaussians
        given = {"z": np.tile(latents, (n, 1)), "root": np.tile(np.eye(n), (n, 1, 1))}
        w = self.net.infer("weights", z=latents[None])[0]
        # With these targets the loss of row j has the gradient e_j by the weights.  Net.backward
        # means over rows, which the factor n undoes.
        self.net.forward(**given, target=(w - n * np.eye(n))[:, :, None])
        self.net.backward()
        return w, self.net.blobs["z"].diff.copy()

    def transform(
        self, xp: Any, latents: Array, u: Array, v: Array
    ) -> tuple[Array, Array, Array, list[Array]]:
        """Return the transform and its derivatives; see Light."""
        values, slopes, gradients = [], [], []
        for z, square in zip(latents, u * u + v * v, strict=True):
            w, by_z = self.weights(np.asarray(z.get() if hasattr(z, "get") else z, float))
            h, s = half_light(w), spreads(len(w))
            inside = np.exp(-0.5 * (h / s) ** 2)
            h_by_z = (inside @ by_z) / (h * (inside * w) @ s**-2)
            squares = (s / h) ** 2
            each = xp.exp(-0.5 * xp.asarray(squares).reshape(-1, *[1] * square.ndim) * square)
            sums = np.stack([w, w * squares, *by_z.T])
            sums = xp.tensordot(xp.asarray(sums), each, 1)
            values.append(sums[0])
            slopes.append(-sums[1])
            gradients.append(sums[2:] + (h_by_z / h)[:, None, None] * square * sums[1])
        value, slope, gradient = (xp.stack(a) for a in (values, slopes, gradients))
        return value, slope * u, slope * v, list(xp.moveaxis(gradient, 1, 0))

    def within(self, latents: np.ndarray, r: np.ndarray) -> np.ndarray:
        """Return the share of the light within r half-light radii; see Light."""
        weights = self.net.infer("weights", z=latents)
        scales = np.array([half_light(w) for w in weights]) * r
        return (
            weights * (1 - np.exp(-0.5 * (scales[:, None] / spreads(self.gaussians)) ** 2))
        ).sum(axis=1)


@functools.cache
def learned_light(path: str | os.PathLike[str] = BOXED) -> Learned:
    """Return the light of a snapshot of nets/galaxy_profile.py; by default that in the box."""
    settings = read_extra(path)["settings"]
    net = Net(
        load_net("galaxy_profile", **settings),
        batch_size=settings["gaussians"],
        dtype="float64",
        gradients="all",
    )
    load(path, net)
    return Learned(net, path)
