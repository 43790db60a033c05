#!/usr/bin/env python3
"""Training speed on a GPU: layerkit and its peers, in turn, in one run.

As benchmarks/cpu.py, on one NVIDIA GPU: the data set is resident there, and each program replays or
launches whatever it does fastest.  Float32 and TF32 (matrix products with 10 bits of factors) are
measured by themselves.  The GPU should do nothing else meanwhile, as its memory is measured as what
is in use beyond what was in use before.

    python benchmarks/gpu.py --smoke                         # the first thing to do on a new GPU
    python benchmarks/gpu.py --minutes 8 --programs layerkit,pytorch-graph --batches 1,128
    python benchmarks/gpu.py --torch-python PYTHON --jax-python PYTHON

--smoke measures nothing: it checks versions, products, recorded steps and data, one line each, and
its exit status is 1 if any check failed.  Tables go to standard output, in Markdown; what happens
meanwhile goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cpu import ROOT, Parser, add_arguments, command_of, find_programs, positive, save_images
from peers import turns

PEERS = {  # name -> program, package, arguments
    "PyTorch eager": ("torch_gdae.py", "torch", ["--device", "cuda", "--mode", "eager"]),
    "PyTorch compile": ("torch_gdae.py", "torch", ["--device", "cuda", "--mode", "compile"]),
    "PyTorch graph": ("torch_gdae.py", "torch", ["--device", "cuda", "--mode", "graph"]),
    "JAX jit": ("jax_gdae.py", "jax", []),
}
# JAX takes TF32 by itself unless told otherwise, and all of the memory.
FLOAT32 = {"JAX_DEFAULT_MATMUL_PRECISION": "float32"}
SETTINGS = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


PRECISIONS = ("float32", "tf32")
Cell = tuple[str, bool, int]  # a program, whether with TF32, the batch


def main(words: Sequence[str] | None = None) -> int:
    """Run everything and print Markdown tables."""
    started = time.monotonic()
    parser = Parser(__doc__)
    add_arguments(parser, [1, 16, 128, 1024, 8192], 3)
    names = ["layerkit", *PEERS]
    parser.add_argument(
        "--programs",
        type=choice_of(names),
        default=names,
        metavar="NAMES",
        help=f"default: {','.join(map(short, names))}",
    )
    parser.add_argument(
        "--precisions",
        type=choice_of(PRECISIONS),
        default=list(PRECISIONS),
        metavar="NAMES",
        help=f"default: {','.join(PRECISIONS)}",
    )
    parser.add_argument(
        "--minutes",
        type=positive,
        metavar="M",
        help="after which the rest is left out (default: all is measured)",
    )
    parser.add_argument("--smoke", action="store_true", help="check the GPU, measure nothing")
    parser.add_argument("--tf32", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.worker:
        print(json.dumps(worker(args)))
        return 0
    import layerkit as lk
    from layerkit import layers as L
    from layerkit.errors import BackendError

    try:
        lk.Net([L.Input("x", shape=(1,))], backend="cupy")
    except BackendError as error:
        print(f"error: this benchmark needs a GPU: {error}", file=sys.stderr)
        return 2
    if args.smoke:
        import smoke

        return smoke.run(
            smoke.BATCHES if args.batches is parser.get_default("batches") else args.batches
        )
    peers = {name: peer for name, peer in PEERS.items() if name in args.programs}
    programs = find_programs(Path(__file__), peers, args)
    if "layerkit" not in args.programs:
        del programs["layerkit"]
    if not programs:
        print("error: none of these programs can run here", file=sys.stderr)
        return 2
    deadline = started + 60 * args.minutes if args.minutes else float("inf")
    with tempfile.TemporaryDirectory() as folder:
        images = save_images(args.data, Path(folder))
        results, left = measure(programs, images, deadline, args)
    print(smi("name,driver_version"), end="\n\n")
    for precision in args.precisions:
        print(report(list(programs), args.batches, precision == "tf32", results), end="\n\n")
    if left:
        print(f"Left out, as {args.minutes:g} minutes were over: {'; '.join(left)}.")
    return 0


def short(name: str) -> str:
    """A program's name as it is easily typed."""
    return name.lower().replace(" ", "-")


