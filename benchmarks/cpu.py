#!/usr/bin/env python3
"""Training speed on the CPU: layerkit and its peers, in turn, in one run.

An iteration is what the paper counts: the next minibatch, the noise, forward, backward, Adam, for
the net of section 3.1 on 8192 real galaxies of 69 x 69 pixels in float32.  Every program runs at
each batch size in a process of its own, one after the other, several rounds, so that a slow moment
of the machine strikes all alike; the table shows medians over the rounds.  The steady state is
timed: before it every program trains for 2000 steps (800 above 128 examples), as units that are
never active and moments that decay change the speed of training for good.

    python benchmarks/cpu.py                                    # the default galaxies
    python benchmarks/cpu.py --data images.zip --rounds 3       # others
    python benchmarks/cpu.py --torch-python PYTHON --jax-python PYTHON

The peers are in benchmarks/peers.  One whose package is missing is left out, and the output says
so.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
IMAGES = 8192
PEERS = {  # name -> program, package, arguments
    "PyTorch eager": ("torch_gdae.py", "torch", ["--device", "cpu", "--mode", "eager"]),
    "PyTorch compile": ("torch_gdae.py", "torch", ["--device", "cpu", "--mode", "compile"]),
    "JAX jit": ("jax_gdae.py", "jax", []),
}


def main() -> None:
    """Runs everything and prints a Markdown table."""
    parser = Parser(__doc__)
    add_arguments(parser, [1, 16, 128, 512], 5)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args.images, args.warm_up, args.seconds)
        return
    from layerkit.cli.command import run  # not at the top: a worker times how long this takes

    run(lambda: benchmark(args))


def benchmark(args: argparse.Namespace) -> None:
    """Measures all programs and prints the tables."""
    programs = find_programs(Path(__file__), PEERS, args)
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: Linux counts the memory of a program's parent as the program's.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            images = pool.submit(save_images, args.data, Path(folder)).result()
        results = measure(programs, args.batches, images, args)
    print(report(programs, args.batches, results))


class Parser(argparse.ArgumentParser):
    """A parser of command lines whose errors are one line."""

    def __init__(self, description: str | None):
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"error: {' '.join(message.split())}; see --help\n")


def number(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def steps(text: str) -> int:
    """A whole number from 0 on."""
    return 0 if text.isdecimal() and not int(text) else number(text)


def positive(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def batch_sizes(text: str) -> list[int]:
    """Numbers of examples, each once, of which there are no more than IMAGES."""
    sizes = list(dict.fromkeys(number(part.strip()) for part in text.split(",")))
    if max(sizes) > IMAGES:
        raise argparse.ArgumentTypeError(f"a batch of {max(sizes)} is more than all {IMAGES}")
    return sizes


def add_arguments(parser: argparse.ArgumentParser, batches: list[int], rounds: int) -> None:
    """Add the options of this benchmark and of the GPU's."""
    add = parser.add_argument
    add("--data", help="pictures to train on, as for the example (default: the Hubble Deep Field)")
    add("--torch-python", default=sys.executable, help="has PyTorch")
    add("--jax-python", default=sys.executable, help="has JAX")
    add(
        "--batches",
        type=batch_sizes,
        metavar="SIZES",
        help=f"default: {','.join(map(str, batches))}",
    )
    parser.set_defaults(batches=batches)
    add("--rounds", type=number, default=rounds)
    add("--seconds", type=positive, default=0.5, help="per measurement, five of them")
    add(
        "--warm-up",
        type=steps,
        metavar="STEPS",
        help="before measuring (default: 2000 up to 128 examples, 800 above)",
    )
    add("--worker", type=int, help=argparse.SUPPRESS)
    add("--images", help=argparse.SUPPRESS)


def steps_before(batch: int, asked: int | None) -> int:
    """How many steps warm a program up."""
    return asked if asked is not None else 2000 if batch <= 128 else 800


def save_images(data: str | None, folder: Path) -> Path:
    """Writes IMAGES galaxies, float32 (IMAGES, PIXELS), where all programs read them.

    Few are repeated, turned and mirrored.
    """
    import numpy as np

    from layerkit import galaxy
    from layerkit.data.augment import dihedral, dihedral_table

    with contextlib.redirect_stdout(sys.stderr):  # standard output is for the tables
        images = galaxy.gather(data, folder / "galaxies.h5").images
    rows = np.arange(IMAGES)
    turned = dihedral(
        np, images[rows % len(images)], dihedral_table(images.shape[-1]), rows // len(images) % 8
    )
    np.save(folder / "images.npy", turned.reshape(IMAGES, -1).astype("float32"))
    return folder / "images.npy"


