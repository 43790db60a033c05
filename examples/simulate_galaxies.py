#!/usr/bin/env python3
"""Stamps of simulated galaxies with PSF, noise, mask and truth, drawn by GalSim.

    pip install 'layerkit[galsim]'
    python examples/simulate_galaxies.py --out out/stamps.h5

A galaxy is a bulge (Spergel's profile of index -0.6, near de Vaucouleurs'), an inclined exponential
disk and knots of star formation in it.  Magnitudes follow counts that grow by 10^0.3 a magnitude
from 20 to 24, sizes shrink with them.  Pixels are 0.2 arcsec, the zero point is 27, and the depth
varies such that galaxies of magnitude 24 have a signal-to-noise ratio of about 10.  PSFs are
Moffat's, FWHM 0.6 to 1.2 arcsec, slightly elliptical, and end at the edge of their picture.  A
third of the stamps has pixels to leave out: hot ones, or part of a row.

The file holds `image`, `variance` and `mask` (n, 45, 45), `psf` (n, 31, 31), and a group `truth`
with a number for each stamp.  A mask is 0 for good pixels.  Row i depends on --seed and i alone.
"""

import argparse
import os
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from layerkit.cli.command import Parser, run
from layerkit.errors import DataError

SIDE, PSF_SIDE, PIXEL, ZERO_POINT = 45, 31, 0.2, 27.0
SKY_DEVIATION, GAIN = 0.18, 40.0  # noise of a pixel in units of flux; electrons per unit
BRIGHTEST, FAINTEST, SLOPE = 20.0, 24.0, 0.3
BLOCK = 200  # stamps written at once


def draw_numbers(rng):
    """Draw the truth about one galaxy: angles in radians, sizes in arcsec, places in pixels."""
    most = 10 ** (SLOPE * (FAINTEST - BRIGHTEST))
    magnitude = BRIGHTEST + np.log10(1 + rng.random() * (most - 1)) / SLOPE
    radius = 10 ** (-0.05 - 0.09 * (magnitude - BRIGHTEST) + 0.2 * rng.standard_normal())
    cosine = rng.random()
    return {
        "flux": 10 ** (0.4 * (ZERO_POINT - magnitude)),
        "disk_half_light_radius": np.clip(radius, 0.15, 1.4),
        "bulge_half_light_radius": np.clip(radius, 0.15, 1.4) * rng.uniform(0.2, 0.6),
        "bulge_fraction": rng.beta(0.8, 2.0),
        "knot_fraction": rng.uniform(0, 0.3),
        "axis_ratio": np.sqrt(0.2**2 + (1 - 0.2**2) * cosine**2),  # of a disk 0.2 thick
        "angle": rng.uniform(0, np.pi),
        "x": rng.normal(0, 0.5),
        "y": rng.normal(0, 0.5),
        "psf_fwhm": rng.uniform(0.6, 1.2),
        "sky_deviation": SKY_DEVIATION * rng.uniform(0.7, 1.4),
    }


def draw_galaxy(t, rng):
    """Return a galaxy of unit flux with the numbers t, as GalSim has it; its knots are random."""
    import galsim  # here, so that --help needs none

    angle = t["angle"] * galsim.radians
    disk = galsim.Exponential(half_light_radius=t["disk_half_light_radius"])
    knots = galsim.RandomKnots(
        int(rng.integers(5, 30)),
        half_light_radius=t["disk_half_light_radius"],
        rng=galsim.BaseDeviate(int(rng.integers(1, 2**31))),
    )
    bulge = galsim.Spergel(-0.6, half_light_radius=t["bulge_half_light_radius"])
    flat = (1 - t["knot_fraction"]) * disk + t["knot_fraction"] * knots
    galaxy = (1 - t["bulge_fraction"]) * flat.shear(q=t["axis_ratio"], beta=angle)
    rounder = 0.5 + 0.5 * t["axis_ratio"]
    return galaxy + t["bulge_fraction"] * bulge.shear(q=rounder, beta=angle)


def draw_stamp(seed, row):
    """Draw one stamp; return a dict of image, psf, variance and mask, and a dict of the truth."""
    import galsim  # here, so that --help needs none

    rng = np.random.default_rng([seed, row])
    t = draw_numbers(rng)
    psf = galsim.Moffat(rng.uniform(2.5, 4.5), fwhm=t["psf_fwhm"], trunc=PIXEL * PSF_SIDE / 2)
    psf = psf.shear(g1=rng.normal(0, 0.02), g2=rng.normal(0, 0.02))
    galaxy = draw_galaxy(t, rng)
    seen = galsim.Convolve(t["flux"] * galaxy, psf)
    drawn = {"nx": SIDE, "ny": SIDE, "scale": PIXEL, "dtype": float}
    light = seen.drawImage(offset=(t["x"], t["y"]), **drawn).array
    response = psf.drawImage(nx=PSF_SIDE, ny=PSF_SIDE, scale=PIXEL, dtype=float).array
    variance = t["sky_deviation"] ** 2 + np.maximum(light, 0) / GAIN
    image = light + np.sqrt(variance) * rng.standard_normal(light.shape)
    mask = np.zeros(light.shape, bool)
    kind = rng.random()
    if kind < 1 / 6:  # hot pixels
        mask.flat[rng.choice(mask.size, 4, replace=False)] = True
    elif kind < 1 / 3:  # part of a row
        start = rng.integers(SIDE - 10)
        mask[rng.integers(SIDE), start : start + 10] = True
    image[mask] = 1000 * t["sky_deviation"]
    stamp = {"image": image, "psf": response / response.sum(), "variance": variance, "mask": mask}
    return stamp, t


def simulate(path, count, seed):
    """Write `count` stamps to an HDF5 file, which appears when it is complete."""
    path = Path(path)
    if not path.parent.is_dir():
        raise DataError(f"--out: there is no folder {path.parent}; make it first")
    part = path.with_name(path.name + ".part")
    with h5py.File(part, "w") as file, tqdm(total=count, unit=" stamps", disable=None) as bar:
        for start in range(0, count, BLOCK):
            drawn = [draw_stamp(seed, row) for row in range(start, min(start + BLOCK, count))]
            pictures = {k: np.stack([s[k] for s, _ in drawn]) for k in drawn[0][0]}
            truths = {f"truth/{k}": np.array([t[k] for _, t in drawn]) for k in drawn[0][1]}
            for name, values in {**pictures, **truths}.items():
                kind = "uint8" if name == "mask" else "float32"
                if not start:
                    shape = (count, *values.shape[1:])
                    chunks = (len(values), *values.shape[1:])
                    file.create_dataset(name, shape, kind, chunks=chunks, compression="lzf")
                file[name][start : start + len(values)] = values.astype(kind)
            bar.update(len(drawn))
        file.attrs.update(pixel_scale=PIXEL, zero_point=ZERO_POINT, gain=GAIN, seed=seed)
    os.replace(part, path)


def main():
    """Simulate stamps and say how many were written."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="FILE", help="HDF5 file to write")
    parser.add_argument("--count", type=int, default=20_000, help="of stamps (20,000)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")
    args = parser.parse_args()
    for name, least in (("count", 1), ("seed", 0)):
        if getattr(args, name) < least:
            raise DataError(f"--{name} must be at least {least}, got {getattr(args, name)}")
    try:
        import galsim  # noqa: F401
    except ImportError:
        raise DataError("GalSim is not installed: pip install 'layerkit[galsim]'") from None
    simulate(args.out, args.count, args.seed)
    print(f"{args.count} stamps written to {args.out}")


if __name__ == "__main__":
    run(main)
