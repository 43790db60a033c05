#!/usr/bin/env python3
"""Logistic regression from an HDF5 file, trained with breaks for a log, validation and stopping.

    python examples/logistic_regression.py      writes a file, trains on it, and keeps the best net

The data are scikit-learn's: 569 tumours, benign or malignant, by 30 measurements (Wisconsin).
They are written to a file, as data that do not fit in memory would be, and `L.HDF5Data` reads
them in random order.  `lk.Trainer` makes the steps, and every 50 of them takes breaks: `Validate`
measures loss and accuracy on examples that are not trained on, `Log` writes them to a CSV file,
`KeepBest` remembers the best parameters, and `EarlyStop` ends training when they have not
improved for a while.

The net is right for 95.8% of 142 held-out tumours, after 600 steps and a second.
"""

import argparse
import tempfile
from pathlib import Path

import h5py
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import layerkit as lk
from layerkit import layers as L
from layerkit.cli.command import Parser, run


def main():
    """Write the file, train, and print how the net does on held-out tumours."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help="of 32 tumours, at most (3000)")
    parser.add_argument("--backend", default="auto", help="numpy, cupy or auto (the default)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")
    parser.add_argument("--tiny", action="store_true", help="100 steps, to see that all works")
    args = parser.parse_args()
    x, t = load_breast_cancer(return_X_y=True)
    x, held_out, t, held_out_t = train_test_split(x, t, test_size=142, stratify=t, random_state=0)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    test = {"x": (held_out - mean) / deviation, "t": held_out_t}
    train, watch, t, watch_t = train_test_split(x, t, test_size=100, stratify=t, random_state=0)
    with tempfile.TemporaryDirectory() as folder:
        with h5py.File(Path(folder) / "tumours.h5", "w") as file:
            file["measurements"], file["benign"] = (train - mean) / deviation, t
        layers = [
            L.HDF5Data(
                "data",
                path=Path(folder) / "tumours.h5",
                datasets=["measurements", "benign"],
                tops=["x", "t"],
            ),
            L.Dense("logits", "x", units=2, l2=1e-3),
            L.SoftmaxLoss("loss", "logits", "t"),
            L.Accuracy("accuracy", "logits", "t"),
        ]
        net = lk.Net(layers, batch_size=32, backend=args.backend, seed=args.seed)
        watched = {"x": (watch - mean) / deviation, "t": watch_t}
        best = lk.breaks.KeepBest()
        trainer = lk.Trainer(
            lk.SGD(net, rate=0.01, momentum=0.9),
            every=[
                lk.breaks.Validate(net, watched, every=50),
                lk.breaks.Log(Path(folder) / "log.csv", every=50),
                lk.breaks.EarlyStop(patience=10),
                lk.breaks.Progress(),
                best,
            ],
        )
        ending = trainer.run(steps=100 if args.tiny else args.steps)
        best.restore()
        print(f"{ending} after {trainer.iteration} steps, best after {best.iteration}")
        print((Path(folder) / "log.csv").read_text().splitlines()[-1])
    print(f"{net.evaluate(test)['accuracy']:.1%} right of {len(held_out)} held-out tumours")


if __name__ == "__main__":
    run(main)