def find_programs(
    own: Path, peers: dict[str, tuple[str, str, list[str]]], args: argparse.Namespace
) -> dict[str, list[str]]:
    """Name -> command of layerkit and of each peer that can run."""
    programs = {"layerkit": [sys.executable, str(own.resolve())]}
    for name, (file, package, options) in peers.items():
        python = args.torch_python if package == "torch" else args.jax_python
        if shutil.which(python) is None:
            print(f"{name}: left out, there is no program {python}", file=sys.stderr)
        elif subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode:
            print(f"{name}: left out, {python} cannot import {package}", file=sys.stderr)
        else:
            programs[name] = [python, str(ROOT / "benchmarks" / "peers" / file), *options]
    return programs


def command_of(
    programs: dict[str, list[str]], name: str, batch: int, images: Path, args: argparse.Namespace
) -> list[str]:
    """One measurement of one program."""
    own = name == "layerkit"
    return [
        *programs[name],
        "--worker" if own else "--batch",
        str(batch),
        "--images" if own else "--data",
        str(images),
        "--seconds",
        str(args.seconds),
        "--warm-up",
        str(steps_before(batch, args.warm_up)),
    ]


def measure(
    programs: dict[str, list[str]], batches: list[int], images: Path, args: argparse.Namespace
) -> dict[tuple[str, int], list[dict[str, float]]]:
    """Name and batch -> what each round found."""
    # Compiles kernels, once; later processes find them in the cache.
    quick = argparse.Namespace(seconds=0.01, warm_up=1)
    run(command_of(programs, "layerkit", batches[0], images, quick))
    results: dict[tuple[str, int], list[dict[str, float]]] = {}
    for turn in range(args.rounds):
        for batch in batches:
            for name in random.Random(turn).sample(list(programs), len(programs)):
                found = run(command_of(programs, name, batch, images, args))
                if found is None:
                    print(f"{name}, batch {batch}: failed", file=sys.stderr)
                else:
                    results.setdefault((name, batch), []).append(found)
                    print(
                        f"round {turn + 1} {name} {batch}: {found['ms_per_iteration']:.3f} ms",
                        file=sys.stderr,
                        flush=True,
                    )
    return results