def choice_of(names: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a function that finds the `names` meant by a list separated by commas."""
    known = {short(name): name for name in names}

    def choose(text: str) -> list[str]:
        wanted = [short(part.strip()) for part in text.split(",")]
        for name in wanted:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return [known[name] for name in known if name in wanted]

    return choose


def measure(
    programs: dict[str, list[str]], images: Path, deadline: float, args: argparse.Namespace
) -> tuple[dict[Cell, list[dict[str, float]]], list[str]]:
    """Name, precision and batch -> what each round found; what was left out at the deadline."""
    results: dict[Cell, list[dict[str, float]]] = {}
    left: dict[str, list[int]] = {}  # by label, rounds
    for turn in range(args.rounds):
        for precision in args.precisions:
            tf32 = precision == "tf32"
            for batch in args.batches:
                for name in random.Random(turn).sample(list(programs), len(programs)):
                    label = f"{name}{' TF32' if tf32 else ''}, batch {batch}"
                    command = command_of(programs, name, batch, images, args)
                    try:
                        found = run([*command, "--tf32"] if tf32 else command, tf32, deadline)
                    except subprocess.TimeoutExpired:
                        left.setdefault(label, []).append(turn + 1)
                        continue
                    if found is None or found.get("device") == "cpu":
                        print(f"{label}: failed, or not on the GPU", file=sys.stderr, flush=True)
                    else:
                        results.setdefault((name, tf32, batch), []).append(found)
                        print(
                            f"round {turn + 1} {label}: {found['ms_per_iteration']:.4f} ms",
                            file=sys.stderr,
                            flush=True,
                        )
    return results, [
        f"{label} ({'round' if len(turns) == 1 else 'rounds'} {', '.join(map(str, turns))})"
        for label, turns in left.items()
    ]


def smi(query: str) -> str:
    """Return what nvidia-smi says of the first GPU, or nothing."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def used() -> float:
    """Memory of the GPU in use, MiB."""
    answer = smi("memory.used")
    return float(answer) if answer.isdigit() else float("nan")


def run(command: list[str], tf32: bool, deadline: float) -> dict[str, float] | None:
    """The last line of a program, which is JSON, with the GPU memory that it used, in MiB.

    Raises:
        subprocess.TimeoutExpired: the deadline has come, and the program is ended.
    """
    remaining = None if deadline == float("inf") else deadline - time.monotonic()
    if remaining is not None and remaining <= 0:
        raise subprocess.TimeoutExpired(command, 0)
    before, seen = used(), [0.0]
    environment = {**os.environ, **SETTINGS, **({} if tf32 else FLOAT32)}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            seen.append(used() - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=remaining
        )
    finally:
        done.set()
        watcher.join()
    lines = process.stdout.splitlines()
    if process.returncode or not lines:
        print(process.stderr[-2000:], file=sys.stderr, flush=True)
        return None
    return {"memory": max(seen), **json.loads(lines[-1])}


def worker(args: argparse.Namespace) -> dict[str, float]:
    """Time layerkit at one batch size, as the peers do."""
    import numpy as np

    import layerkit as lk
    from layerkit import layers as L

    array = np.load(args.images)
    data = L.MemoryData("x", data=array, shuffle=False)  # the peers read theirs in order, too
    layers = lk.load_net(ROOT / "nets" / "galaxy_gdae.py", pixels=array.shape[1])
    net = lk.Net(lk.with_data(layers, data), batch_size=args.worker, backend="cupy", tf32=args.tf32)
    solver = lk.Adam(net)

    def repeat(count: int) -> float:
        net.backend.synchronize()
        start = time.perf_counter()
        solver.steps(count)  # reads the losses in the end, so all is done
        return (time.perf_counter() - start) / count

    spent = turns.measure(repeat, args)
    table = solver.profile(20)
    # An update that layers do not make themselves: gradients are read, the rest also written.
    apart = sum(p.data.nbytes for n, p in net.params.items() if n not in solver.plan().updated)
    update = apart * (2 * (1 + len(solver.history)) + 1) / table.copy
    return {
        "ms_per_iteration": spent,
        "gemm": table.gemm,
        "copy": table.copy,
        "bound": table.bound + 1e3 * update,
    }


def report(
    programs: list[str], batches: list[int], tf32: bool, results: dict[Cell, list[dict[str, float]]]
) -> str:
    """The table of one precision, in Markdown."""

    def median(name: str, batch: int, key: str = "ms_per_iteration") -> float:
        found = [r[key] for r in results.get((name, tf32, batch), ())]
        return statistics.median(found) if found else float("nan")

    def row(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def cell(number: float, form: str) -> str:
        return format(number, form) if number == number else ""  # not measured

    own = "layerkit" in programs
    peers = [name for name in programs if name != "layerkit"]
    head = ["batch", *(["layerkit, ms", "images/s"] if own else []), *(f"{p}, ms" for p in peers)]
    if own and peers:
        head.append("fastest peer / layerkit")
    head += [f"{name}, MiB" for name in programs]
    if own:
        head += ["GEMM peak, TF/s", "copy peak, GB/s", "bound, ms", "share of the bound"]
    lines = [
        f"{'TF32' if tf32 else 'Float32'}, milliseconds per iteration:",
        "",
        row(head),
        row("---" for _ in head),
    ]
    for batch in batches:
        mine, others = median("layerkit", batch), [median(p, batch) for p in peers]
        cells = [str(batch)]
        if own:
            cells += [cell(mine, ".4f"), cell(1e3 * batch / mine, ",.0f")]
        cells += [cell(o, ".4f") for o in others]
        if own and peers:
            fastest = min((o for o in others if o == o), default=float("nan"))
            cells.append(cell(fastest / mine, ".2f"))
        cells += [cell(median(p, batch, "memory"), ".0f") for p in programs]
        if own:
            bound = median("layerkit", batch, "bound")
            cells += [
                cell(median("layerkit", batch, "gemm") / 1e12, ".1f"),
                cell(median("layerkit", batch, "copy") / 1e9, ".0f"),
                cell(bound, ".4f"),
                cell(bound / mine, ".0%"),
            ]
        lines.append(row(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        from layerkit.cli import command
    except ImportError as error:
        print(
            f"error: {sys.executable} cannot import layerkit ({error}); take a Python that has "
            f"NumPy and h5py, with PYTHONPATH={ROOT} where layerkit is not installed",
            file=sys.stderr,
        )
        sys.exit(2)
    command.run(main)
