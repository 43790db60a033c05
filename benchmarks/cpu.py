#!/usr/bin/env python3
"""Training speed on the CPU: layerkit and its peers, in turn, in one run.

An iteration is what the paper counts: the next minibatch, the noise, forward, backward, Adam, for
the net of section 3.1 on 8192 real galaxies of 69 x 69 pixels in float32.  Every program runs at
each batch size in a process of its own.  First each, alone, trains for 2000 steps (800 above 128
examples), as units that are never active and moments that decay change the speed of training for
good: the steady state is timed.  Then all are measured in turn, in an order drawn anew in each of
many rounds, while the others sleep, so that a slow minute of the machine strikes all alike.  The
tables show medians over the rounds, the ratio that of each round's ratios.

    python benchmarks/cpu.py                                    # the default galaxies
    python benchmarks/cpu.py --data images.zip --rounds 3       # others
    python benchmarks/cpu.py --torch-python PYTHON --jax-python PYTHON
    python benchmarks/cpu.py --net galaxy_conv --batches 1,16,64      # another net
    python benchmarks/cpu.py --busy --batches 1,16     # beside a program that fills a core, too

The peers are in benchmarks/peers.  One whose package is missing is left out, and the output says
so.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
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
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NoReturn

from peers import turns

ROOT = Path(__file__).resolve().parent.parent
IMAGES = 8192
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"  # would have each process compile all Python anew
PAUSE = 0.2  # seconds; in less, threads of the program before may not be asleep
TORCH = ("torch_gdae.py", "torch")
PEERS = {  # name -> program, package, arguments
    "PyTorch eager": (*TORCH, ["--device", "cpu", "--mode", "eager"]),
    "PyTorch compile": (*TORCH, ["--device", "cpu", "--mode", "compile"]),
    "JAX jit": ("jax_gdae.py", "jax", []),
}
NETS = {  # name -> its peers
    "galaxy_gdae": list(PEERS),
    "galaxy_conv": ["PyTorch eager", "PyTorch compile"],
    "galaxy_pose": [],
    "galaxy_ladder": [],
    "galaxy_wide": [],
}


Results = dict[tuple[str, int], dict[str, Any]]  # by name and batch


def main() -> None:
    """Run everything and print Markdown tables."""
    parser = Parser(__doc__)
    add_arguments(parser, [1, 16, 128, 512], 15)
    parser.add_argument("--net", default="galaxy_gdae", choices=NETS, help="which net to train")
    parser.add_argument(
        "--busy", action="store_true", help="measure beside a program that fills a core, too"
    )
    args = parser.parse_args()
    if args.worker:
        worker(args)
        return
    from layerkit.cli.command import run  # not at the top: a worker times how long this takes

    run(lambda: benchmark(args))


def benchmark(args: argparse.Namespace) -> None:
    """Measure all programs and print the tables."""
    from layerkit.errors import LayerkitError

    peers = {name: PEERS[name] for name in NETS[args.net]}
    programs = find_programs(Path(__file__), peers, args)
    if args.net != "galaxy_gdae":  # which JAX's program has alone
        programs = {name: [*command, "--net", args.net] for name, command in programs.items()}
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: Linux counts the memory of a program's parent as the program's.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            images = pool.submit(save_images, args.data, Path(folder)).result()
        results = measure(programs, args.batches, images, args)
    complete = [n for n in programs if all((n, batch) in results for batch in args.batches)]
    if "layerkit" not in complete:
        raise LayerkitError("layerkit itself failed; see what `layerkit time NET` says")
    tables = [speeds]
    if args.busy:
        tables.append(disturbed)
    if args.net == "galaxy_gdae":  # the bounds are those of Dense layers
        tables.append(bounds)
    print("\n\n".join(table(complete, args.batches, results) for table in tables))


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
    """Read a whole number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def steps(text: str) -> int:
    """Read a whole number from 0 on."""
    return 0 if text.isdecimal() and not int(text) else number(text)


