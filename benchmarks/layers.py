#!/usr/bin/env python3
"""Layers one by one, and LeNet's training step, beside PyTorch's eager ones on a CPU.

    python benchmarks/layers.py                   batches of 64
    python benchmarks/layers.py --only LeNet      rows whose name has this in it

A row is a layer's forward and backward pass, with the gradients of its bottom and its parameters,
in float32 on arrays that are there already.  LeNet's is a step of Adam on the net of
examples/lenet.py.  Both programs run in one process with the same number of threads, in turn, with
a pause in which the other's threads fall asleep; the table shows medians over the rounds.  Without
PyTorch there is layerkit's column alone.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cpu import Parser, number, positive

import layerkit as lk
from layerkit import layers as L
from layerkit.cli.command import run

ROOT = Path(__file__).resolve().parent.parent
PAUSE = 0.02  # seconds; threads that wait for work spin for some milliseconds
CLASSES = 10

Row = tuple[tuple[int, ...], Callable[[], lk.Layer], Callable[[Any], Any]]
# name -> shape of an example, the layer, the same of PyTorch (given torch.nn)
ROWS: dict[str, Row] = {
    "Convolution, 1 to 20 of 28 x 28, kernel 5": (
        (1, 28, 28),
        lambda: L.Convolution("y", "x", channels=20, kernel=5),
        lambda nn: nn.Conv2d(1, 20, 5),
    ),
    "Convolution, 20 to 50 of 12 x 12, kernel 5": (
        (20, 12, 12),
        lambda: L.Convolution("y", "x", channels=50, kernel=5),
        lambda nn: nn.Conv2d(20, 50, 5),
    ),
    "Convolution, 32 to 64 of 32 x 32, kernel 3, stride 2, ReLU": (
        (32, 32, 32),
        lambda: L.Convolution("y", "x", channels=64, kernel=3, stride=2, pad=1, neuron="relu"),
        lambda nn: nn.Sequential(nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()),
    ),
    "Convolution, 64 groups of 16 x 16, kernel 3": (
        (64, 16, 16),
        lambda: L.Convolution("y", "x", channels=64, kernel=3, pad=1, groups=64),
        lambda nn: nn.Conv2d(64, 64, 3, padding=1, groups=64),
    ),
    "Convolution, 16 to 16 of 256, kernel 9": (
        (16, 256),
        lambda: L.Convolution("y", "x", channels=16, kernel=9, pad=4),
        lambda nn: nn.Conv1d(16, 16, 9, padding=4),
    ),
    "Deconvolution, 64 to 32 of 16 x 16, kernel 4, stride 2": (
        (64, 16, 16),
        lambda: L.Deconvolution("y", "x", channels=32, kernel=4, stride=2, pad=1),
        lambda nn: nn.ConvTranspose2d(64, 32, 4, 2, 1),
    ),
    "Pooling, max, 20 of 24 x 24, kernel 2, stride 2": (
        (20, 24, 24),
        lambda: L.Pooling("y", "x", kernel=2, stride=2),
        lambda nn: nn.MaxPool2d(2),
    ),
    "Pooling, max, 32 of 32 x 32, kernel 3, stride 2, pad 1": (
        (32, 32, 32),
        lambda: L.Pooling("y", "x", kernel=3, stride=2, pad=1),
        lambda nn: nn.MaxPool2d(3, 2, 1),
    ),
    "Pooling, mean, 32 of 32 x 32, kernel 2, stride 2": (
        (32, 32, 32),
        lambda: L.Pooling("y", "x", kernel=2, stride=2, mode="mean"),
        lambda nn: nn.AvgPool2d(2),
    ),
    "GlobalPooling, mean, 128 of 8 x 8": (
        (128, 8, 8),
        lambda: L.GlobalPooling("y", "x"),
        lambda nn: nn.AdaptiveAvgPool2d(1),
    ),
    "Dense, 800 to 500, ReLU": (
        (800,),
        lambda: L.Dense("y", "x", units=500, neuron="relu"),
        lambda nn: nn.Sequential(nn.Linear(800, 500), nn.ReLU()),
    ),
    "Dense, 500 to 10": (
        (500,),
        lambda: L.Dense("y", "x", units=CLASSES),
        lambda nn: nn.Linear(500, CLASSES),
    ),
    "ReLU, 20 of 24 x 24": ((20, 24, 24), lambda: L.ReLU("y", "x"), lambda nn: nn.ReLU()),
    "Tanh, 20 of 24 x 24": ((20, 24, 24), lambda: L.Tanh("y", "x"), lambda nn: nn.Tanh()),
    "Sigmoid, 20 of 24 x 24": ((20, 24, 24), lambda: L.Sigmoid("y", "x"), lambda nn: nn.Sigmoid()),
    "Dropout, 800": ((800,), lambda: L.Dropout("y", "x"), lambda nn: nn.Dropout()),
}
LENET = "LeNet, a step of Adam"


def our_layer(layer: lk.Layer, x: np.ndarray) -> Callable[[], None]:
    """Return a call that makes a layer's two passes."""
    layers = [L.Input("x", shape=x.shape[1:]), layer]
    net = lk.Net(layers, batch_size=len(x), gradients="all")
    net.forward(x=x)
    net.backward(y=np.ones_like(net.blobs["y"].data))
    net.blobs["y"].diff[...] = 1
    plan = net.passes.plan(at_once=False)
    calls = [c for c in (*plan.forward, *plan.backward) if c.layer.name == "y"]

    def passes() -> None:
        for call in calls:
            call.call(call.bottoms, call.tops)

    return passes


