"""Pictures of galaxies and a net for runs of a few steps."""

from functools import partial

import numpy as np
from PIL import Image

from layerkit.galaxy.evaluation.coverage import latent_coverage
from layerkit.galaxy.layout import FIGURES
from layerkit.galaxy.report import gallery

SMALL_NET = """
from layerkit import layers as L

def small(pixels=4761, hidden=6, latent=2):
    return [
        L.Input("x", shape=(pixels,)),
        L.Dense("g", "x", units=hidden, neuron="tanh"),
        L.Dense("z_mean", "g", units=latent),
        L.Dense("z_log_variance", "g", units=latent),
        L.Reparameterize("z", "z_mean", "z_log_variance"),
        L.Dense("f", "z", units=hidden, neuron="tanh"),
        L.Dense("x_mean", "f", units=pixels),
        L.Dense("x_log_variance", "f", units=pixels, weight=0.0, bias=-4.0),
        L.GaussianReconstruction("reconstruction", "x", "x_mean", "x_log_variance"),
        L.GaussianKL("kl", "z_mean", "z_log_variance"),
    ]
"""
REAL = latent_coverage.latent_coverage
QUICK = {"held_out": 6, "batch": 7, "refine": 2, "importance_samples": 3}


def galaxy_picture(rng, side=160):
    """One elliptical galaxy on a noisy sky, RGB uint8."""
    y, x = np.mgrid[:side, :side] - side / 2
    angle, long = rng.uniform(0, np.pi), rng.uniform(8, 12)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    light = 200 * np.exp(-0.5 * ((u / long) ** 2 + (v / (long * rng.uniform(0.5, 0.9))) ** 2))
    light = light[..., None] + rng.normal(10, 3, (side, side, 3))
    return Image.fromarray(np.clip(light, 0, 255).astype("uint8"))


def draw_noise(patch, times):
    """Let runs in this process draw noise so many times for each held-out picture, or None: 8."""
    measure = REAL if times is None else partial(REAL, draws=times)
    patch.setattr(latent_coverage, "latent_coverage", measure)


def draw_quickly(folder, model, *_, **__):
    """Write the parameters in place of the figures, whose drawing takes half of a short run."""
    for name in FIGURES:
        (folder / f"{name}.png").write_bytes(model.net.arena.data.tobytes())
    return []


def quicken(patch):
    """Let runs in this process draw little noise and no figures, which other tests look at."""
    draw_noise(patch, 2)
    patch.setattr(gallery, "draw_figures", draw_quickly)


def materials(folder, count=24, seed=0):
    """Write `count` pictures and a net file into a folder; returns both paths."""
    rng = np.random.default_rng(seed)
    pictures, net = folder / "pictures", folder / "small.py"
    pictures.mkdir(parents=True)
    for i in range(count):
        galaxy_picture(rng).save(pictures / f"{i:03d}.bmp")
    net.write_text(SMALL_NET)
    return pictures, net
