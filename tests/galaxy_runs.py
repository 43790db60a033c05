"""Pictures of galaxies and a net for runs of a few steps."""

from functools import partial

import numpy as np
from PIL import Image

from layerkit.galaxy.baselines import gaussian, sersic
from layerkit.galaxy.evaluation import comparison
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
MADE_QUICK = {  # what of a run takes long -> what stands in its place
    (latent_coverage, "latent_coverage"): partial(latent_coverage.latent_coverage, draws=2),
    (gaussian, "BFGS_ITERATIONS"): 2,
    (sersic, "TRUST_REGION_ITERATIONS"): 2,
    (comparison, "closest"): partial(comparison.closest, steps=5),
}
REAL = {key: getattr(*key) for key in MADE_QUICK}
DRAW = gallery.draw_figures
QUICK = {"held_out": 6, "batch": 7, "refine": 2, "importance_samples": 3}


def galaxy_picture(rng, side=160):
    """One elliptical galaxy on a noisy sky, RGB uint8."""
    y, x = np.mgrid[:side, :side] - side / 2
    angle, long = rng.uniform(0, np.pi), rng.uniform(8, 12)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    light = 200 * np.exp(-0.5 * ((u / long) ** 2 + (v / (long * rng.uniform(0.5, 0.9))) ** 2))
    light = light[..., None] + rng.normal(10, 3, (side, side, 3))
    return Image.fromarray(np.clip(light, 0, 255).astype("uint8"))


def set_up(patch, draw, measures):
    """Let runs in this process draw figures by `draw`, and measure by what `measures` holds."""
    for key, value in measures.items():
        patch.setattr(*key, value)
    patch.setattr(gallery, "draw_figures", draw)


def draw_quickly(folder, model, *_, **__):
    """Write the parameters in place of the figures, whose drawing takes half of a short run."""
    for name in FIGURES:
        (folder / f"{name}.png").write_bytes(model.net.arena.data.tobytes())
    return []


def quicken(patch):
    """Let runs in this process measure roughly and draw no figures, which other tests look at."""
    set_up(patch, draw_quickly, MADE_QUICK)


def measure_in_full(patch, draw=draw_quickly):
    """Let runs in this process measure as a user's do, and draw no figures or, by `draw`, all."""
    set_up(patch, draw, REAL)


def materials(folder, count=24, side=160, seed=0):
    """Write `count` pictures and a net file into a folder; returns both paths."""
    rng = np.random.default_rng(seed)
    pictures, net = folder / "pictures", folder / "small.py"
    pictures.mkdir(parents=True)
    for i in range(count):
        galaxy_picture(rng, side).save(pictures / f"{i:03d}.bmp")
    net.write_text(SMALL_NET)
    return pictures, net