def run(command: list[str]) -> dict[str, float] | None:
    """The last line of a program, which is JSON, with the most memory it used, in MB."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not lines:
        return None
    return {"memory": usage.ru_maxrss / 1024, **json.loads(lines[-1])}


def worker(batch: int, images: str, warm_up: int, seconds: float) -> None:
    """layerkit at one batch size, in the way of the peers; prints one line of JSON."""
    started = time.perf_counter()
    import layerkit as lk

    imported = time.perf_counter() - started
    import numpy as np

    from layerkit import layers as L
    from layerkit.inspection import profile

    array = np.load(images)
    layers = lk.load_net(ROOT / "nets" / "galaxy_gdae.py", pixels=array.shape[1])
    started = time.perf_counter()
    data = L.MemoryData("x", data=array, shuffle=False)  # the peers read theirs in order, too
    net = lk.Net(lk.with_data(layers, data), batch_size=batch)
    built = time.perf_counter() - started
    solver = lk.Adam(net)
    started = time.perf_counter()
    solver.step()
    first = time.perf_counter() - started

    def repeat(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            solver.step()
        return (time.perf_counter() - start) / count

    repeat(max(warm_up, 1))
    rounds = max(10, int(seconds / repeat(10)))
    spent = statistics.median(repeat(rounds) for _ in range(5))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table = solver.profile(max(5, min(rounds, 100)))  # takes more memory, to measure peaks
    copy_memory = profile.copy_peak(net.engine, 256 << 20)
    others = sum(r.bytes for r in (*table.forward, *table.backward) if r.type != "Dense")
    updated = 2 * net.arena.data.nbytes * (1 + len(solver.history))  # read and written
    update = update_alone(solver)
    print(
        json.dumps(
            {
                "ms_per_iteration": 1e3 * spent,
                "memory": memory,
                "import": imported,
                "built": built,
                "first": first,
                "gemm": table.gemm,
                "copy": table.copy,
                "bound": table.bound,
                "threads": table.threads,
                "update": update,
                "copy_memory": copy_memory,
                "passes": 1e3 * (updated + others) / copy_memory,
                "products": products_alone(net),
                "idle": float((solver.history["m"] == 0).mean()),
            }
        )
    )


def update_alone(solver: Any) -> float:
    """Milliseconds of Adam's update of all parameters, on flat arrays and without anything else.

    It is what a step at batch 1 cannot do without: every parameter and both its moments are read
    and written.  Here gradients are read as well, which a step need not do.
    """
    arena, update, engine = solver.net.arena, solver._update, solver.net.engine
    times = []
    for _ in range(50):
        start = time.perf_counter()
        engine.update(update, slice(None), arena.data, arena.diff, update.constants)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def products_alone(net: Any) -> float:
    """Milliseconds that NumPy, with its own threads, takes for a step's matrix products alone.

    On the net's own arrays, in the order of a step, and without biases, activations or an update.
    """
    import numpy as np

    from layerkit import layers as L

    forward, backward = [], []
    dense = [layer for layer in net.layers.values() if isinstance(layer, L.Dense)]
    gradient = np.empty(max(layer.w.size for layer in dense), net.dtype)
    for layer in dense:
        bottom, top, w = net.blobs[layer.bottoms[0]], net.blobs[layer.tops[0]], layer.w
        x, shape = bottom.data.reshape(-1, w.shape[0]), w.shape
        forward.append((x, w.data, top.data))
        if bottom.diff is not None:
            backward.append((top.diff, w.data.T, bottom.diff.reshape(x.shape)))
        backward.append((x.T, top.diff, gradient[: w.size].reshape(shape)))
    times = []
    for _ in range(30):
        start = time.perf_counter()
        for a, b, out in (*forward, *reversed(backward)):
            np.matmul(a, b, out=out)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def report(
    programs: dict[str, list[str]],
    batches: list[int],
    results: dict[tuple[str, int], list[dict[str, float]]],
) -> str:
    """The tables, in Markdown."""

    def median(name: str, batch: int, key: str = "ms_per_iteration") -> float:
        found = [r[key] for r in results.get((name, batch), ())]
        return statistics.median(found) if found else float("nan")

    peers = [name for name in programs if name != "layerkit"]

    def row(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    head = ["batch", "layerkit", "iterations/s", *peers]
    if peers:
        head.append("fastest peer / layerkit")
    lines = [
        f"{machine()}, {median('layerkit', batches[0], 'threads'):.0f} threads, "
        f"Python {platform.python_version()}. Milliseconds per iteration.",
        "",
        row(head),
        row("---" for _ in head),
    ]
    ratios = []
    for batch in batches:
        own, others = median("layerkit", batch), [median(p, batch) for p in peers]
        cells = [str(batch), f"{own:.3f}", f"{1e3 / own:,.0f}", *(f"{o:.3f}" for o in others)]
        if peers:
            ratios.append(min(others) / own)
            cells.append(f"{ratios[-1]:.2f}")
        lines.append(row(cells))
    if peers:
        lines += ["", f"Geometric mean of the ratios: {statistics.geometric_mean(ratios):.2f}."]
    head = [
        "batch",
        "peak memory, MB: layerkit",
        *peers,
        "GEMM peak, GF/s",
        "copy peak, GB/s",
        "bound, ms",
        "share of the bound",
        "products alone, ms",
        "traffic, ms",
        "sum's share",
    ]
    lines += ["", row(head), row("---" for _ in head)]
    for batch in batches:
        of = functools.partial(median, "layerkit", batch)
        lines.append(
            row(
                [
                    str(batch),
                    *(f"{median(n, batch, 'memory'):.0f}" for n in ("layerkit", *peers)),
                    f"{of('gemm') / 1e9:.0f}",
                    f"{of('copy') / 1e9:.0f}",
                    f"{of('bound'):.3f}",
                    f"{of('bound') / of('ms_per_iteration'):.0%}",
                    f"{of('products'):.3f}",
                    f"{of('passes'):.3f}",
                    f"{(of('products') + of('passes')) / of('ms_per_iteration'):.0%}",
                ]
            )
        )
    first = batches[0]
    lines += [
        "",
        f"`import layerkit`: {median('layerkit', first, 'import'):.2f} s. In a fresh process "
        f"with a warm cache, building the net takes {median('layerkit', first, 'built'):.2f} s "
        f"and the first step {median('layerkit', first, 'first'):.2f} s.",
        "Adam's update alone, of all parameters in flat arrays: "
        f"{median('layerkit', first, 'update'):.2f} ms.",
        "Parameters without a gradient when measured (their moment is zero): "
        + ", ".join(f"{median('layerkit', b, 'idle'):.0%} at {b}" for b in batches)
        + ".",
        f"Copying from memory rather than cache: "
        f"{median('layerkit', first, 'copy_memory') / 1e9:.0f} GB/s.",
    ]
    return "\n".join(lines)


def machine() -> str:
    """The processor in words, without the host's name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        model = next(x.split(":", 1)[1].strip() for x in text.splitlines() if "model name" in x)
        vector = next((n for n in ("avx512f", "avx2") if f" {n} " in text), "no AVX2")
    except (OSError, StopIteration):
        model, vector = platform.processor() or platform.machine(), "vector unit unknown"
    return f"{model} ({vector})"


if __name__ == "__main__":
    main()