def positive(text: str) -> float:
    """Read a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def batch_sizes(text: str) -> list[int]:
    """Read numbers of examples, each once and none above IMAGES."""
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
    add("--seconds", type=positive, default=0.5, help="per measurement")
    add(
        "--warm-up",
        type=steps,
        metavar="STEPS",
        help="before measuring (default: 2000 up to 128 examples, 800 above)",
    )
    add("--worker", type=int, help=argparse.SUPPRESS)
    add("--images", help=argparse.SUPPRESS)
    add("--turns", action="store_true", help=argparse.SUPPRESS)


def steps_before(batch: int, asked: int | None) -> int:
    """Return how many steps warm a program up."""
    return asked if asked is not None else 2000 if batch <= 128 else 800


def save_images(data: str | None, folder: Path) -> Path:
    """Write IMAGES galaxies, float32 (IMAGES, PIXELS), where all programs read them.

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
    """Return the command of layerkit and of each peer that can run, by name."""
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
    """Return the command that measures a program once."""
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
) -> Results:
    """Return what was found of each program, by name and batch."""
    results: Results = {}
    for batch in batches:
        with contextlib.ExitStack() as stack:
            running = {}
            for name in programs:
                program = Program([*command_of(programs, name, batch, images, args), "--turns"])
                stack.enter_context(program)
                if program.read() is None:
                    print(f"{name}, batch {batch}: failed", file=sys.stderr)
                else:
                    running[name] = program
            times = {name: {"turns": [], "busy": []} for name in running}
            for turn in range(args.rounds):
                take_turns(running, turn, times, "turns")
                if args.busy:
                    with busy_core():
                        take_turns(running, turn, times, "busy")
            for name, program in running.items():
                if (found := program.finish()) is not None:
                    results[name, batch] = {**found, **times[name]}
                    texts = " ".join(f"{time:.3f}" for time in times[name]["turns"])
                    print(f"{name} {batch}: {texts} ms", file=sys.stderr, flush=True)
    return results


def take_turns(
    running: dict[str, Program], turn: int, times: dict[str, dict[str, list[float]]], key: str
) -> None:
    """Measure each program once."""
    for name in random.Random(turn).sample(list(running), len(running)):
        time.sleep(PAUSE)
        if (line := running[name].ask()) is not None:
            times[name][key].append(float(line))


