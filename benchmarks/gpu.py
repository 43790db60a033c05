#!/usr/bin/env python3
"""Training speed on a GPU: layerkit and its peers, in turn, in one run.

As benchmarks/cpu.py, on one NVIDIA GPU: the data set is resident there, and each program replays or
launches whatever it does fastest.  Float32 and TF32 (matrix products with 10 bits of factors) are
measured by themselves.  The GPU should do nothing else meanwhile, as its memory is measured as what
is in use beyond what was in use before.

    python benchmarks/gpu.py --torch-python PYTHON --jax-python PYTHON
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
from collections.abc import Iterable
from pathlib import Path

from cpu import ROOT, add_arguments, command_of, find_programs, save_images

PEERS = {  # name -> program, package, arguments
    "PyTorch eager": ("torch_gdae.py", "torch", ["--device", "cuda", "--mode", "eager"]),
    "PyTorch compile": ("torch_gdae.py", "torch", ["--device", "cuda", "--mode", "compile"]),
    "PyTorch graph": ("torch_gdae.py", "torch", ["--device", "cuda", "--mode", "graph"]),
    "JAX jit": ("jax_gdae.py", "jax", []),
}
# JAX takes TF32 by itself unless told otherwise, and all of the memory.
FLOAT32 = {"JAX_DEFAULT_MATMUL_PRECISION": "float32"}
SETTINGS = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def main() -> int:
    """Runs everything and prints Markdown tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, "1,16,128,1024,8192", 3)
    parser.add_argument("--tf32", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(worker(args.worker, args.images, args.warm_up, args.seconds, args.tf32)))
        return 0
    from layerkit import backends
    from layerkit.errors import BackendError

    try:
        backends.get("cupy")
    except BackendError as error:
        print(f"error: this benchmark needs a GPU: {error}", file=sys.stderr)
        return 2

    batches = [int(b) for b in args.batches.split(",")]
    programs = find_programs(Path(__file__), PEERS, args)
    with tempfile.TemporaryDirectory() as folder:
        images = save_images(args.data, Path(folder))
        results = measure(programs, batches, images, args)
    print(smi("name,driver_version"), end="\n\n")
    for tf32 in (False, True):
        print(report(list(programs), batches, tf32, results), end="\n\n")
    return 0


def measure(
    programs: dict[str, list[str]], batches: list[int], images: Path, args: argparse.Namespace
) -> dict[tuple[str, bool, int], list[dict[str, float]]]:
    """Name, precision and batch -> what each round found."""
    results: dict[tuple[str, bool, int], list[dict[str, float]]] = {}
    for turn in range(args.rounds):
        for tf32 in (False, True):
            for batch in batches:
                for name in random.Random(turn).sample(list(programs), len(programs)):
                    command = command_of(programs, name, batch, images, args)
                    found = run([*command, "--tf32"] if tf32 else command, tf32)
                    label = f"{name}{' TF32' if tf32 else ''}, batch {batch}"
                    if found is None or found.get("device") == "cpu":
                        print(f"{label}: failed, or not on the GPU", file=sys.stderr)
                    else:
                        results.setdefault((name, tf32, batch), []).append(found)
                        print(f"round {turn + 1} {label}: {found['ms_per_iteration']:.4f} ms",
                              file=sys.stderr, flush=True)
    return results


def smi(query: str) -> str:
    """What nvidia-smi says of the first GPU, or nothing."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def used() -> float:
    """Memory of the GPU in use, MiB."""
    answer = smi("memory.used")
    return float(answer) if answer.isdigit() else float("nan")


def run(command: list[str], tf32: bool) -> dict[str, float] | None:
    """The last line of a program, which is JSON, with the GPU memory that it used, in MiB."""
    before, seen = used(), [0.0]
    environment = {**os.environ, **SETTINGS, **({} if tf32 else FLOAT32)}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            seen.append(used() - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        process = subprocess.run(command, capture_output=True, text=True, env=environment)
    finally:
        done.set()
        watcher.join()
    lines = process.stdout.splitlines()
    if process.returncode or not lines:
        print(process.stderr[-2000:], file=sys.stderr)
        return None
    return {"memory": max(seen), **json.loads(lines[-1])}


def worker(
    batch: int, images: str, warm_up: int, seconds: float, tf32: bool
) -> dict[str, float]:
    """layerkit at one batch size, in the way of the peers."""
    import numpy as np

    import layerkit as lk
    from layerkit import layers as L

    array = np.load(images)
    data = L.MemoryData("x", data=array, shuffle=False)  # the peers read theirs in order, too
    layers = lk.load_net(ROOT / "nets" / "galaxy_gdae.py", pixels=array.shape[1])
    net = lk.Net(lk.with_data(layers, data), batch_size=batch, backend="cupy", tf32=tf32)
    solver = lk.Adam(net)

    def repeat(count: int) -> float:
        net.backend.synchronize()
        start = time.perf_counter()
        solver.steps(count)  # reads the losses in the end, so all is done
        return (time.perf_counter() - start) / count

    repeat(max(warm_up, 1))
    rounds = max(10, int(seconds / repeat(10)))
    spent = statistics.median(repeat(rounds) for _ in range(5))
    table = solver.profile(20)
    # An update that layers do not make themselves: gradients are read, the rest also written.
    apart = sum(p.data.nbytes for n, p in net.params.items() if n not in solver.plan().updated)
    update = apart * (2 * (1 + len(solver.history)) + 1) / table.copy
    return {
        "ms_per_iteration": 1e3 * spent, "gemm": table.gemm, "copy": table.copy,
        "bound": table.bound + 1e3 * update,
    }


def report(
    programs: list[str], batches: list[int], tf32: bool,
    results: dict[tuple[str, bool, int], list[dict[str, float]]],
) -> str:
    """The table of one precision, in Markdown."""
    def median(name: str, batch: int, key: str = "ms_per_iteration") -> float:
        found = [r[key] for r in results.get((name, tf32, batch), ())]
        return statistics.median(found) if found else float("nan")

    def row(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    peers = [name for name in programs if name != "layerkit"]
    head = ["batch", "layerkit, ms", "images/s", *(f"{p}, ms" for p in peers)]
    if peers:
        head.append("fastest peer / layerkit")
    head += ["GPU memory, MiB: layerkit", *peers]
    head += ["GEMM peak, TF/s", "copy peak, GB/s", "bound, ms", "share of the bound"]
    lines = [f"{'TF32' if tf32 else 'Float32'}, milliseconds per iteration:", "", row(head),
             row("---" for _ in head)]
    for batch in batches:
        own, others = median("layerkit", batch), [median(p, batch) for p in peers]
        cells = [str(batch), f"{own:.4f}", f"{1e3 * batch / own:,.0f}"]
        cells += [f"{o:.4f}" for o in others]
        if peers:
            measured = [o for o in others if o == o]
            cells.append(f"{min(measured) / own:.2f}" if measured else "")
        cells += [f"{median(p, batch, 'memory'):.0f}" for p in ("layerkit", *peers)]
        bound = median("layerkit", batch, "bound")
        cells += [f"{median('layerkit', batch, 'gemm') / 1e12:.1f}",
                  f"{median('layerkit', batch, 'copy') / 1e9:.0f}", f"{bound:.4f}",
                  f"{bound / own:.0%}"]
        lines.append(row(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
