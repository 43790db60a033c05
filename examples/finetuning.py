#!/usr/bin/env python3
"""Finetuning: a net that tells digits apart learns another question from 20 answers.

    python examples/finetuning.py               trains, saves, loads a part, and trains on

A net is trained to read 900 digits, and saved.  A second net, with other names, is asked whether
a digit is prime, and is told so for 20 pictures only.  It begins with the saved parameters:
`lk.load` puts the names right (`rename=`), leaves out the last layer, whose classes are others
(`skip=`), and reports what it did; `only="old[12]"` would take the convolutions alone.  Loaded
layers then learn at a tenth of the rate of what is new (`rate=`), as in Caffe's tutorial on
finetuning.

On 877 other digits the finetuned net is right for 90.9%, a net that begins at random for 81.5%.
All takes 5 seconds.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import layerkit as lk
from layerkit import layers as L
from layerkit.cli.command import Parser, run


def reader(name, classes, rate=1.0):
    """Return the layers between pictures `x` and the loss of labels `t`."""
    a, b, c = (f"{name}{i}" for i in (1, 2, 3))
    return [
        L.Convolution(a, "x", channels=32, kernel=3, neuron="relu", rate=rate),
        L.Convolution(b, a, channels=32, kernel=3, stride=2, neuron="relu", rate=rate),
        L.Dense(c, b, units=64, neuron="relu", rate=rate),
        L.Dense("logits", c, units=classes),
        L.SoftmaxLoss("loss", "logits", "t"),
        L.Accuracy("accuracy", "logits", "t"),
    ]


def main():
    """Train on digits, finetune on primes, and compare."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="in each training (400)")
    parser.add_argument("--backend", default="auto", help="numpy, cupy or auto (the default)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")
    parser.add_argument("--tiny", action="store_true", help="80 steps, to see that all works")
    args = parser.parse_args()
    pictures, digits = load_digits().images[:, None] / 16, load_digits().target
    prime = np.isin(digits, (2, 3, 5, 7))
    known, few, unseen = slice(0, 900), slice(900, 920), slice(920, None)

    def make(layers, x, t):
        data = L.MemoryData("data", data=[x, t], tops=["x", "t"])
        return lk.Net([data, *layers], batch_size=20, backend=args.backend, seed=args.seed)

    def train(net, what):
        trainer = lk.Trainer(lk.Adam(net, rate=1e-3), every=[lk.breaks.Progress(what)])
        trainer.run(steps=80 if args.tiny else args.steps)
        return net

    first = train(make(reader("conv", 10), pictures[known], digits[known]), "digits")
    scratch = train(make(reader("new", 2), pictures[few], prime[few]), "primes from scratch")
    second = make(reader("old", 2, rate=0.1), pictures[few], prime[few])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "digits.h5"
        lk.save(file, first)
        print(lk.load(file, second, rename={"conv*": "old*"}, skip="logits").report)
    for net, how in ((scratch, "from scratch"), (train(second, "primes"), "after finetuning")):
        right = net.evaluate({"x": pictures[unseen], "t": prime[unseen]})["accuracy"]
        print(f"{right:.1%} right {how}")


if __name__ == "__main__":
    run(main)
