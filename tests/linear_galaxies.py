"""Galaxies of known shape, and a linear model that knows them, saved as a training run saves it.

The model projects onto principal components, so its reconstructions are known without training.
"""

import numpy as np
from PIL import Image

import layerkit as lk
from layerkit import galaxy

SIDE, LATENT, PICTURE = 33, 12, 120
NET = """
from layerkit import layers as L

def linear(pixels=69 * 69, latent=2):
    return [
        L.Input("x", shape=(pixels,)),
        L.Dense("z_mean", "x", units=latent),
        L.Dense("z_log_variance", "x", units=latent),
        L.Reparameterize("z", "z_mean", "z_log_variance"),
        L.Dense("x_mean", "z", units=pixels),
        L.Dense("x_log_variance", "z", units=pixels),
        L.GaussianReconstruction("reconstruction", "x", "x_mean", "x_log_variance"),
        L.GaussianKL("kl", "z_mean", "z_log_variance"),
    ]
"""


def ellipse(side, sigma, ratio, angle, centre=(0.0, 0.0), peak=0.7, sky=0.02):
    """An elliptical Gaussian; `angle`, in degrees, is from the axis of columns to that of rows."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2 - np.reshape(centre, (2, 1, 1))
    a = np.radians(angle)
    along, across = x * np.cos(a) + y * np.sin(a), (y * np.cos(a) - x * np.sin(a)) / ratio
    return sky + peak * np.exp(-(along**2 + across**2) / (2 * sigma**2))


def shapes(rng, count):
    """Sizes, axis ratios and angles of `count` galaxies in pictures, (count, 3)."""
    limits = np.array([(5.0, 9.0), (0.4, 0.8), (0.0, 180.0)]).T
    return rng.uniform(*limits, (count, 3))


def write_pictures(rng, folder, truth, skip=()):
    """Write a PNG for each galaxy, and files that are none between them, into a folder.

    Returns:
        The names of the galaxies' files.
    """
    folder.mkdir()
    names = [f"g{3 * k:03d}.png" for k in range(len(truth))]
    for name, (sigma, ratio, angle) in zip(names, truth, strict=True):
        image = ellipse(PICTURE, sigma, ratio, angle, rng.uniform(-3, 3, 2))
        image += rng.normal(0, 0.002, image.shape)
        Image.fromarray(np.uint8(np.clip(255 * image, 0, 255).round())).save(folder / name)
    Image.fromarray(np.full((PICTURE, PICTURE), 9, np.uint8)).save(folder / "g001.png")
    (folder / "g004.png").write_bytes(b"no picture at all")
    return names


def layers(tmp_path, **settings):
    """The layers of the linear net."""
    path = tmp_path / "linear.py"
    path.write_text(NET)
    return lk.load_net(path, **settings)


def fitted(tmp_path, images, phase="test"):
    """The net of the model that projects images onto their principal components."""
    flat = images.reshape(len(images), -1).astype(float)
    mean = flat.mean(axis=0)
    _, values, axes = np.linalg.svd(flat - mean, full_matrices=False)
    scale, axes = values[:LATENT] / np.sqrt(len(flat)), axes[:LATENT]
    net = lk.Net(
        layers(tmp_path, pixels=flat.shape[1], latent=LATENT), 32, dtype="float32", phase=phase
    )
    values = {
        "z_mean/weight": axes.T / scale, "z_mean/bias": -axes @ mean / scale,
        "z_log_variance/weight": 0, "z_log_variance/bias": -7,
        "x_mean/weight": axes * scale[:, None], "x_mean/bias": mean,
        "x_log_variance/weight": 0, "x_log_variance/bias": -8,
    }  # fmt: skip
    for name, value in values.items():
        net.params[name].data[...] = value
    return net


def save_run(tmp_path, folder, pictures, held_out=None):
    """Prepare pictures, fit a model to those not held out, and save both as a run does.

    Returns:
        The prepared galaxies and the temperatures.
    """
    folder.mkdir()
    galaxies = galaxy.gather(pictures, folder / "galaxies.h5", size=SIDE)
    net = fitted(tmp_path, galaxies.images)
    temperature = np.linspace(1, 4, LATENT)
    extra = {
        "settings": {
            "data": str(pictures),
            "held_out": held_out,
            "net": str(tmp_path / "linear.py"),
            "set": {"latent": str(LATENT)},
        },
        "done": True,
        "net_text": NET,
        "prepared": galaxies.digest,
        "latent_temperature": temperature.tolist(),
    }
    lk.save(folder / "model.h5", net, extra=extra)
    return galaxies, temperature
