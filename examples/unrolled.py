#!/usr/bin/env python3
"""A recurrent net written out, step by step: every step is layers with shared parameters.

    python examples/unrolled.py                 trains, and says how many held-out digits it reads

A digit's 8 rows are read from top to bottom, as in examples/lstm.py, by Elman's simple recurrent
net (1990), h_t = tanh(x_t W + h_(t-1) U + b).  There is no recurrent layer here: the net has a
layer W and a layer U for each row, and `shares=` gives those of all rows one set of parameters;
their gradients add up.  That is backpropagation through time, and any net can be unrolled so.

After 2,000 steps of 64 digits 96.7% of 360 held-out ones are read, in 4 seconds.
"""

import argparse

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import layerkit as lk
from layerkit import layers as L
from layerkit.cli.command import Parser, run


def step(i, units):
    """Return the layers that make state `h<i>` of row `x<i>` and the state before it."""
    if i == 0:
        return [L.Dense("W0", "x0", units=units), L.Tanh("h0", "W0")]
    return [
        L.Dense(f"W{i}", f"x{i}", units=units, shares="W0"),
        L.Dense(f"U{i}", f"h{i - 1}", units=units, shares="U1" if i > 1 else None),
        L.Add(f"sum{i}", f"W{i}", f"U{i}"),
        L.Tanh(f"h{i}", f"sum{i}"),
    ]


def reader(rows=8, columns=8, units=64, classes=10):
    """Return the layers between the rows of digits `x` and the loss of labels `t`."""
    return [
        L.Input("x", shape=(rows, columns)),
        L.Input("t", shape=()),
        L.Slice("rows", "x", tops=[f"x{i}" for i in range(rows)]),
        [step(i, units) for i in range(rows)],
        L.Dense("logits", f"h{rows - 1}", units=classes),
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
    solver = lk.Adam(net, rate=lk.rates.Cosine(2e-3, steps), clip=1.0)
    lk.Trainer(solver, every=[lk.breaks.Progress()]).run(steps=steps)
    read = net.evaluate({"x": held_out, "t": held_out_t})["accuracy"]
    print(f"{read:.1%} of {len(held_out)} held-out digits read row by row")


if __name__ == "__main__":
    run(main)
