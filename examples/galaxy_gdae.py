#!/usr/bin/env python3
"""Learn a model of galaxies from their pictures, after Regier, McAuliffe and Prabhat (2015).

    python examples/galaxy_gdae.py                          galaxies of the Hubble Deep Field
    python examples/galaxy_gdae.py --data images.zip        pictures of your own
    python examples/galaxy_gdae.py --set latent=16          the net, with another setting
    python examples/galaxy_gdae.py --resume --out DIR       goes on where a run stopped

The script prepares the pictures, trains the net in nets/galaxy_gdae.py, compares it on held-out
galaxies with what is used today, and writes metrics.json, model.h5, the paper's figures and
report.html into one folder.
"""

import argparse
import ast
import hashlib
import math
import shlex
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from tqdm import tqdm

import layerkit as lk
from layerkit import galaxy
from layerkit import layers as L
from layerkit.command import INTERRUPTED, Interrupt, run
from layerkit.errors import DataError
from layerkit.layers.reconstruction import Reconstruction

PAPERS_NET = Path(__file__).resolve().parent.parent / "nets" / "galaxy_gdae.py"
EPOCHS, LEAST_ITERATIONS = 100, 2500  # where neither --epochs nor --iterations says otherwise
PAPERS_SIDE = 69  # pixels
HELD_OUT = 1000  # as in the paper; a fifth of the galaxies where there are few
TINY = 64  # pictures and iterations of --tiny
SNAPSHOT_SECONDS = 20


