#!/usr/bin/env python3
"""Mocha's CIFAR-10 tutorial, on small colour pictures cut from those that packages ship.

    python examples/colour.py                   trains, and says how many new pictures it knows

The ten classes are ten photographs of scikit-image and scikit-learn: a cat, coffee, a rocket,
galaxies, flowers and so on.  Each is cut into blocks of 64 x 64 pixels, of which a quarter is
held out; the net sees pictures of 32 x 32 from within the others, and has to say which photograph
one comes from.  It is the tutorial's: three convolutions of 5 x 5, pooled by maxima, then means,
in windows of 3 x 3 that overlap (Krizhevsky's cuda-convnet).  Its normalisation across channels
is left out.

After 200 steps of 50 the net knows 81.1% of 1,000 held-out pictures, in 20 seconds.
"""

import argparse

import numpy as np
from skimage import data
from sklearn.datasets import load_sample_image

import layerkit as lk
from layerkit import layers as L
from layerkit.cli.command import Parser, run

TUTORIAL = [
    L.Convolution("conv1", "x", channels=32, kernel=5, pad=2, neuron="relu"),
    L.Pooling("pool1", "conv1", kernel=3, stride=2, ceil=True),
    L.Convolution("conv2", "pool1", channels=32, kernel=5, pad=2, neuron="relu"),
    L.Pooling("pool2", "conv2", kernel=3, stride=2, mode="mean", ceil=True),
    L.Convolution("conv3", "pool2", channels=64, kernel=5, pad=2, neuron="relu"),
    L.Pooling("pool3", "conv3", kernel=3, stride=2, mode="mean", ceil=True),
    L.Dense("logits", "pool3", units=10),
    L.SoftmaxLoss("loss", "logits", "t"),
    L.Accuracy("accuracy", "logits", "t"),
]


def pictures(held_out, each, rng):
    """Return `each` pictures (3, 32, 32) of every class, and their classes."""
    names = ["astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field"]
    found = [getattr(data, name)() for name in [*names, "immunohistochemistry"]]
    found += [data.stereo_motorcycle()[0]]
    found += [load_sample_image(f"{name}.jpg") for name in ("china", "flower")]
    cut = []
    for photograph in found:
        height, width, _ = photograph.shape
        corners = np.argwhere(np.ones((height // 64, width // 64)))
        chosen = corners[(corners.sum(axis=1) % 4 == 0) == held_out] * 64
        for a, b in rng.choice(chosen, each) + rng.integers(33, size=(each, 2)):
            cut.append(photograph[a : a + 32, b : b + 32].transpose(2, 0, 1) / 255 - 0.5)
    return np.array(cut, dtype="float32"), np.repeat(np.arange(len(found)), each)


def main():
    """Train, and print how the net does on the pictures that are held out."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="of 50 pictures each (200)")
    parser.add_argument("--backend", default="auto", help="numpy, cupy or auto (the default)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")
    parser.add_argument("--tiny", action="store_true", help="10 steps, to see that all works")
    args = parser.parse_args()
    steps, rng = 10 if args.tiny else args.steps, np.random.default_rng(args.seed)
    source = L.MemoryData(
        "data", data=pictures(False, 100 if args.tiny else 1000, rng), tops=["x", "t"]
    )
    net = lk.Net([source, *TUTORIAL], batch_size=50, backend=args.backend, seed=args.seed)
    solver = lk.Adam(net, rate=lk.rates.Cosine(2e-3, steps))
    lk.Trainer(solver, every=[lk.breaks.Progress()]).run(steps=steps)
    x, t = pictures(True, 20 if args.tiny else 100, rng)
    print(f"{net.evaluate({'x': x, 't': t})['accuracy']:.1%} of {len(x)} held-out pictures known")


if __name__ == "__main__":
    run(main)
