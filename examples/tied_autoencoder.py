#!/usr/bin/env python3
"""A deep autoencoder with tied weights, pretrained layer by layer, on scikit-learn's digits.

    python examples/tied_autoencoder.py         pretrains, trains, and compares with PCA

The decoder multiplies by the transposed weights of the encoder, `L.TiedDense(..., to="encode1")`,
and has only biases of its own.  Each pair of encoder and decoder is first trained alone, to
restore its input of which a tenth has been dropped; then all are trained together (Vincent et
al., 2010, "Stacked denoising autoencoders").  The net of a pair takes its parameters from the
deep net, by `share=`, so it learns there.

A digit of 64 pixels becomes 8 numbers.  After 600 steps for each pair and 3,000 for all of them,
83.1% of the variance of 360 held-out digits is restored, 81.2% without pretraining, and 65.6% by
PCA.
"""

import argparse

from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

import layerkit as lk
from layerkit import layers as L
from layerkit.cli.command import Parser, run


def encoder(number, bottom):
    """Return the layer that makes code `number`; the last, of 8 units, is linear."""
    units, neuron = [(128, "tanh"), (64, "tanh"), (8, None)][number - 1]
    return L.Dense(f"encode{number}", bottom, units=units, neuron=neuron)


def decoder(number, bottom):
    """Return the layer that undoes it; pixels lie between 0 and 1."""
    neuron = "sigmoid" if number == 1 else "tanh"
    return L.TiedDense(f"decode{number}", bottom, to=f"encode{number}", neuron=neuron)


def train(net, steps, what):
    """Train a net, with a progress bar."""
    adam = lk.Adam(net, rate=lk.rates.Cosine(3e-3, steps))
    lk.Trainer(adam, every=[lk.breaks.Progress(what)]).run(steps=steps)


def main():
    """Pretrain, train, and print how much of the held-out digits is restored."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help="of 64 digits each (3000)")
    parser.add_argument("--backend", default="auto", help="numpy, cupy or auto (the default)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")
    parser.add_argument("--tiny", action="store_true", help="200 steps, to see that all works")
    args = parser.parse_args()
    steps = 200 if args.tiny else args.steps
    x, held_out = train_test_split(load_digits().data / 16, test_size=360, random_state=0)
    options = {"batch_size": 64, "backend": args.backend, "seed": args.seed}
    layers = [L.MemoryData("x", data=x), L.SquareLoss("loss", "decode1", "x")]
    layers += [encoder(1, "x"), encoder(2, "encode1"), encoder(3, "encode2")]
    layers += [decoder(3, "encode3"), decoder(2, "decode3"), decoder(1, "decode2")]
    net = lk.Net(layers, **options)
    for i in (1, 2, 3):
        pair = [
            L.MemoryData("code", data=net.infer(f"encode{i - 1}", x=x) if i > 1 else x),
            L.Dropout("dropped", "code", ratio=0.1),
            encoder(i, "dropped"),
            decoder(i, f"encode{i}"),
            L.SquareLoss("loss", f"decode{i}", "code"),
        ]
        train(lk.Net(pair, share=net, **options), steps // 5, f"pair {i}")
    train(net, steps, "all")
    pca, decoded = PCA(8).fit(x), net.infer("decode1", x=held_out)
    by_pca = pca.inverse_transform(pca.transform(held_out))
    for picture, what in ((by_pca, "by PCA"), (decoded, "of the variance restored")):
        print(f"{r2_score(held_out, picture, multioutput='variance_weighted'):.1%} {what}")


if __name__ == "__main__":
    run(main)