def settings() -> SimpleNamespace:
    """The command line, or where it is silent what the resumed run had, or the defaults."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", metavar="PATH",
        help="zip, folder, FITS or prepared HDF5 (default: galaxies of the Hubble Deep Field)")
    add("--held-out", metavar="PATH|N", help="another source to evaluate on, or how many galaxies "
        f"training never sees (default: {HELD_OUT}, a fifth where there are few)")
    add("--net", metavar="FILE", help="net definition file (default: nets/galaxy_gdae.py)")
    add("--set", metavar="NAME=VALUE", nargs="+", action="extend", type=assignment,
        help="settings of the net file, such as hidden=256 latent=16")
    add("--out", metavar="DIR", default="out/galaxy",
        help="folder for results (default: %(default)s)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", metavar="N", type=above_zero(int),
                        help="times through the data")
    length.add_argument("--iterations", metavar="N", type=above_zero(int),
                        help=f"steps (default: {EPOCHS} epochs, at least {LEAST_ITERATIONS} steps)")
    add("--batch", metavar="N", type=above_zero(int), help="galaxies in a step (default: 64)")
    add("--rate", metavar="R", type=above_zero(float), help="rate of Adam (default: 0.001)")
    add("--final-rate", metavar="R", type=at_least_zero(float),
        help="rate at the end, to which it falls along half a cosine (default: 1%% of --rate)")
    add("--kl-warm-up", metavar="N", type=at_least_zero(int),
        help="steps over which the weight of the KL terms rises to its full value (default: 0)")
    add("--samples", metavar="K", type=above_zero(int),
        help="samples of z for each galaxy in a step (default: 1, the paper's)")
    add("--augment", choices=["dihedral", "none"],
        help="turn and mirror galaxies at random in training (default: dihedral)")
    add("--keep", choices=["best", "last"], help="the parameters of the best bound on the galaxies "
        "that training is watched with, or the last ones (default: last)")
    add("--refine", metavar="N", type=at_least_zero(int), help="gradient steps for each galaxy "
        "from what the net says of it, in the evaluation (default: 100)")
    add("--importance-samples", metavar="K", type=above_zero(int),
        help="samples of z for each held-out galaxy in the tighter bound (default: 1000)")
    add("--backend", choices=["auto", "numpy", "cupy"],
        help="auto, the default, takes a GPU if one answers")
    add("--seed", metavar="N", type=int, help="of everything random (default: 0)")
    add("--resume", action="store_true", help="go on from the snapshot in --out")
    add("--tiny", action="store_true", default=None, help="a quick look: few galaxies, few steps")
    args = vars(parser.parse_args())
    args["set"] = dict(args["set"]) if args["set"] else None
    chosen: dict[str, Any] = {
        "data": None, "held_out": None, "net": str(PAPERS_NET), "epochs": None, "iterations": None,
        "set": {}, "batch": 64, "rate": 1e-3, "final_rate": None, "kl_warm_up": 0, "samples": 1,
        "augment": "dihedral", "keep": "last", "refine": None, "importance_samples": None,
        "backend": "auto", "seed": 0, "tiny": False,
        "command": shlex.join(["python", *sys.argv]),  # of a resumed run, that which began it
    }
    if args["resume"]:
        chosen |= lk.snapshot.read_extra(Path(args["out"]) / "model.h5")["settings"]
    chosen |= {key: value for key, value in args.items() if value is not None}
    if args["epochs"]:
        chosen["iterations"] = None
    if args["iterations"]:
        chosen["epochs"] = None
    return SimpleNamespace(**chosen)


def gather_galaxies(args: SimpleNamespace, out: Path):
    """Images to train on, to watch training with, and held out; and what became of the pictures."""
    limit = TINY if args.tiny else None
    size = picture_size(args)
    everything = galaxy.gather(args.data, out / "galaxies.h5", limit, size)
    count = str(args.held_out or "")
    if count and not count.isdigit():
        others = galaxy.gather(count, out / "held_out" / "galaxies.h5", limit, everything.size)
        held_out, known = others.images, set(others.ids)
        fresh = galaxy.SourcePictures(count, others, np.arange(len(others)))
        rest = np.array([i for i, name in enumerate(everything.ids) if name not in known], int)
    else:
        few = max(1, len(everything) // 5)
        rest, chosen = galaxy.split(everything.ids, int(count) if count else min(HELD_OUT, few))
        held_out = everything.images[chosen]
        fresh = galaxy.SourcePictures(args.data, everything, chosen)
    watched = min(500, len(rest) // 10)
    train, watch = galaxy.split([everything.ids[i] for i in rest], watched, salt="validation")
    if not len(train) or not len(watch) or not len(held_out):
        raise DataError(
            f"{len(everything)} galaxies are too few to train on, watch and hold out; bring more"
        )
    counts = {
        "images_read": everything.read, "images_kept": len(everything),
        "excluded": everything.excluded_counts,
        "galaxies": hashlib.sha256("\n".join(everything.ids[i] for i in rest).encode()).hexdigest(),
    }
    pictures = galaxy.SourcePictures(args.data, everything, rest[watch]), fresh
    train, watch = everything.images[rest[train]], everything.images[rest[watch]]
    return train, watch, held_out, counts, pictures


def number(kind, good, what):
    """An argument type: a number for which `good` holds."""
    def convert(text):
        value = kind(text)
        if not good(value):
            raise argparse.ArgumentTypeError(f"must be {what}, got {text}")
        return value

    convert.__name__ = kind.__name__
    return convert


def above_zero(kind):
    """An argument type: a number above zero."""
    return number(kind, lambda value: value > 0, "above zero")


def at_least_zero(kind):
    """An argument type: zero or a number above it."""
    return number(kind, lambda value: value >= 0, "at least zero")


def assignment(text):
    """An argument type: name=value, the value a Python literal or else a string."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, got {text}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def picture_size(args: SimpleNamespace) -> int | None:
    """How many pixels galaxies have on a side: as the net is told, else none to choose it.

    The crops of the built-in picture have 12 pixels on a side, too few to look at: they stay
    enlarged to the paper's size.  So does what a net without a setting for it takes.
    """
    if "side" in args.set:
        return int(args.set["side"])
    if "pixels" in args.set:
        return math.isqrt(int(args.set["pixels"]))
    takes_any = {"side", "pixels"} & set(lk.netfile.net_settings(args.net))
    return None if args.data and takes_any else PAPERS_SIDE


def size_settings(args: SimpleNamespace, side: int) -> dict[str, int]:
    """What tells the net the size of the pictures, where it is not the net's default nor given."""
    known = lk.netfile.net_settings(args.net)
    names = {"side": side, "pixels": side * side}
    return {
        name: value for name, value in names.items()
        if name in known and name not in args.set and known[name] != value
    }


class Best:
    """The parameters with the best bound so far, in a file beside the snapshot they came from."""

    def __init__(self, path: Path, layers: list, backend: str):
        self.path, self.net = path, lk.Net(layers, 1, backend, phase="test")
        self.bound, self.iteration, self.saved = -math.inf, 0, True

    def offer(self, net: lk.Net, bound: float, iteration: int) -> None:
        """Takes the parameters of a net if its bound is better."""
        if bound > self.bound:
            copy_parameters(net, self.net)
            self.bound, self.iteration, self.saved = bound, iteration, False

    def save(self) -> None:
        """Writes them, if they are new."""
        if not self.saved:
            extra = {"bound": self.bound, "iteration": self.iteration}
            lk.save(self.path, self.net, extra=extra)
            self.saved = True

    def load(self) -> None:
        """Reads what was written, if anything was."""
        if self.path.exists():
            extra = lk.load(self.path, self.net)
            self.bound, self.iteration = extra["bound"], extra["iteration"]


