#!/usr/bin/env python3
"""Training shared by processes, its collective and memory; preparing by processes and by Dask.

    python benchmarks/scale.py                      1 and 2 processes at batch 64, 512 and 4096
    python benchmarks/scale.py --overlap            what an exchange during the backward pass hides
    python benchmarks/scale.py --images 1000000     resident memory while so many images train
    python benchmarks/scale.py --images 1000000 --shard-rows 100000     the images in ten files
    python benchmarks/scale.py --prepare a.zip      plain processes against a Dask cluster of two

The net is the paper's, on random images; a step takes two shards of half the batch, and each
process has one thread. `--images` writes 69 x 69 images of one byte a pixel into runs/scale (4.8 GB
for a million), trains on them, and tells the largest resident memory. `--prepare` takes the first
pictures of a zip, and compares processor time, too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
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
from layerkit.saving.shards import INDEX, KEPT

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
    """Return milliseconds of a step: in all, waiting for the other process, in the exchange.

    Without shards, those of a process alone.
    """
    images = np.random.default_rng(0).integers(0, 60, (8192, 1, SIDE, SIDE), dtype=np.uint8)
    data = L.MemoryData("x", data=images, scale=1 / 255)
    solver = solver_on(data, batch // (shards or 1))
    took: dict[str, list[float]] = {"step": [], "wait": [], "exchange": []}
    if shards:
        lk.Distributed(solver, comm, shards=shards)
        add_up, byte = comm.add_up, np.zeros((2, 1), np.uint8)

        def timed(*arguments: Any) -> None:
            started = time.perf_counter()
            if comm.size > 1:
                comm.exchange(byte[0], byte[1], comm.rank ^ 1)
            met = time.perf_counter()
            add_up(*arguments)
            took["wait"].append(met - started)
            took["exchange"].append(time.perf_counter() - met)

        comm.add_up = timed  # type: ignore[method-assign]
    solver.steps(5)
    for times in took.values():
        times.clear()
    for _ in range(steps):
        started = time.perf_counter()
        solver.step()
        took["step"].append(time.perf_counter() - started)
    return {name: 1e3 * float(np.median(times or [0])) for name, times in took.items()}


def overlap(comm: distributed.Communicator, batch: int, steps: int) -> dict[str, float]:
    """Return milliseconds of a backward pass, of an exchange of the gradient, and of both at once.

    The exchange is made by a thread of its own, as it would be during a step.
    """
    net = lk.Net(lk.load_net(ROOT / "nets/galaxy_gdae.py"), batch // 2)
    images = np.random.default_rng(0).random((batch // 2, SIDE**2), dtype=np.float32) / 4
    given, taken = np.ones((2, net.arena.diff.nbytes), np.uint8)

    def exchange() -> None:
        comm.exchange(given, taken, comm.rank ^ 1)

    def both() -> None:
        thread = threading.Thread(target=exchange)
        thread.start()
        net.backward()
        thread.join()

    took: dict[str, list[float]] = {"backward": [], "exchange": [], "both": []}
    for _ in range(steps):
        for name, call in (("backward", net.backward), ("exchange", exchange), ("both", both)):
            net.forward(x=images)
            comm.gather(None)  # both processes begin together
            started = time.perf_counter()
            call()
            took[name].append(time.perf_counter() - started)
    return {name: 1e3 * float(np.median(times[2:])) for name, times in took.items()}


def in_processes(processes: int, *work: object) -> dict[str, float]:
    """Measure in as many processes of mpiexec; `work` is what --worker is given."""
    command = [sys.executable, __file__, "--worker", *map(str, work)]
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


def steps_in(seconds: float, batch: int) -> int:
    """Return how many steps to measure, of about as many seconds."""
    return max(7, min(100, int(seconds * 1000 / (0.08 * batch + 3))))


def compare_overlap(batches: list[int], seconds: float) -> None:
    """Print a table of a backward pass and an exchange, one after the other and at once."""
    print("milliseconds in 2 processes of half the batch, medians; hidden: the share of the")
    print("exchange by which both at once take less than one after the other")
    print("| batch | backward pass | exchange | both at once | hidden |")
    print("| --- | --- | --- | --- | --- |")
    for batch in batches:
        found = in_processes(2, "overlap", batch, steps_in(seconds, batch), SHARDS)
        saved = found["backward"] + found["exchange"] - found["both"]
        print(
            f"| {batch} | {found['backward']:.1f} | {found['exchange']:.1f} | {found['both']:.1f} "
            f"| {saved / found['exchange']:.0%} |",
            flush=True,
        )


def compare(batches: list[int], seconds: float) -> None:
    """Print a table of one process against two."""
    print("milliseconds of a step, medians; of those of 2 processes, waiting for the other and in")
    print("the exchange with its addition, with the share of the step")
    print("| batch | 1 process, no shards | 1 process | 2 processes | 1 / 2 | waiting | exchange |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for batch in batches:
        steps = steps_in(seconds, batch)
        plain = in_processes(1, "step", batch, steps, 0)["step"]
        one = in_processes(1, "step", batch, steps, SHARDS)["step"]
        two = in_processes(2, "step", batch, steps, SHARDS)
        print(
            f"| {batch} | {plain:.1f} | {one:.1f} | {two['step']:.1f} | {one / two['step']:.2f} | "
            f"{two['wait']:.2f}, {two['wait'] / two['step']:.0%} | "
            f"{two['exchange']:.2f}, {two['exchange'] / two['step']:.0%} |",
            flush=True,
        )


def write(path: Path, count: int, rng: np.random.Generator) -> None:
    """Write a file of so many random images."""
    some = rng.integers(0, 60, (BLOCK, 1, SIDE, SIDE), np.uint8)  # turned anew for each block
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", (count, 1, SIDE, SIDE), np.uint8)
        for start in range(0, count, BLOCK):
            rows = min(BLOCK, count - start)
            images[start : start + rows] = np.roll(some, rng.integers(some.size))[:rows]


def written(count: int, shard_rows: int | None) -> Path:
    """Return a file of so many random images, or a folder of shards, written if not there yet."""
    path = FOLDER / (f"{count}-{shard_rows}" if shard_rows else f"{count}.h5")
    if path.exists():
        return path
    rng, draft = np.random.default_rng(0), path.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    if not shard_rows:
        FOLDER.mkdir(parents=True, exist_ok=True)
        write(draft, count, rng)
    else:
        draft.mkdir(parents=True)
        starts = range(0, count, shard_rows)
        for k, start in enumerate(starts):
            rows = min(shard_rows, count - start)
            write(draft / f"{k}.h5", rows, rng)
            (draft / f"{k}.json").write_text(json.dumps({KEPT: rows}))
        files = [{"file": f"{k}.h5"} for k in range(len(starts))]
        (draft / INDEX).write_text(json.dumps({"parts": files}))
    draft.rename(path)
    return path


def train_on(count: int, shard_rows: int | None, steps: int) -> None:
    """Train on so many images, and print the largest resident memory."""
    path = written(count, shard_rows)
    data = L.HDF5Data("x", path=path, scale=1 / 255, lanes=SHARDS)
    solver = solver_on(data, 64)
    lk.Distributed(solver, distributed.alone(), shards=SHARDS)
    started = time.perf_counter()
    solver.steps(steps)
    took = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{count:,} images of {SIDE**2:,} bytes in {len(solver.net.layers['x'].paths)} files: "
        f"{steps} steps of {64 * SHARDS}, {64 * SHARDS * steps / took:,.0f} images per second, "
        f"largest resident memory {peak * 1024 / 1e6:,.0f} MB"
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
        out.with_suffix(".toml").unlink(missing_ok=True)  # the settings of the run before
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
    parser.add_argument("--images", type=int, metavar="N", help="train on so many images")
    parser.add_argument(
        "--shard-rows", type=int, metavar="N", help="write --images into files of so many"
    )
    parser.add_argument("--steps", type=int, default=200, help="steps on --images")
    parser.add_argument("--prepare", type=Path, metavar="ZIP", help="prepare pictures of this zip")
    parser.add_argument("--pictures", type=int, default=3000, help="of --prepare")
    parser.add_argument(
        "--overlap", action="store_true", help="measure backward pass and exchange at once"
    )
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    batches = [int(text) for text in args.batches.split(",")]
    if args.worker:
        comm, (kind, *numbers) = distributed.started(), args.worker
        batch, steps, shards = map(int, numbers)
        overlaps = kind == "overlap"
        found = overlap(comm, batch, steps) if overlaps else measure(comm, batch, steps, shards)
        if comm.leads:
            print(json.dumps(found))
    elif args.prepare:
        prepare(args.prepare, args.pictures)
    elif args.images:
        train_on(args.images, args.shard_rows, args.steps)
    elif args.overlap:
        compare_overlap(batches, args.seconds)
    else:
        compare(batches, args.seconds)


if __name__ == "__main__":
    run(main)