class Program:
    """A process that measures itself when it is asked to."""

    def __init__(self, command: list[str]):
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name != NO_BYTECODE},
            text=True,
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def read(self) -> str | None:
        """Return the next line that it prints, None at its end."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return line.strip() if line else None

    def ask(self) -> str | None:
        """Measure once; returns the line with the milliseconds of an iteration."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        return self.read()

    def finish(self) -> dict[str, Any] | None:
        """Return its last line, which is JSON, with the most memory it used, in MB."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        line = self.read()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.returncode or not line:
            return None
        return {"memory": usage.ru_maxrss / 1024, **json.loads(line)}


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """Keep a program running that fills a core."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def worker(args: argparse.Namespace) -> None:
    """Time layerkit at one batch size, as the peers do, and print a line of JSON."""
    started = time.perf_counter()
    import layerkit as lk

    imported = time.perf_counter() - started
    import numpy as np

    from layerkit import layers as L
    from layerkit.inspection import profile

    array = np.load(args.images)
    layers = lk.load_net(ROOT / "nets" / f"{args.net}.py")
    started = time.perf_counter()
    data = L.MemoryData("x", data=array, shuffle=False)  # the peers read theirs in order, too
    net = lk.Net(lk.with_data(layers, data), batch_size=args.worker)
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

    spent = turns.measure(repeat, args)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table = solver.profile(
        max(5, min(100, int(300 / spent)))
    )  # takes more memory, to measure peaks
    copy_memory = profile.copy_peak(net.engine, 256 << 20)
    others = sum(r.bytes for r in (*table.forward, *table.backward) if r.type != "Dense")
    updated = 2 * net.arena.data.nbytes * (1 + len(solver.history))  # read and written
    update = update_alone(solver)
    print(
        json.dumps(
            {
                "ms_per_iteration": spent,
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
    """Time Adam's update of all parameters, on flat arrays and without anything else, in ms.

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
    """Time a step's matrix products alone, by NumPy with its own threads, in ms.

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


def median(results: Results, name: str, batch: int, key: str = "turns") -> float:
    """Take the median of all turns; NaN where a program failed."""
    found = results.get((name, batch), {}).get(key, math.nan)
    return statistics.median(found) if isinstance(found, list) else found


def ratio(results: Results, one: str, other: str, batch: int, key: str = "turns") -> float:
    """Take the median of the ratios of each turn, one program's time over the other's."""
    pairs = zip(*(results[name, batch][key] for name in (one, other)), strict=True)
    return statistics.median(a / b for a, b in pairs)


def row(cells: Iterable[str]) -> str:
    """Format a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def speeds(programs: Iterable[str], batches: list[int], results: Results) -> str:
    """Format milliseconds per iteration of all programs, and the ratio to the fastest peer."""
    of = functools.partial(median, results)
    peers = [name for name in programs if name != "layerkit"]
    head = ["batch", "layerkit", "iterations/s", *peers]
    if peers:
        head.append("fastest peer / layerkit")
    lines = [
        f"{machine()}, {of('layerkit', batches[0], 'threads'):.0f} threads, "
        f"Python {platform.python_version()}. Milliseconds per iteration.",
        "",
        row(head),
        row("---" for _ in head),
    ]
    ratios = []
    for batch in batches:
        own, others = of("layerkit", batch), [of(p, batch) for p in peers]
        cells = [str(batch), f"{own:.3f}", f"{1e3 / own:,.0f}", *(f"{o:.3f}" for o in others)]
        if peers:
            fastest = min(peers, key=lambda peer: of(peer, batch))
            ratios.append(ratio(results, fastest, "layerkit", batch))
            cells.append(f"{ratios[-1]:.2f}")
        lines.append(row(cells))
    if peers:
        lines += ["", f"Geometric mean of the ratios: {statistics.geometric_mean(ratios):.2f}."]
    return "\n".join(lines)


def disturbed(programs: Iterable[str], batches: list[int], results: Results) -> str:
    """Format what a program that fills a core makes of each step."""
    names = list(programs)
    head = ["batch", *(f"{name}: ms, times idle" for name in names)]
    lines = ["Beside a program that fills a core:", "", row(head), row("---" for _ in head)]
    for batch in batches:
        cells = [str(batch)]
        for name in names:
            found = results[name, batch]
            pairs = zip(found["busy"], found["turns"], strict=True)
            slower = statistics.median(busy / idle for busy, idle in pairs)
            cells.append(f"{statistics.median(found['busy']):.3f}, {slower:.2f}")
        lines.append(row(cells))
    return "\n".join(lines)


def bounds(programs: Iterable[str], batches: list[int], results: Results) -> str:
    """Format memory, and how far from what the machine can do layerkit is."""
    head = [
        "batch",
        *(f"{name}, MB" for name in programs),
        "GEMM peak, GF/s",
        "copy peak, GB/s",
        "bound, ms",
        "share of the bound",
        "products alone, ms",
        "traffic, ms",
        "sum's share",
    ]
    lines = [row(head), row("---" for _ in head)]
    for batch in batches:
        of = functools.partial(median, results, "layerkit", batch)
        lines.append(
            row(
                [
                    str(batch),
                    *(f"{median(results, n, batch, 'memory'):.0f}" for n in programs),
                    f"{of('gemm') / 1e9:.0f}",
                    f"{of('copy') / 1e9:.0f}",
                    f"{of('bound'):.3f}",
                    f"{of('bound') / of('turns'):.0%}",
                    f"{of('products'):.3f}",
                    f"{of('passes'):.3f}",
                    f"{(of('products') + of('passes')) / of('turns'):.0%}",
                ]
            )
        )
    of = functools.partial(median, results, "layerkit", batches[0])
    idle = (f"{median(results, 'layerkit', b, 'idle'):.0%} at {b}" for b in batches)
    lines += [
        "",
        f"`import layerkit`: {of('import'):.2f} s. In a fresh process building the net takes "
        f"{of('built'):.2f} s and the first step {of('first'):.2f} s.",
        f"Adam's update alone, of all parameters in flat arrays: {of('update'):.2f} ms.",
        f"Parameters without a gradient when measured (their moment is zero): {', '.join(idle)}.",
        f"Copying from memory rather than cache: {of('copy_memory') / 1e9:.0f} GB/s.",
    ]
    return "\n".join(lines)


def machine() -> str:
    """Name the processor, without the host's name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        model = next(x.split(":", 1)[1].strip() for x in text.splitlines() if "model name" in x)
        vector = next((n for n in ("avx512f", "avx2") if f" {n} " in text), "no AVX2")
    except (OSError, StopIteration):
        model, vector = platform.processor() or platform.machine(), "vector unit unknown"
    return f"{model} ({vector})"


if __name__ == "__main__":
    main()
