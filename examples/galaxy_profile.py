#!/usr/bin/env python3
"""Train nets/galaxy_profile.py, the light that `layerkit galaxy scene` takes for galaxies.

    python examples/simulate_galaxies.py --out out/stamps.h5 --count 2400
    python examples/galaxy_profile.py --data out/stamps.h5 --out out/profile.h5

The stamps are an HDF5 file with `image`, `variance` (n, side, side), `psf` (n, p, p) or (p, p), and
`mask`, 0 for good pixels, if there is one; or FITS with extensions of these names.  A tenth of the
stamps, the last ones, is held out; of them the program prints, for the Spergel profile and for the
learned light, the mean bound, chi-square over the number of pixels that count, and where the file
has `truth/flux`, the median error of fluxes, that with its sign, and how often 68% intervals hold
the truth.
"""

import argparse

import numpy as np

import layerkit as lk
from layerkit.cli.command import Parser, run
from layerkit.galaxy.scene.images.psf import width_of
from layerkit.galaxy.scene.images.stamps import read_stamps
from layerkit.galaxy.scene.inference.fitting import Pixels, fit
from layerkit.galaxy.scene.inference.learning import learn, source_in
from layerkit.galaxy.scene.model.learned import learned_light
from layerkit.galaxy.scene.model.light import Spergel


def pixels_of(stamps):
    """Return each stamp as the model of a field has it."""
    arrays = (stamps[name].astype(float)[:, None] for name in ("image", "mask", "variance", "psf"))
    return [
        Pixels(image, mask / variance, psf / psf.sum(), width_of(psf[0]))
        for image, mask, variance, psf in zip(*arrays, strict=True)
    ]


def judge(name, light, pixels, truth):
    """Print how well a light describes stamps."""
    bounds, squares, count, off, error = [], 0.0, 0, [], []
    for stamp in pixels:
        stamp.light = light
        found = fit(stamp, [source_in(stamp)])
        bounds.append(found.bound)
        squares += ((stamp.values - found.image) ** 2 * stamp.weights).sum()
        count += (stamp.weights > 0).sum()
        off.append(found.mean[2])
        error.append(np.sqrt(found.covariance[2, 2]))
    print(f"{name}: bound {np.mean(bounds):.2f}, reduced chi-square {squares / count:.4f}")
    if truth is not None:
        off = np.array(off) - np.log(truth)
        inside = (np.abs(off) < error).mean()
        print(
            f"{name}: median error of fluxes {np.median(np.abs(off)):.2%}, with its sign "
            f"{np.median(off):+.2%}, {inside:.0%} in their 68% intervals"
        )


def main():
    """Train, save the net, and judge it by held-out stamps."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="FILE", help="stamps, HDF5 or FITS")
    parser.add_argument("--out", required=True, metavar="FILE", help="snapshot to write, float16")
    parser.add_argument("--sweeps", type=int, default=6, help="over all stamps (6)")
    parser.add_argument("--latent", type=int, default=3, help="dimensions of z (3)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")
    args = parser.parse_args()
    stamps = read_stamps(args.data)
    pixels = pixels_of(stamps)
    held_out = len(pixels) // 10
    train, test = pixels[:-held_out], pixels[-held_out:]
    settings = {"latent": args.latent, "hidden": 24, "gaussians": 10}
    net = learn(train, sweeps=args.sweeps, seed=args.seed, tell=print, **settings)
    lk.save(args.out, net, extra={"settings": settings}, dtype="float16")
    truth = stamps["flux"][-held_out:] if "flux" in stamps else None
    judge("Spergel", Spergel(), test, truth)
    judge("learned", learned_light(args.out), test, truth)


if __name__ == "__main__":
    run(main)