def copy_parameters(source: lk.Net, target: lk.Net) -> None:
    """From one net to another of the same layers."""
    for name, p in target.params.items():
        p.data[...] = source.params[name].data


def main() -> int:
    """Prepares, trains, evaluates and draws."""
    args = settings()
    out = galaxy.results_folder(args.out)
    model_file = out / "model.h5"

    # 1. The net: a list of layers.  Built once by itself, so that what is wrong with it, or with
    #    the backend, shows before any work is done.
    layers = lk.load_net(args.net, **args.set)
    galaxy.GalaxyModel(lk.Net(layers, 1, args.backend, phase="test"))

    # 2. Galaxies: find them, cut them out, and set some aside that training never sees.
    train, validation, held_out, counts, pictures = gather_galaxies(args, out)
    sized = size_settings(args, train.shape[1])
    if sized:
        layers = lk.load_net(args.net, **args.set, **sized)
    print(
        f"{len(train)} galaxies to train on, {len(validation)} to watch training with, "
        f"{len(held_out)} held out"
    )

    # 3. The net again, with the galaxies in place of its Input layer.  A second net of the same
    #    layers shares the parameters and looks at other galaxies.
    augment = None if args.augment == "none" else args.augment
    data = L.MemoryData("x", data=train, augment=augment, repeat=args.samples)
    rows = args.batch * args.samples
    net = lk.Net(lk.with_data(layers, data), rows, args.backend, seed=args.seed)
    test_net = lk.Net(layers, 256, args.backend, seed=args.seed, phase="test", share=net)
    model = galaxy.GalaxyModel(test_net)
    print(net)

    # 4. Training: Adam, with a rate that falls along half a cosine.  Where asked for, the weight of
    #    the KL terms rises in the beginning, and the best parameters on the way are kept.
    refine_steps = (10 if args.tiny else 100) if args.refine is None else args.refine
    iterations = args.iterations or max(
        math.ceil((args.epochs or EPOCHS) * len(train) / args.batch),
        1 if args.epochs else TINY if args.tiny else LEAST_ITERATIONS,
    )
    final_rate = 0.01 * args.rate if args.final_rate is None else args.final_rate
    solver = lk.Adam(net, lk.rates.Cosine(args.rate, iterations, final=final_rate))
    kl_weights = {x: x.weight for x in net.layers.values() if isinstance(x, L.GaussianKL)}
    bound_terms = [  # each at its full weight, whatever training gives it
        x.name for x in net.layers.values()
        if isinstance(x, Reconstruction | L.GaussianKL)
    ]
    best = Best(out / "best.h5", layers, args.backend)
    history: dict[str, list[float]] = {
        "iteration": [], "train_elbo": [], "validation_elbo": [], "kl": [],
    }
    recent: list[float] = []
    spent, done = 0.0, False
    if args.resume:
        saved = lk.load(model_file, net, solver)
        if saved["galaxies"] != counts["galaxies"]:
            raise DataError(
                f"{model_file} was trained on other galaxies than {args.data or 'the default'} "
                "gives now; resume with the same --data and --held-out"
            )
        history, recent, spent = saved["history"], saved["recent"], saved["seconds"]
        model.temperature = saved.get("latent_temperature", 1.0)
        done = saved["done"] and solver.iteration >= iterations
        if args.keep == "best":
            best.load()
        print(f"goes on from iteration {solver.iteration} in {model_file}")
    else:
        galaxy.set_aside(model_file)
        best.path.unlink(missing_ok=True)

    def save() -> None:
        extra = {
            "settings": vars(args), "galaxies": counts["galaxies"], "history": history,
            "recent": recent, "seconds": spent, "done": done,
            "latent_temperature": model.temperature.tolist(),
        }
        best.save()
        lk.save(model_file, net, solver, extra)

    every = max(1, iterations // 200)
    at_once = 1 if net.backend.name == "numpy" else every  # a GPU is asked for many steps at a time
    started = saved_at = time.perf_counter()
    progress = {
        "total": iterations * args.batch, "initial": solver.iteration * args.batch,
        "desc": "training", "unit": " images", "unit_scale": True,
        "mininterval": 0.5 if sys.stderr.isatty() else 10,
    }
    with Interrupt() as interrupt, tqdm(**progress) as bar:
        while solver.iteration < iterations and not interrupt.requested:
            warm = min(1.0, (solver.iteration + 1) / (args.kl_warm_up + 1))
            for layer, weight in kl_weights.items():
                layer.weight = warm * weight
            left = min(every - solver.iteration % every, iterations - solver.iteration)
            count = min(left, at_once) if warm == 1 else 1
            solver.steps(count)
            recent.extend(np.sum([solver.curves[name] for name in bound_terms], axis=0).tolist())
            bar.update(count * args.batch)
            if solver.iteration % every == 0 or solver.iteration == iterations:
                spent += time.perf_counter() - started  # watching is not training
                test_net.run.passes = solver.iteration  # the same noise, resumed or not
                bound, kl = model.bound(validation)
                history["iteration"].append(solver.iteration)
                history["train_elbo"].append(-float(np.mean(recent)))
                history["validation_elbo"].append(float(bound.mean()))
                history["kl"].append(float(kl.mean()))
                if args.keep == "best":
                    best.offer(net, history["validation_elbo"][-1], solver.iteration)
                bar.set_postfix(
                    loss=f"{np.mean(recent):.0f}", bound=f"{bound.mean():.0f}", refresh=False
                )
                recent.clear()
                if time.perf_counter() - saved_at > SNAPSHOT_SECONDS:
                    save()
                    saved_at = time.perf_counter()
                started = time.perf_counter()
    spent += time.perf_counter() - started
    if solver.iteration >= iterations and not done:
        if args.keep == "best":
            copy_parameters(best.net, net)
        model.standardise(train)  # gives each axis of z the scale of the prior; see there
        #    How far z scatters when the noise of a picture is drawn anew and the picture prepared
        #    anew, beside what the likelihood says: the standard deviations of z take it in.
        measured = galaxy.redrawn_coverage(model, pictures[0], refine_steps, True, tempered=False)
        if measured and measured.tells:
            model.temperature = measured.temperature()
        else:
            print("too few pictures to redraw noise in: standard deviations of z are not checked")
        done = True
    save()
    if not done:
        again = f"{shlex.join(sys.argv[:1])} --resume --out {shlex.quote(str(out))}"
        print(f"stopped at iteration {solver.iteration} of {iterations}; go on with: {again}")
        return INTERRUPTED
    print(f"trained and saved as {model_file}; --resume draws the rest, should it be interrupted")

    # 5. Evaluation on the held-out galaxies, beside the best Gaussian and Sersic profile of each
    #    and PCA.
    importance_samples = args.importance_samples or (100 if args.tiny else 1000)
    coverage = galaxy.redrawn_coverage(model, pictures[1], refine_steps, True)
    result = galaxy.evaluate(model, train, held_out, True, importance_samples, refine_steps)
    metrics = {
        **counts,
        "train": len(train), "validation": len(validation), "held_out": len(held_out),
        "latent": model.latent, "pixels": " x ".join(map(str, held_out.shape[1:])),
        "iterations": solver.iteration, "epochs": solver.iteration * args.batch / len(train),
        "batch": args.batch, "samples": args.samples, "augment": args.augment,
        "kl_warm_up": args.kl_warm_up, "keep": args.keep,
        "kept_iteration": best.iteration if args.keep == "best" else solver.iteration,
        "iterations_per_second": solver.iteration / spent,
        "images_per_second": solver.iteration * args.batch / spent,
        "seconds": spent,
        **result.metrics, **(coverage.metrics() if coverage else {}),
        "backend": net.backend.name, "seed": args.seed, "rate": args.rate,
        "final_rate": final_rate, "net_settings": args.set,
        "data": args.data or "Hubble Deep Field", "net": Path(args.net).name,
        "command": args.command,
    }
    galaxy.write_json(out / "metrics.json", metrics)

    # 6. Figures, and a page that shows them all.
    pages = galaxy.draw_figures(out, model, result, held_out, history, coverage)
    galaxy.write_report(out / "report.html", metrics, pages)
    print(galaxy.summary(metrics))
    print(f"open {out / 'report.html'}")
    return 0


if __name__ == "__main__":
    run(main)
