#!/usr/bin/env python3
"""Training shared by processes, its collective and memory; preparing by processes and by Dask.

    python benchmarks/scale.py                      1 and 2 processes at batch 64, 512 and 4096
    python benchmarks/scale.py --images 1000000     resident memory while so many images train
    python benchmarks/scale.py --prepare a.zip      plain processes against a Dask cluster of two

The net is the paper's, on random images; a step takes two shards of half the batch, and each
process has one thread. `--images` writes a file of 69 x 69 images of one byte a pixel into
runs/scale (4.8 GB for a million), trains on it, and tells the largest resident memory. `--prepare`
takes the first pictures of a zip, and compares processor time, too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from cpu import Parser, positive

import layerkit as lk
from layerkit import distributed
from layerkit import layers as L
from layerkit.cli.command import run
from layerkit.errors import BackendError

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "runs/scale"
SIDE, SHARDS = 69, 2
BLOCK = 4096  # images written at once


def solver_on(data: lk.Layer, rows: int) -> lk.Adam:
    """Return Adam on the paper's net."""
    net = lk.Net(lk.with_data(lk.load_net(ROOT / "nets/galaxy_gdae.py"), data), rows)
    return lk.Adam(net, 1e-4)


def measure(
    comm: distributed.Communicator, batch: int, steps: int, shards: int
) -> dict[str, float]:
    """Return milliseconds of a step, in all and in the collective; without shards, of one alone."""
    images = np.random.default_rng(0).integers(0, 60, (8192, 1, SIDE, SIDE), dtype=np.uint8)
    data = L.MemoryData("x", data=images, scale=1 / 255)
    solver = solver_on(data, batch // (shards or 1))
    waited: list[float] = []
    if shards:
        lk.Distributed(solver, comm, shards=shards)
        add_up = comm.add_up

        def timed(*arguments: Any) -> None:
            started = time.perf_counter()
            add_up(*arguments)
            waited.append(time.perf_counter() - started)

        comm.add_up = timed  # type: ignore[method-assign]
    solver.steps(5)
    waited.clear()
    took = []
    for _ in range(steps):
        started = time.perf_counter()
        solver.step()
        took.append(time.perf_counter() - started)
    collective = float(np.median(waited)) if waited else 0.0
    return {"step": 1e3 * float(np.median(took)), "collective": 1e3 * collective}


def in_processes(processes: int, batch: int, steps: int, shards: int) -> dict[str, float]:
    """Measure in as many processes of mpiexec."""
    command = [sys.executable, __file__, "--worker", str(batch), str(steps), str(shards)]
    if processes > 1:
        beside = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
        launcher = beside or shutil.which("mpiexec")
        if launcher is None:
            raise BackendError("there is no mpiexec: pip install 'layerkit[mpi]'")
        command = [launcher, "-n", str(processes), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise BackendError(f"{' '.join(command)} failed: {done.stderr}")
    return json.loads(done.stdout)


def compare(batches: list[int], seconds: float) -> None:
    """Print a table of one process against two."""
    print("milliseconds of a step, medians; collective: the part of 2 processes spent in it")
    print("| batch | 1 process, no shards | 1 process | 2 processes | 1 / 2 | collective |")
    print("| --- | --- | --- | --- | --- | --- |")
    for batch in batches:
        steps = max(5, min(100, int(seconds * 1000 / (0.08 * batch + 3))))
        plain = in_processes(1, batch, steps, 0)["step"]
        one = in_processes(1, batch, steps, SHARDS)["step"]
        two = in_processes(2, batch, steps, SHARDS)
        print(
            f"| {batch} | {plain:.1f} | {one:.1f} | {two['step']:.1f} | {one / two['step']:.2f} | "
            f"{two['collective']:.2f} ms, {two['collective'] / two['step']:.0%} |",
            flush=True,
        )


def written(count: int) -> Path:
    """Return a file of so many random images, written if it is not there yet."""
    path = FOLDER / f"{count}.h5"
    if path.exists():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    rng, draft = np.random.default_rng(0), path.with_suffix(".draft")
    some = rng.integers(0, 60, (BLOCK, 1, SIDE, SIDE), np.uint8)  # turned anew for each block
    with h5py.File(draft, "w") as file:
        images = file.create_dataset("images", (count, 1, SIDE, SIDE), np.uint8)
        for start in range(0, count, BLOCK):
            rows = min(BLOCK, count - start)
            images[start : start + rows] = np.roll(some, rng.integers(some.size))[:rows]
    draft.rename(path)
    return path


def train_on(count: int, steps: int) -> None:
    """Train on a file of so many images, and print the largest resident memory."""
    path = written(count)
    data = L.HDF5Data("x", path=path, scale=1 / 255)
    solver = solver_on(data, 64)
    lk.Distributed(solver, distributed.alone(), shards=SHARDS)
    started = time.perf_counter()
    solver.steps(steps)
    took = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(
        f"{count:,} images of {path.stat().st_size / count:,.0f} bytes: {steps} steps of "
        f"{64 * SHARDS}, {64 * SHARDS * steps / took:,.0f} images per second, largest resident "
        f"memory {peak:,.0f} MB"
    )


def prepare(path: Path, count: int) -> None:
    """Print what preparing the first pictures of a zip takes two processes, plain and of Dask."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    some = FOLDER / "pictures.zip"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(some, "w") as part:
        entries = [e for e in whole.infolist() if not e.is_dir()][:count]
        for entry in entries:
            part.writestr(entry.filename, whole.read(entry))
    out = FOLDER / "prepared"
    command = [sys.executable, "-m", "layerkit", "galaxy", "prepare", str(some), "--out", str(out)]
    command += ["--workers", "2", "--shard-rows", str(-(-len(entries) // 4))]
    print(f"{len(entries)} pictures into 4 shards, all of it with the start of processes")
    for name, more in (("plain", []), ("Dask", ["--scheduler", "local"])):
        shutil.rmtree(out, ignore_errors=True)
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        took, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise BackendError(f"{' '.join([*command, *more])} failed: {done.stderr}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{name}: {took:.1f} s, {cpu:.1f} s of processors")


def main() -> None:
    """Read the command line, and measure."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--batches", default="64,512,4096", metavar="N,N", help="batches to measure"
    )
    parser.add_argument(
        "--seconds", type=positive, default=2.0, metavar="S", help="for each number of the table"
    )
    parser.add_argument("--images", type=int, metavar="N", help="train on a file of so many images")
    parser.add_argument("--steps", type=int, default=200, help="steps on the file of --images")
    parser.add_argument("--prepare", type=Path, metavar="ZIP", help="prepare pictures of this zip")
    parser.add_argument("--pictures", type=int, default=3000, help="of --prepare")
    parser.add_argument("--worker", nargs=3, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        comm = distributed.started()
        found = measure(comm, *args.worker)
        if comm.leads:
            print(json.dumps(found))
    elif args.prepare:
        prepare(args.prepare, args.pictures)
    elif args.images:
        train_on(args.images, args.steps)
    else:
        compare([int(text) for text in args.batches.split(",")], args.seconds)


if __name__ == "__main__":
    run(main)
