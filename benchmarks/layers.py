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
from dataclasses import dataclass
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

Array = np.ndarray


def normal(*shape: int) -> Callable[[np.random.Generator, int], Array]:
    """Return what draws normal numbers, given a generator and the number of examples."""
    return lambda rng, count: rng.standard_normal((count, *shape)).astype("float32")


def whole(most: int, *shape: int) -> Callable[[np.random.Generator, int], Array]:
    """Return what draws whole numbers from 0 to below `most`."""
    return lambda rng, count: rng.integers(most, size=(count, *shape))


def signs(*shape: int) -> Callable[[np.random.Generator, int], Array]:
    """Return what draws -1 and 1."""
    return lambda rng, count: rng.choice([-1, 1], size=(count, *shape)).astype("float32")


def shares(*shape: int) -> Callable[[np.random.Generator, int], Array]:
    """Return what draws numbers between 0 and 1."""
    return lambda rng, count: rng.random((count, *shape), dtype="float32")


@dataclass(frozen=True)
class Row:
    """A layer, and what PyTorch has.

    Attributes:
        bottoms: draw what the bottoms x, t and u hold.
        layer: makes the layer "y" of ours.
        module: given torch, returns a module or a function of as many tensors.
    """

    bottoms: tuple[Callable[[np.random.Generator, int], Array], ...]
    layer: Callable[[], lk.Layer]
    module: Callable[[Any], Any]


def first(module: Any) -> Callable[[Any], Any]:
    """Return a function that gives the first of what a module returns, and has its parameters."""

    def call(x: Any) -> Any:
        return module(x)[0]

    call.parameters = module.parameters  # type: ignore[attr-defined]
    return call


def channelwise(torch: Any, shape: tuple[int, ...]) -> Callable[[Any], Any]:
    """Return a function that scales and shifts a tensor by a learned gain and bias of channels."""
    gain, bias = (torch.ones(shape[0], 1, 1, requires_grad=True) for _ in range(2))

    def call(x: Any) -> Any:
        return x * gain + bias

    call.parameters = lambda: [gain, bias]  # type: ignore[attr-defined]
    return call


