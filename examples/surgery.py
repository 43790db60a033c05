#!/usr/bin/env python3
"""Net surgery: Dense layers become convolutions, so a net reads pictures of any size.

    python examples/surgery.py                  trains, operates, and finds digits in a long picture

A Dense layer on a picture of 8 x 8 pixels is a convolution with a window of 8 x 8: the parameters
are those numbers in another order (Caffe's tutorial on net surgery; Long, Shelhamer and Darrell,
2015).  A net that reads single digits so becomes one that reads every place of a longer picture
in one pass.  Convolution's weight has the axes (height, width, channels in, channels out),
Dense's rows count (channels, height, width).

After 1,000 steps of 64 digits both nets read 96.9% of 360 held-out digits: outputs are equal to
within rounding (4e-07 of the largest).  In a row of all held-out digits, one pass of the second
reads as many.
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits

import layerkit as lk
from layerkit import layers as L
from layerkit.cli.command import Parser, run

DENSE = [
    L.Convolution("conv", "x", channels=16, kernel=3, neuron="relu"),
    L.Dense("hidden", "conv", units=64, neuron="relu"),
    L.Dense("logits", "hidden", units=10),
]


def convolutional(height, width):
    """Return the layers that do what DENSE does, at every place of a larger picture."""
    return [
        L.Input("x", shape=(1, height, width)),
        DENSE[0],
        L.Convolution("hidden", "conv", channels=64, kernel=6, neuron="relu"),
        L.Convolution("logits", "hidden", channels=10, kernel=1),
    ]


def operate(dense, net):
    """Copy the parameters of the net of Dense layers into that of convolutions."""
    for name, there in net.params.items():
        here = dense.params[name].data
        if here.shape != there.shape and name.endswith("weight"):
            height, width, channels, units = there.shape
            here = here.reshape(channels, height, width, units).transpose(1, 2, 0, 3)
        there.data[...] = here


def main():
    """Train a net of Dense layers, make one of convolutions, and compare what they read."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="of 64 digits each (1000)")
    parser.add_argument("--backend", default="auto", help="numpy, cupy or auto (the default)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")
    parser.add_argument("--tiny", action="store_true", help="50 steps, to see that all works")
    args = parser.parse_args()
    x, t = load_digits().images[:, None] / 16, load_digits().target
    data = L.MemoryData("data", data=[x[360:], t[360:]], tops=["x", "t"])
    loss = L.SoftmaxLoss("loss", "logits", "t")
    net = lk.Net([data, *DENSE, loss], batch_size=64, backend=args.backend, seed=args.seed)
    trainer = lk.Trainer(lk.Adam(net, rate=1e-3), every=[lk.breaks.Progress()])
    trainer.run(steps=50 if args.tiny else args.steps)
    x, t, logits = x[:360], t[:360], net.infer("logits", x=x[:360])
    single = lk.Net(convolutional(8, 8), batch_size=64, backend=args.backend, phase="test")
    operate(net, single)
    off = np.abs(single.infer("logits", x=x)[:, :, 0, 0] - logits).max() / np.abs(logits).max()
    print(f"{(logits.argmax(axis=1) == t).mean():.1%} read by Dense layers; others {off:.0e} off")
    row = lk.Net(convolutional(8, 8 * len(x)), batch_size=1, backend=args.backend, phase="test")
    operate(net, row)
    places = row.infer("logits", x=np.concatenate(x, axis=2)[None])[0, :, 0, ::8]
    print(f"{(places.argmax(axis=0) == t).mean():.1%} of a row of {len(x)} digits read in one pass")


if __name__ == "__main__":
    run(main)
