#!/usr/bin/env python3
"""Train nets/galaxy_light.py, a galaxy's light before the PSF, on stamps with PSF and noise.

    python examples/simulate_galaxies.py --out out/stamps.h5 --count 8000
    python examples/galaxy_light.py --data out/stamps.h5 --out out/light.h5

The stamps are an HDF5 file with `image`, `variance` (n, side, side), `psf` (n, p, p) or (p, p), and
`mask`, 0 for good pixels, if there is one; or FITS with extensions of these names.  Pixels that are
no numbers, or whose variance is not positive, are left out, too.  A tenth of the stamps, the last
ones, is held out; of them the program prints, at the posterior means of z,

    - chi-square over the number of pixels that count, of all pixels, and of those in which a
      galaxy is brighter than half the noise: the others are sky, which any model fits;
    - the percentage of stamps whose chi-square is within three standard deviations of expected;
    - where the file has `truth/flux`, the median error of fluxes, and that with its sign, below
      and above a signal-to-noise ratio of 30.
"""

import argparse

import numpy as np

import layerkit as lk
from layerkit.cli.command import Parser, run
from layerkit.galaxy.scene.images.stamps import NAMES, read_stamps

BRIGHT = 30  # signal-to-noise ratio of a flux


def batches(stamps, size, seed):
    """Return a function of the iteration that draws stamps, turned and mirrored with their PSFs."""

    def draw(iteration):
        rng = np.random.default_rng([seed, iteration])
        rows = rng.integers(len(stamps["image"]), size=size)
        turns, mirror = int(rng.integers(4)), rng.integers(2)
        drawn = {}
        for name in NAMES:
            pictures = np.rot90(stamps[name][rows], turns, axes=(1, 2))
            drawn[name] = (pictures[:, :, ::-1] if mirror else pictures).astype("float32")
        return drawn

    return draw


def judge(net, stamps):
    """Print how well the net describes stamps that it has not seen."""
    given = {name: stamps[name].astype("float32") for name in NAMES}
    z = net.infer("z_mean", **given)
    mean, flux, precision = (
        net.infer(name, z=z, **given) for name in ("mean", "flux", "precision")
    )
    deviation, used = np.sqrt(given["variance"]), stamps["mask"]
    squares = np.where(used, ((given["image"] - mean) / deviation) ** 2, 0)
    light = used & (mean > 0.5 * deviation)
    count, chi2 = used.sum(axis=(1, 2)), squares.sum(axis=(1, 2))
    alike = np.abs(chi2 - count) < 3 * np.sqrt(2 * count)
    print(f"reduced chi-square of {len(z)} held-out stamps: {chi2.sum() / count.sum():.4f}")
    print(f"reduced chi-square where galaxies are: {squares[light].sum() / light.sum():.4f}")
    print(f"{alike.mean():.1%} of held-out stamps within three standard deviations")
    if "flux" in stamps:
        error, ratio = flux.ravel() / stamps["flux"] - 1, (flux * np.sqrt(precision)).ravel()
        for kind, chosen in (("below", ratio < BRIGHT), ("from", ratio >= BRIGHT)):
            some = error[chosen]
            if len(some):
                print(
                    f"median error of fluxes {kind} signal-to-noise {BRIGHT}: "
                    f"{np.median(np.abs(some)):.1%}, with its sign {np.median(some):+.1%}, "
                    f"of {len(some)} stamps"
                )


def main():
    """Train, save the net, and judge it by held-out stamps."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="FILE", help="stamps, HDF5 or FITS")
    parser.add_argument("--out", metavar="FILE", help="snapshot to write")
    parser.add_argument("--steps", type=int, default=12_000, help="of 64 stamps each (12,000)")
    parser.add_argument("--latent", type=int, default=12, help="dimensions of z (12)")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate at first (1e-3)")
    parser.add_argument("--backend", default="auto", help="numpy, cupy or auto (the default)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")
    args = parser.parse_args()
    stamps = read_stamps(args.data)
    held_out = len(stamps["image"]) // 10
    train, test = (
        {k: a[part] for k, a in stamps.items()}
        for part in (slice(None, -held_out), slice(-held_out, None))
    )
    layers = lk.load_net(
        "galaxy_light",
        side=stamps["image"].shape[1],
        psf=stamps["psf"].shape[1],
        latent=args.latent,
    )
    net = lk.Net(layers, batch_size=64, backend=args.backend, seed=args.seed)
    rate = lk.rates.WarmUp(lk.rates.Cosine(args.rate, args.steps), min(400, args.steps))
    solver = lk.Adam(net, rate, clip=1000.0)
    inputs = batches(train, 64, args.seed)
    lk.Trainer(solver, every=[lk.breaks.Progress()], inputs=inputs).run(steps=args.steps)
    if args.out:
        lk.save(args.out, net)
    judge(lk.Net(layers, batch_size=64, phase="test", backend=args.backend, share=net), test)


if __name__ == "__main__":
    run(main)