PICTURE, FLAT, WORDS = (20, 24, 24), (512,), (64, 128)  # examples: pixels, units, steps of features
ROWS: dict[str, Row] = {
    "Convolution, 1 to 20 of 28 x 28, kernel 5": Row(
        (normal(1, 28, 28),),
        lambda: L.Convolution("y", "x", channels=20, kernel=5),
        lambda t: t.nn.Conv2d(1, 20, 5),
    ),
    "Convolution, 20 to 50 of 12 x 12, kernel 5": Row(
        (normal(20, 12, 12),),
        lambda: L.Convolution("y", "x", channels=50, kernel=5),
        lambda t: t.nn.Conv2d(20, 50, 5),
    ),
    "Convolution, 32 to 64 of 32 x 32, kernel 3, stride 2, ReLU": Row(
        (normal(32, 32, 32),),
        lambda: L.Convolution("y", "x", channels=64, kernel=3, stride=2, pad=1, neuron="relu"),
        lambda t: t.nn.Sequential(t.nn.Conv2d(32, 64, 3, 2, 1), t.nn.ReLU()),
    ),
    "Convolution, 64 groups of 16 x 16, kernel 3": Row(
        (normal(64, 16, 16),),
        lambda: L.Convolution("y", "x", channels=64, kernel=3, pad=1, groups=64),
        lambda t: t.nn.Conv2d(64, 64, 3, padding=1, groups=64),
    ),
    "Convolution, 16 to 16 of 256, kernel 9": Row(
        (normal(16, 256),),
        lambda: L.Convolution("y", "x", channels=16, kernel=9, pad=4),
        lambda t: t.nn.Conv1d(16, 16, 9, padding=4),
    ),
    "Deconvolution, 64 to 32 of 16 x 16, kernel 4, stride 2": Row(
        (normal(64, 16, 16),),
        lambda: L.Deconvolution("y", "x", channels=32, kernel=4, stride=2, pad=1),
        lambda t: t.nn.ConvTranspose2d(64, 32, 4, 2, 1),
    ),
    "Pooling, max, 20 of 24 x 24, kernel 2, stride 2": Row(
        (normal(20, 24, 24),),
        lambda: L.Pooling("y", "x", kernel=2, stride=2),
        lambda t: t.nn.MaxPool2d(2),
    ),
    "Pooling, max, 32 of 32 x 32, kernel 3, stride 2, pad 1": Row(
        (normal(32, 32, 32),),
        lambda: L.Pooling("y", "x", kernel=3, stride=2, pad=1),
        lambda t: t.nn.MaxPool2d(3, 2, 1),
    ),
    "Pooling, mean, 32 of 32 x 32, kernel 2, stride 2": Row(
        (normal(32, 32, 32),),
        lambda: L.Pooling("y", "x", kernel=2, stride=2, mode="mean"),
        lambda t: t.nn.AvgPool2d(2),
    ),
    "GlobalPooling, mean, 128 of 8 x 8": Row(
        (normal(128, 8, 8),), lambda: L.GlobalPooling("y", "x"), lambda t: t.nn.AdaptiveAvgPool2d(1)
    ),
    "Dense, 800 to 500, ReLU": Row(
        (normal(800),),
        lambda: L.Dense("y", "x", units=500, neuron="relu"),
        lambda t: t.nn.Sequential(t.nn.Linear(800, 500), t.nn.ReLU()),
    ),
    "Dense, 500 to 10": Row(
        (normal(500),),
        lambda: L.Dense("y", "x", units=CLASSES),
        lambda t: t.nn.Linear(500, CLASSES),
    ),
    "ReLU, 20 of 24 x 24": Row(
        (normal(20, 24, 24),), lambda: L.ReLU("y", "x"), lambda t: t.nn.ReLU()
    ),
    "Tanh, 20 of 24 x 24": Row(
        (normal(20, 24, 24),), lambda: L.Tanh("y", "x"), lambda t: t.nn.Tanh()
    ),
    "Sigmoid, 20 of 24 x 24": Row(
        (normal(20, 24, 24),), lambda: L.Sigmoid("y", "x"), lambda t: t.nn.Sigmoid()
    ),
    "Dropout, 800": Row((normal(800),), lambda: L.Dropout("y", "x"), lambda t: t.nn.Dropout()),
    "LeakyReLU, 20 of 24 x 24": Row(
        (normal(*PICTURE),), lambda: L.LeakyReLU("y", "x"), lambda t: t.nn.LeakyReLU()
    ),
    "ELU, 20 of 24 x 24": Row((normal(*PICTURE),), lambda: L.ELU("y", "x"), lambda t: t.nn.ELU()),
    "Softplus, 20 of 24 x 24": Row(
        (normal(*PICTURE),), lambda: L.Softplus("y", "x"), lambda t: t.nn.Softplus()
    ),
    "Exponential, 20 of 24 x 24": Row(
        (normal(*PICTURE),), lambda: L.Exponential("y", "x"), lambda t: t.exp
    ),
    "GELU, 20 of 24 x 24": Row(
        (normal(*PICTURE),), lambda: L.GELU("y", "x"), lambda t: t.nn.GELU()
    ),
    "SiLU, 20 of 24 x 24": Row(
        (normal(*PICTURE),), lambda: L.SiLU("y", "x"), lambda t: t.nn.SiLU()
    ),
    "PReLU, 20 of 24 x 24": Row(
        (normal(*PICTURE),), lambda: L.PReLU("y", "x"), lambda t: t.nn.PReLU(20)
    ),
    "Affine, 20 of 24 x 24": Row(
        (normal(*PICTURE),), lambda: L.Affine("y", "x"), lambda t: channelwise(t, PICTURE)
    ),
    "BatchNorm, 20 of 24 x 24": Row(
        (normal(*PICTURE),), lambda: L.BatchNorm("y", "x"), lambda t: t.nn.BatchNorm2d(20)
    ),
    "BatchNorm, 512": Row(
        (normal(*FLAT),), lambda: L.BatchNorm("y", "x"), lambda t: t.nn.BatchNorm1d(512)
    ),
    "GroupNorm, 4 groups of 20 of 24 x 24": Row(
        (normal(*PICTURE),),
        lambda: L.GroupNorm("y", "x", groups=4),
        lambda t: t.nn.GroupNorm(4, 20),
    ),
    "LayerNorm, 64 steps of 128": Row(
        (normal(*WORDS),), lambda: L.LayerNorm("y", "x"), lambda t: t.nn.LayerNorm(128)
    ),
    "LSTM, 28 steps of 28, 64 units": Row(
        (normal(28, 28),),
        lambda: L.LSTM("y", "x", units=64),
        lambda t: first(t.nn.LSTM(28, 64, batch_first=True)),
    ),
    "GRU, 28 steps of 28, 64 units": Row(
        (normal(28, 28),),
        lambda: L.GRU("y", "x", units=64),
        lambda t: first(t.nn.GRU(28, 64, batch_first=True)),
    ),
    "Embed, 64 of 5000 words, 128 units": Row(
        (whole(5000, 64),),
        lambda: L.Embed("y", "x", count=5000, units=128),
        lambda t: t.nn.Embedding(5000, 128),
    ),
    "OneHot, 64 of 100 words": Row(
        (whole(100, 64),),
        lambda: L.OneHot("y", "x", count=100),
        lambda t: lambda x: t.nn.functional.one_hot(x, 100).float(),
    ),
    "Softmax, 1000": Row((normal(1000),), lambda: L.Softmax("y", "x"), lambda t: t.nn.Softmax(1)),
    "Softmax, 20 channels of 24 x 24": Row(
        (normal(*PICTURE),), lambda: L.Softmax("y", "x", axis=0), lambda t: t.nn.Softmax(1)
    ),
    "SoftmaxLoss, 10": Row(
        (normal(10), whole(10)),
        lambda: L.SoftmaxLoss("y", "x", "t"),
        lambda t: t.nn.CrossEntropyLoss(reduction="sum"),
    ),
    "SoftmaxLoss, 1000": Row(
        (normal(1000), whole(1000)),
        lambda: L.SoftmaxLoss("y", "x", "t"),
        lambda t: t.nn.CrossEntropyLoss(reduction="sum"),
    ),
    "SoftmaxLoss, 20 classes of 24 x 24": Row(
        (normal(*PICTURE), whole(20, 24, 24)),
        lambda: L.SoftmaxLoss("y", "x", "t", axis=0),
        lambda t: t.nn.CrossEntropyLoss(reduction="sum"),
    ),
    "SquareLoss, 20 of 24 x 24": Row(
        (normal(*PICTURE), normal(*PICTURE)),
        lambda: L.SquareLoss("y", "x", "t"),
        lambda t: t.nn.MSELoss(reduction="sum"),
    ),
    "HuberLoss, 20 of 24 x 24": Row(
        (normal(*PICTURE), normal(*PICTURE)),
        lambda: L.HuberLoss("y", "x", "t"),
        lambda t: t.nn.HuberLoss(reduction="sum"),
    ),
    "BinaryCrossEntropy, 20 of 24 x 24": Row(
        (normal(*PICTURE), shares(*PICTURE)),
        lambda: L.BinaryCrossEntropy("y", "x", "t"),
        lambda t: t.nn.BCEWithLogitsLoss(reduction="sum"),
    ),
    "HingeLoss, signs of 512": Row(
        (normal(*FLAT), signs(*FLAT)),
        lambda: L.HingeLoss("y", "x", "t"),
        lambda t: lambda x, s: t.clamp(1 - s * x, min=0).sum(),
    ),
    "GaussianReconstruction, 69 x 69": Row(
        (normal(69, 69), normal(69, 69), normal(69, 69)),
        lambda: L.GaussianReconstruction("y", "x", "t", "u"),
        lambda t: (
            lambda x, m, v: t.nn.functional.gaussian_nll_loss(x, m, t.exp(v), reduction="sum")
        ),
    ),
    "Add, 20 of 24 x 24": Row(
        (normal(*PICTURE), normal(*PICTURE)), lambda: L.Add("y", "x", "t"), lambda t: t.add
    ),
    "Add, 20 of 24 x 24 and 20 channels": Row(
        (normal(*PICTURE), normal(20, 1, 1)), lambda: L.Add("y", "x", "t"), lambda t: t.add
    ),
    "Subtract, 20 of 24 x 24": Row(
        (normal(*PICTURE), normal(*PICTURE)), lambda: L.Subtract("y", "x", "t"), lambda t: t.sub
    ),
    "Multiply, 20 of 24 x 24": Row(
        (normal(*PICTURE), normal(*PICTURE)), lambda: L.Multiply("y", "x", "t"), lambda t: t.mul
    ),
    "Divide, 20 of 24 x 24": Row(
        (normal(*PICTURE), signs(*PICTURE)), lambda: L.Divide("y", "x", "t"), lambda t: t.div
    ),
    "MatMul, 64 x 128 and 128 x 64": Row(
        (normal(*WORDS), normal(128, 64)), lambda: L.MatMul("y", "x", "t"), lambda t: t.matmul
    ),
    "Reduce, sum, 20 of 24 x 24": Row(
        (normal(*PICTURE),), lambda: L.Reduce("y", "x"), lambda t: lambda x: x.sum((1, 2, 3))
    ),
    "Reduce, mean, over 20 channels of 24 x 24": Row(
        (normal(*PICTURE),),
        lambda: L.Reduce("y", "x", mode="mean", axes=0),
        lambda t: lambda x: x.mean(1),
    ),
    "Reduce, max, over 20 channels of 24 x 24": Row(
        (normal(*PICTURE),),
        lambda: L.Reduce("y", "x", mode="max", axes=0),
        lambda t: lambda x: x.max(1)[0],
    ),
    "Permute, channels of 20 of 24 x 24 last": Row(
        (normal(*PICTURE),),
        lambda: L.Permute("y", "x", order=(1, 2, 0)),
        lambda t: lambda x: x.permute(0, 2, 3, 1).contiguous(),
    ),
    "Concat, two of 20 of 24 x 24": Row(
        (normal(*PICTURE), normal(*PICTURE)),
        lambda: L.Concat("y", "x", "t"),
        lambda t: lambda *x: t.cat(x, 1),
    ),
}
LENET = "LeNet, a step of Adam"


