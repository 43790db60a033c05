#!/usr/bin/env python3
"""An LSTM that reads a digit row by row, from top to bottom.

    python examples/lstm.py                     trains, and says how many held-out digits it reads

A digit of scikit-learn's is a sequence of 8 steps, its rows of 8 pixels.  `L.LSTM` goes through
them with a state of 64 numbers, and with `last=True` hands on the state after the last row
(Hochreiter and Schmidhuber, 1997).  The gradient is clipped, as usual for recurrent nets.

After 2,000 steps of 64 digits 96.9% of 360 held-out ones are read (97.5% with other values of
--seed), in 10 seconds.
"""

import argparse

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import layerkit as lk
from layerkit import layers as L
from layerkit.cli.command import Parser, run


def reader(rows=8, columns=8, units=64, classes=10):
    """Return the layers between the rows of digits `x` and the loss of labels `t`."""
    return [
        L.Input("x", shape=(rows, columns)),
        L.Input("t", shape=()),
        L.LSTM("state", "x", units=units, last=True),
        L.Dense("logits", "state", units=classes),
        L.SoftmaxLoss("loss", "logits", "t"),
        L.Accuracy("accuracy", "logits", "t"),
    ]


def main():
    """Train, and print how the net does on the digits that are held out."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="of 64 digits each (2000)")
    parser.add_argument("--backend", default="auto", help="numpy, cupy or auto (the default)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")
    parser.add_argument("--tiny", action="store_true", help="100 steps, to see that all works")
    args = parser.parse_args()
    steps = 100 if args.tiny else args.steps
    data = load_digits()
    x, held_out, t, held_out_t = train_test_split(
        data.images / 16, data.target, test_size=360, stratify=data.target, random_state=0
    )
    layers = lk.with_data(reader(), L.MemoryData("data", data=[x, t], tops=["x", "t"]))
    net = lk.Net(layers, batch_size=64, backend=args.backend, seed=args.seed)
    solver = lk.Adam(net, rate=lk.rates.Cosine(5e-3, steps), clip=1.0)
    lk.Trainer(solver, every=[lk.breaks.Progress()]).run(steps=steps)
    read = net.evaluate({"x": held_out, "t": held_out_t})["accuracy"]
    print(f"{read:.1%} of {len(held_out)} held-out digits read row by row")


if __name__ == "__main__":
    run(main)