def their_layer(torch: Any, make: Callable[[Any], Any], x: np.ndarray) -> Callable[[], None]:
    """Return a call that makes the two passes of a module of PyTorch."""
    module, bottom = make(torch.nn), torch.from_numpy(x).requires_grad_()
    diff = torch.ones_like(module(bottom))

    def passes() -> None:
        module.zero_grad()
        bottom.grad = None
        module(bottom).backward(diff)

    return passes


def our_lenet(x: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    """Return a call that makes a step."""
    layers = [x for x in lk.load_net(ROOT / "examples" / "lenet.py") if x.name != "accuracy"]
    solver = lk.Adam(lk.Net(layers, batch_size=len(x)), rate=1e-3)
    return functools.partial(solver.step, x=x, t=labels)


def their_lenet(torch: Any, x: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    """Return a call that makes the same step in PyTorch."""
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, CLASSES),
    )
    solver = torch.optim.Adam(net.parameters(), lr=1e-3)
    bottom, target = torch.from_numpy(x), torch.from_numpy(labels)

    def step() -> None:
        solver.zero_grad()
        nn.functional.cross_entropy(net(bottom), target).backward()
        solver.step()

    return step


def milliseconds(call: Callable[[], None], seconds: float) -> float:
    """Return how long a call takes, the median of those made in so many seconds, at least five."""
    time.sleep(PAUSE)
    call()
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def pytorch() -> Any:
    """Return torch, as quick as layerkit is set up to be, or None where it is not installed."""
    try:
        import torch
    except ImportError:
        print("PyTorch: left out, it is not installed", file=sys.stderr)
        return None
    torch.set_num_threads(lk.Net([L.Input("x", shape=(1,))], batch_size=1).engine.threads)
    torch.set_flush_denormal(True)
    return torch


def benchmark(args: argparse.Namespace) -> None:
    """Measure all rows and print a Markdown table."""
    torch, rng = pytorch(), np.random.default_rng(0)
    programs: dict[str, list[Callable[[], None]]] = {}
    for name, (shape, layer, module) in ROWS.items():
        x = rng.standard_normal((args.batch, *shape)).astype("float32")
        programs[name] = [our_layer(layer(), x)]
        programs[name] += [their_layer(torch, module, x)] if torch else []
    x = rng.random((args.batch, 1, 28, 28)).astype("float32")
    labels = rng.integers(CLASSES, size=args.batch)
    programs[LENET] = [our_lenet(x, labels)] + ([their_lenet(torch, x, labels)] if torch else [])
    programs = {k: p for k, p in programs.items() if args.only.lower() in k.lower()}
    found: dict[str, list[list[float]]] = {name: [] for name in programs}
    for _ in range(args.rounds):
        for name, calls in programs.items():
            found[name].append([milliseconds(call, args.seconds) for call in calls])
    print(f"\nbatch {args.batch}, milliseconds\n")
    print("| layer | layerkit | PyTorch | PyTorch / layerkit |\n| --- | --- | --- | --- |")
    for name, rounds in found.items():
        ours, *theirs = (statistics.median(times) for times in zip(*rounds, strict=True))
        ratio = [f"{t:.3f} | {t / ours:.2f}" for t in theirs] or ["| "]
        print(f"| {name} | {ours:.3f} | {ratio[0]} |")


def main() -> None:
    """Read the command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--batch", type=number, default=64, help="examples (default: 64)")
    add("--rounds", type=number, default=5, help="of all rows (default: 5)")
    add("--seconds", type=positive, default=0.05, help="per measurement (default: 0.05)")
    add("--only", default="", metavar="TEXT", help="rows whose name has this text in it")
    args = parser.parse_args()
    run(lambda: benchmark(args))


if __name__ == "__main__":
    main()