def our_layer(layer: lk.Layer, arrays: list[Array]) -> Callable[[], None]:
    """Return a call that makes a layer's two passes."""
    bottoms = dict(zip("xtu", arrays, strict=False))
    layers = [L.Input(name, shape=array.shape[1:]) for name, array in bottoms.items()]
    net = lk.Net([*layers, layer], batch_size=len(arrays[0]), gradients="all")
    net.forward(**bottoms)
    net.backward(**({} if layer.is_loss else {"y": np.ones_like(net.blobs["y"].data)}))
    net.blobs["y"].diff[...] = 1
    plan = net.passes.plan(at_once=layer.is_loss)
    programs: dict[str, Any] = {}

    def calls(make: Callable[..., None]) -> None:
        for c in (*plan.forward, *plan.backward):
            if c.layer.name == "y":
                make(c.recordable, c.layer, c.call, c.bottoms, c.tops, way="forward")

    return lambda: net.engine.repeat(programs, "y", calls)  # as in a step


def their_layer(torch: Any, make: Callable[[Any], Any], arrays: list[Array]) -> Callable[[], None]:
    """Return a call that makes the two passes of a module of PyTorch."""
    module, bottoms = make(torch), [torch.from_numpy(array) for array in arrays]
    for bottom in bottoms:
        bottom.requires_grad_(bottom.is_floating_point())
    parameters = list(module.parameters()) if hasattr(module, "parameters") else []
    made = module(*bottoms)
    diff = torch.ones_like(made)

    def passes() -> None:
        for tensor in (*parameters, *bottoms):
            tensor.grad = None
        top = module(*bottoms)
        if top.requires_grad:
            top.backward(diff)

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
    for name, row in ROWS.items():
        if args.only.lower() in name.lower():
            arrays = [draw(rng, args.batch) for draw in row.bottoms]
            programs[name] = [our_layer(row.layer(), arrays)]
            programs[name] += [their_layer(torch, row.module, arrays)] if torch else []
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
