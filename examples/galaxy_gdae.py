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
import itertools
import json
import math
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import layerkit as lk
from layerkit import galaxy, locks
from layerkit import layers as L
from layerkit.command import INTERRUPTED, OUTPUT_LOST, Parser, pasteable, run
from layerkit.errors import DataError, LayerkitError, NetError, NetFileError, SnapshotError
from layerkit.interrupt import Interrupt
from layerkit.layers.likelihoods.reconstruction import Reconstruction

PAPERS_NET = Path(__file__).resolve().parent.parent / "nets" / "galaxy_gdae.py"
EPOCHS, LEAST_ITERATIONS = 100, 2500  # where neither --epochs nor --iterations says otherwise
PAPERS_SIDE = 69  # pixels
REDRAWN = 30  # pictures, at least, that show how far z scatters: those watched, then trained on
HELD_OUT = 1000  # as in the paper; a fifth of the galaxies where there are few
TINY = 64  # pictures and iterations of --tiny
MOST = 2**31 - 1
SNAPSHOT_SECONDS = 20


def number(kind: Callable[[str], Any], least: float, most: float, what: str):
    """Make an argument type: a number from `least` to `most`."""

    def convert(text: str):
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be {what}, got {text}")
        return value

    convert.__name__ = kind.__name__
    return convert


COUNT = number(int, 1, MOST, f"from 1 to {MOST}")
LARGEST = sys.float_info.max
NONE_OR_MORE = number(int, 0, MOST, f"from 0 to {MOST}")
MOST_PASSES = 1_000_000  # over the held-out galaxies: more would not end in anybody's lifetime


def path_or_count(text: str) -> str:
    """Make an absolute path or a count of the text; refuse what could be either."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path or a number, got nothing")
    try:
        float(text)
    except ValueError:
        return os.path.abspath(text)
    try:
        count = str(COUNT(text))
    except ValueError:  # a fraction, say
        if Path(text).exists():
            return os.path.abspath(text)
        raise argparse.ArgumentTypeError(f"must be a path or a whole number, got {text}") from None
    if Path(text).exists():
        raise argparse.ArgumentTypeError(
            f"{text} is a number, and there is a file or folder of that name: give ./{text} for "
            f"the path, or +{text} for the number"
        )
    return count


def path(text: str) -> str:
    """Make an absolute path, so that a run can be resumed from any folder."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path, got nothing")
    return os.path.abspath(text)


def hdu(text: str) -> int | str:
    """Make the number or the name of an extension."""
    if not text.strip() or text.startswith("-"):
        raise argparse.ArgumentTypeError(f"must be a number from 0 on, or a name, got {text!r}")
    return int(text) if text.isdecimal() else text


def assignment(text: str) -> tuple[str, str]:
    """Split name=value."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, got {text}")
    return name, value


def literal(text: str) -> Any:
    """Read a Python literal, or take the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


# name -> how its text is read; of a resumed run's settings, too
OPTIONS: dict[str, Callable[[str], Any]] = {
    "data": path,
    "held_out": path_or_count,
    "net": path,
    "epochs": COUNT,
    "iterations": COUNT,
    "batch": COUNT,
    "rate": number(float, sys.float_info.min, LARGEST, "a number above zero"),
    "final_rate": number(float, 0, LARGEST, "a number, zero or above"),
    "warm_up": NONE_OR_MORE,
    "clip": number(float, sys.float_info.min, LARGEST, "a number above zero"),
    "kl_warm_up": NONE_OR_MORE,
    "samples": COUNT,
    "refine": number(int, 0, MOST_PASSES, f"from 0 to {MOST_PASSES}"),
    "importance_samples": number(int, 1, MOST_PASSES, f"from 1 to {MOST_PASSES}"),
    "seed": number(int, 0, 2**63 - 1, "from 0 to 2**63 - 1"),
    "hdu": hdu,
}
DEFAULTS: dict[str, Any] = {
    "data": None,
    "held_out": None,
    "hdu": None,
    "net": str(PAPERS_NET),
    "epochs": None,
    "iterations": None,
    "set": {},
    "batch": 64,
    "rate": 1e-3,
    "final_rate": None,
    "warm_up": 0,
    "clip": None,
    "centre": False,
    "kl_warm_up": 0,
    "samples": 1,
    "augment": "dihedral",
    "keep": "last",
    "refine": None,
    "importance_samples": None,
    "backend": "auto",
    "seed": 0,
    "tiny": False,
}
# Settings that training goes by; a run that is resumed may change them on the way.
TRAINING = (
    "net", "set", "batch", "samples", "augment", "rate", "final_rate", "warm_up", "clip", "centre",
    "kl_warm_up", "keep",
)  # fmt: skip
CHOICES: dict[str, list[Any]] = {
    "augment": ["dihedral", "none"],
    "keep": ["best", "last"],
    "backend": ["auto", "numpy", "cupy"],
}


def command_line() -> dict[str, Any]:
    """Read the command line; what it does not say is None."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def add(name: str, metavar: str, text: str, to: Any = parser) -> None:
        key = name.replace("-", "_")
        to.add_argument(f"--{name}", metavar=metavar, type=OPTIONS[key], help=text)

    def choose(name: str, text: str) -> None:
        parser.add_argument(f"--{name}", choices=CHOICES[name], help=text)

    add(
        "data",
        "PATH",
        "folder, zip or file of pictures, or a prepared galaxies.h5 (default: "
        "galaxies of the Hubble Deep Field)",
    )
    add(
        "held-out",
        "PATH|N",
        "another source to evaluate on, or how many galaxies training never "
        f"sees (default: {HELD_OUT}, a fifth where there are few)",
    )
    add("hdu", "N|NAME", "extension of FITS files to read (default: all that hold science images)")
    add("net", "FILE", "net definition file (default: nets/galaxy_gdae.py)")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        nargs="+",
        action="extend",
        type=assignment,
        help="settings of the net file, such as hidden=256 latent=16",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=path,
        default="out/galaxy",
        help="folder for results (default: %(default)s)",
    )
    length = parser.add_mutually_exclusive_group()
    add(
        "epochs",
        "N",
        f"passes through the data (default: {EPOCHS}, and at least {LEAST_ITERATIONS} steps)",
        length,
    )
    add("iterations", "N", "steps, instead of --epochs", length)
    add("batch", "N", "galaxies in a step (default: 64)")
    add("rate", "R", "rate of Adam (default: 0.001)")
    add(
        "final-rate",
        "R",
        "rate at the end, to which it falls along half a cosine (default: 1%% of --rate)",
    )
    add("warm-up", "N", "steps over which the rate rises to --rate (default: 0)")
    add(
        "clip",
        "NORM",
        "largest norm of a gradient, to which longer ones are scaled down (default: none)",
    )
    parser.add_argument(
        "--centre",
        action="store_true",
        default=None,
        help="start with biases for which every unit is active for some galaxies",
    )
    add(
        "kl-warm-up",
        "N",
        "steps over which the weight of the KL terms rises to its full value (default: 0)",
    )
    add("samples", "K", "samples of z for each galaxy in a step (default: 1, the paper's)")
    choose("augment", "turn and mirror galaxies at random in training (default: dihedral)")
    choose(
        "keep",
        "which parameters to keep: those with the best bound on the galaxies that "
        "training is watched with, or the last ones (default: last)",
    )
    add(
        "refine",
        "N",
        "gradient steps for each galaxy from what the net says of it, in the "
        "evaluation (default: 100)",
    )
    add(
        "importance-samples",
        "K",
        "samples of z for each held-out galaxy in the tighter bound (default: 1000)",
    )
    choose("backend", "where to compute; auto takes a GPU if there is one (default: auto)")
    add("seed", "N", "seed of all random numbers (default: 0)")
    parser.add_argument("--resume", action="store_true", help="go on from the snapshot in --out")
    parser.add_argument(
        "--tiny", action="store_true", default=None, help="a quick look: few galaxies, few steps"
    )
    return vars(parser.parse_args())


def settings(given: dict[str, Any], saved: dict[str, Any]) -> SimpleNamespace:
    """Take the command line, or where it is silent what the resumed run had, or the defaults."""
    given = {key: value for key, value in given.items() if value is not None}
    # A resumed run names the command that began it, and those that went on with other settings.
    command = shlex.join(["python", *sys.argv])
    if saved and not given.keys() <= {"resume", "out"}:
        command = f"{saved['command']} && {command}"
    elif saved:
        command = saved["command"]
    chosen: dict[str, Any] = {**DEFAULTS, **saved, **given, "command": command}
    chosen["set"] = {**saved.get("set", {}), **dict(given.get("set", []))}
    for length, other in (("epochs", "iterations"), ("iterations", "epochs")):
        if length in given:
            chosen[other] = None
    return SimpleNamespace(**chosen)


def saved_settings(model_file: Path, saved: dict[str, Any]) -> dict[str, Any]:
    """Read the settings in a snapshot, which may be anybody's, as carefully as a command line."""
    try:
        found = dict(saved["settings"])
        for key, value in found.items():
            if key in OPTIONS and value is not None:
                text = value if isinstance(value, str) else json.dumps(value)
                if key == "held_out" and text.isdecimal():  # saved paths are absolute
                    text = f"+{text}"
                found[key] = OPTIONS[key](text)
            elif key in CHOICES and value not in CHOICES[key]:
                raise ValueError(value)
        found["set"] = {str(name): str(value) for name, value in found["set"].items()}
        found["command"] = str(found["command"])
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        argparse.ArgumentTypeError,
    ) as error:
        raise SnapshotError(
            f"{model_file} holds no run of this script that could be resumed ({error!r}); start "
            "one without --resume"
        ) from error
    known = {*DEFAULTS, "command"}
    return {key: value for key, value in found.items() if key in known}


def saved_stretches(model_file: Path, saved: dict[str, Any], before: dict[str, Any]) -> list[dict]:
    """Return the settings that a run was trained with so far, each with its first iteration."""
    before = {**DEFAULTS, **before}
    try:
        stretches = saved.get("trained", [{"from": 0, **{key: before[key] for key in TRAINING}}])
        starts = [stretch["from"] for stretch in stretches]
        if not starts or starts != sorted(starts) or not all(type(x) is int for x in starts):
            raise ValueError(starts)
        found = [
            {**stretch, **saved_settings(model_file, {"settings": {**before, **stretch}})}
            for stretch in stretches
        ]
    except (LookupError, TypeError, ValueError) as error:
        raise SnapshotError(
            f"{model_file} lacks the settings that the run was trained with ({error!r})"
        ) from error
    return [{key: stretch[key] for key in ("from", *TRAINING)} for stretch in found]


def keep_as_trained(args: SimpleNamespace, stretches: list[dict], finished: bool) -> None:
    """Put settings back that come too late to change how the model was trained, and say so."""
    kept = {"centre": stretches[0]["centre"]}
    if finished:
        kept = {key: stretches[-1][key] for key in TRAINING if key not in ("net", "set")} | kept
    late = [key for key, value in kept.items() if vars(args)[key] != value]
    if late:
        print(
            f"no effect: {', '.join('--' + key.replace('_', '-') for key in late)}; the model "
            + ("is trained already" if finished else "has begun training without")
        )
    vars(args).update(kept)


def trained_galaxies(stretches: list[dict], iterations: int) -> int:
    """Count the galaxies in all steps so far, each as often as it was in one."""
    ends = [stretch["from"] for stretch in stretches[1:]] + [iterations]
    return sum(
        (end - stretch["from"]) * stretch["batch"]
        for stretch, end in zip(stretches, ends, strict=True)
    )


def changed_settings(stretches: list[dict]) -> str:
    """Return in words the settings that changed when the run was resumed, and when."""
    return "; ".join(
        f"--{key.replace('_', '-')} {'none' if old[key] is None else old[key]} until iteration "
        f"{new['from']}"
        for old, new in itertools.pairwise(stretches)
        for key in TRAINING
        if old[key] != new[key]
    )


def gather_galaxies(args: SimpleNamespace, out: Path, replacing: Callable, size: int | None):
    """Images to train on, to watch training with, and held out; and what became of the pictures."""
    limit = TINY if args.tiny else None
    everything = galaxy.gather(
        args.data,
        out / "galaxies.h5",
        limit,
        hdu=args.hdu,
        size=size,
        replacing=lambda new: replacing("prepared", new),
    )
    count = str(args.held_out or "")
    if count and not count.isdecimal():
        others = galaxy.gather(
            count,
            out / "held_out" / "galaxies.h5",
            limit,
            hdu=args.hdu,
            size=everything.size,
            replacing=lambda new: replacing("prepared_held_out", new),
        )
        if others.size != everything.size:
            raise DataError(
                f"{count} has galaxies of {others.size} x {others.size} pixels, and "
                f"{args.data or 'the default'} of {everything.size} x {everything.size}; hold out "
                "pictures, or a set prepared with this size"
            )
        held_out = others.images
        fresh = galaxy.SourcePictures(count, others, np.arange(len(others)), hdu=args.hdu)
        rest, namesakes = without_namesakes(everything, others)
        if left_out := len(everything) - len(rest):
            print(
                f"{left_out} of the galaxies have ids (file names) of held-out ones and look like "
                "them; they are not trained on"
            )
        if namesakes:
            print(
                f"{namesakes} of the galaxies have ids (file names) of held-out ones but look "
                "different; they are taken as other galaxies, and trained on"
            )
        if not len(rest):
            raise DataError(
                f"none of the {len(everything)} galaxies of {args.data or 'the default'} is left "
                f"to train on: {count} holds out all of them; give --held-out a number, or other "
                "galaxies"
            )
    else:
        others = None
        few = max(1, len(everything) // 5)
        rest, chosen = galaxy.split(everything.ids, int(count) if count else min(HELD_OUT, few))
        held_out = everything.images[chosen]
        fresh = galaxy.SourcePictures(args.data, everything, chosen, hdu=args.hdu)
    own = without_copies(everything.images, rest, held_out)
    if copies := len(rest) - len(own):
        print(f"{copies} of the galaxies are copies of held-out ones, and not trained on")
    if not len(own):
        raise DataError(
            f"none of the {len(everything)} galaxies of {args.data or 'the default'} is left to "
            "train on: all others are copies of those held out; hold out other galaxies"
        )
    rest = own
    watched = min(500, len(rest) // 10)
    train, watch = galaxy.split([everything.ids[i] for i in rest], watched, salt="validation")
    if not len(train) or not len(watch) or not len(held_out):
        raise DataError(
            f"{len(everything)} galaxies are too few to train on, watch and hold out; bring more"
        )
    digest = hashlib.sha256(json.dumps([everything.ids[i] for i in rest]).encode())
    for images in (everything.images[rest], held_out):
        digest.update(np.ascontiguousarray(images).tobytes())
    counts = {
        "images_read": everything.read,
        "images_kept": len(everything),
        "excluded": everything.excluded_counts,
        "galaxies": digest.hexdigest(),
    }
    prepared, unused = {"prepared": everything.digest}, []
    if others is not None:
        prepared["prepared_held_out"] = others.digest
    if others is None or others.path.absolute().parent != out / "held_out":
        unused += ["held_out"]
    if everything.path.absolute().parent != out:  # a set prepared elsewhere
        unused += ["galaxies.h5", "contact_sheets"]
    redrawn = rest[np.append(watch, train[: max(0, REDRAWN - len(watch))])]
    pictures = galaxy.SourcePictures(args.data, everything, redrawn, hdu=args.hdu), fresh
    train, watch = everything.images[rest[train]], everything.images[rest[watch]]
    drawing = {
        "ids": others.ids if others is not None else [everything.ids[i] for i in chosen],
        "row_order": (everything if others is None else others).row_order,
    }
    return train, watch, held_out, counts, prepared, unused, drawing, pictures


def without_namesakes(
    everything: galaxy.GalaxySet, others: galaxy.GalaxySet
) -> tuple[np.ndarray, int]:
    """Leave out the galaxies that `others` has, too, by id and by what they look like.

    One galaxy in two bands looks more like itself than like others; pictures that are merely
    numbered alike in two folders do not.  So a galaxy counts as its namesake if it correlates
    better with it than with 95% of the others.

    Returns:
        indices of the galaxies that are left, and how many of these have a namesake.
    """
    at = {name: j for j, name in enumerate(others.ids)}
    shared = [(i, at[name]) for i, name in enumerate(everything.ids) if name in at]
    flat = others.images.reshape(len(others), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    itself = []
    for i, j in shared:
        image = everything.images[i].ravel().astype(np.float64)
        likeness = flat @ (image - image.mean())
        if (likeness > likeness[j]).mean() <= 0.05:
            itself.append(i)
    rest = np.setdiff1d(np.arange(len(everything)), itself)
    return rest, len(shared) - len(itself)


def without_copies(images: np.ndarray, rest: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Return those of the indices `rest` whose images are not among the held-out ones.

    A picture that lies in a folder twice, under two names, would be trained and evaluated on.
    """
    seen = {hashlib.sha256(image.tobytes()).digest() for image in held_out}
    new = [hashlib.sha256(images[i].tobytes()).digest() not in seen for i in rest]
    return rest[np.array(new, bool)]


def read_net(args: SimpleNamespace, saved: dict[str, Any], given: bool) -> tuple[list, str]:
    """Load the net: of a resumed run the one it began with, unless another is given."""
    file = Path(args.net)
    text = saved.get("net_text")
    if given or not isinstance(text, str):
        text = lk.netfile.read_net_file(file)
    else:
        try:
            changed = lk.netfile.read_net_file(file) != text
        except NetFileError:
            changed = False
        if changed:
            print(
                f"{file} has changed since the run began, which goes on with the net as it was; "
                "to take the new one give --net as well"
            )
    try:
        return lk.netfile.layers_of(text, file, net_values(args)), text
    except NetFileError as error:
        if file.exists():
            raise
        raise NetFileError(f"{error}; if the file has moved, give its new place with --net") from (
            error
        )


def net_values(args: SimpleNamespace) -> dict[str, Any]:
    """Return the settings that the net file is given, as Python values."""
    return {name: literal(value) for name, value in args.set.items()}


def picture_size(args: SimpleNamespace, known: dict[str, Any], pixels: int) -> int | None:
    """Return how many pixels galaxies have on a side: as the net takes them, else None to choose.

    The crops of the built-in picture have 12 pixels on a side, too few to look at: they stay
    enlarged to the paper's size.

    Args:
        args: the settings of the run.
        known: the settings that the net has, and their defaults.
        pixels: that the net takes, with the settings as given.
    """
    open_settings = {"side", "pixels"} & known.keys() - args.set.keys()
    if not open_settings:
        side = math.isqrt(pixels)
        if side * side != pixels:
            raise DataError(
                f"the net takes {pixels} pixels, and galaxies are square: {side * side} would be "
                f"{side} x {side}, and {(side + 1) ** 2} {side + 1} x {side + 1}; give it such a "
                "number, as --set pixels=N does where the net has that setting"
            )
        return side
    given = net_values(args)
    for name, root in (("side", int), ("pixels", math.isqrt)):
        value = given.get(name)
        if isinstance(value, int) and value > 0:
            return root(value)
    return None if args.data else PAPERS_SIDE


def size_settings(args: SimpleNamespace, known: dict[str, Any], side: int) -> dict[str, int]:
    """Return what tells the net the size of pictures, where it is not its default nor given."""
    names = {"side": side, "pixels": side * side}
    return {
        name: value
        for name, value in names.items()
        if name in known and name not in args.set and known[name] != value
    }


class Best:
    """The parameters with the best bound so far, in a file beside the snapshot they came from."""

    def __init__(self, layers: list, backend: str):
        self.net = lk.Net(layers, 1, backend, phase="test")
        self.bound, self.iteration = -math.inf, 0
        self.saved: set[Path] = set()

    def offer(self, net: lk.Net, bound: float, iteration: int) -> None:
        """Take the parameters of a net if its bound is better."""
        if bound > self.bound:
            copy_parameters(net, self.net)
            self.bound, self.iteration = bound, iteration
            self.saved.clear()

    def save(self, path: Path) -> None:
        """Write them, if there are any that are not there yet."""
        if path not in self.saved and self.iteration:
            extra = {"bound": self.bound, "iteration": self.iteration}
            lk.save(path, self.net, extra=extra)
            self.saved.add(path)

    def load(self, path: Path) -> None:
        """Read what was written, if anything was."""
        if path.exists():
            extra = lk.load(path, self.net)
            try:
                self.bound, self.iteration = float(extra["bound"]), int(extra["iteration"])
            except (LookupError, TypeError, ValueError) as error:
                raise SnapshotError(f"{path} lacks what a run keeps in it ({error!r})") from error
            self.saved.add(path)


class Watch(lk.breaks.Break):
    """The bound on the galaxies that training is watched with, and on those of the steps between.

    Args:
        every: iterations from one look to the next.
        model: the model that is trained.
        images: the galaxies.

    Attributes:
        best: is offered the parameters, unless it is None, the default.
        history: the learning curves.
        recent: the loss in each step since the last look.
    """

    place = 20

    def __init__(self, every: int, model: galaxy.GalaxyModel, images: np.ndarray):
        super().__init__(every)
        self.model, self.images = model, images
        self.best: Best | None = None
        self.history: dict[str, list[float]] = {
            "iteration": [],
            "train_elbo": [],
            "validation_elbo": [],
            "kl": [],
        }
        self.recent: list[float] = []

    def after(self, trainer: lk.Trainer, losses: np.ndarray) -> None:
        """Note the losses of steps, with each term of the bound at its full weight."""
        curves = [
            trainer.solver.curves[layer.name]
            for layer in trainer.net.layers.values()
            if isinstance(layer, Reconstruction | L.GaussianKL)
        ]
        self.recent.extend(np.sum(curves, axis=0).tolist())

    def take(self, trainer: lk.Trainer) -> None:
        """Evaluate the bound."""
        self.model.net.run.passes = trainer.iteration  # the same noise, resumed or not
        bound, kl = self.model.bound(self.images)
        train_elbo = -float(np.mean(self.recent)) if self.recent else math.nan
        self.history["iteration"].append(trainer.iteration)
        self.history["train_elbo"].append(train_elbo)
        self.history["validation_elbo"].append(float(bound.mean()))
        self.history["kl"].append(float(kl.mean()))
        self.recent.clear()
        trainer.publish("loss", -train_elbo)
        trainer.publish("bound", self.history["validation_elbo"][-1])
        if self.best is not None:
            self.best.offer(trainer.net, self.history["validation_elbo"][-1], trainer.iteration)


class Bar(lk.breaks.Progress):
    """A progress bar in images, with loss and bound."""

    def shown(self, trainer: lk.Trainer) -> dict[str, str]:
        """Return them as whole nats."""
        return {name: f"{value:.0f}" for name, value in trainer.values.items()}


def copy_parameters(source: lk.Net, target: lk.Net) -> None:
    """From one net to another of the same layers."""
    for name, p in target.params.items():
        p.data[...] = source.params[name].data


def go_on_with(out: Path) -> str:
    """Return the command that resumes the run, to be pasted into a shell in any folder."""
    return pasteable([sys.executable, os.path.abspath(sys.argv[0]), "--resume", "--out", str(out)])


def main() -> int:
    """Read the command line, and work in a folder that no other run works in meanwhile."""
    given = command_line()
    if given["resume"] and not (Path(given["out"]) / "model.h5").exists():
        raise SnapshotError(f"no snapshot at {Path(given['out']) / 'model.h5'} to go on from")
    out = galaxy.results_folder(given["out"])
    with locks.lock(out, "a training run"):
        return train_and_evaluate(given, out)


def train_and_evaluate(given: dict[str, Any], out: Path) -> int:
    """Prepares, trains, evaluates and draws."""
    galaxy.finish_setting_aside(out)
    model_file = out / "model.h5"
    saved = lk.snapshot.read_extra(model_file) if given["resume"] else {}
    before = saved_settings(model_file, saved) if given["resume"] else {}
    if given["seed"] is not None and given["seed"] != before.get("seed", given["seed"]):
        raise DataError(
            f"{model_file} was begun with --seed {before['seed']}, and a resumed run keeps its "
            "seed; leave --seed out, or start without --resume"
        )
    args = settings(given, before)
    if args.batch * args.samples > MOST:
        raise DataError(
            f"--batch {args.batch} and --samples {args.samples} make {args.batch * args.samples} "
            f"rows in a step, and a net has at most {MOST}; lower one of them"
        )

    # 1. The net: a list of layers.  Built once by itself, so that what is wrong with it, or with
    #    the backend, shows before any work is done.
    layers, net_text = read_net(args, saved, bool(given["net"]))
    pixels = galaxy.GalaxyModel(lk.Net(layers, 1, args.backend, phase="test")).pixels
    known = lk.netfile.settings_of(net_text, Path(args.net), net_values(args))
    side = picture_size(args, known, pixels)

    # 2. Galaxies: find them, cut them out, and set some aside that training never sees.  Results
    #    of an earlier run leave the folder before anything of this one takes their place.
    aside = None

    def set_aside(*also: str, model: str = "move") -> None:
        nonlocal aside
        aside = galaxy.set_aside(out, *also, model=model, into=aside) or aside

    def replacing(name: str, new: galaxy.GalaxySet) -> None:
        if args.resume:
            if saved.get(name) != new.digest:
                raise other_galaxies()
        elif name == "prepared":
            set_aside("galaxies.h5", "contact_sheets")
        else:
            set_aside("held_out")

    def other_galaxies() -> DataError:
        return DataError(
            f"{model_file} was trained on other galaxies than {args.data or 'the default'} "
            "gives now; resume with the same --data and --held-out, or start without --resume"
        )

    train, validation, held_out, counts, prepared, unused, drawing, pictures = gather_galaxies(
        args, out, replacing, side
    )
    sized = size_settings(args, known, train.shape[1])
    if sized:
        values = {**net_values(args), **sized}
        layers = lk.netfile.layers_of(net_text, Path(args.net), values)
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
    rate = lk.rates.WarmUp(lk.rates.Cosine(args.rate, iterations, final_rate), args.warm_up)
    solver = lk.Adam(net, rate, clip=args.clip)
    best = Best(layers, args.backend)
    stretches: list[dict[str, Any]] = []
    every = max(1, iterations // 200)
    watch = Watch(every, model, validation)
    history, spent, done = watch.history, 0.0, False
    was_done = False
    if args.resume:
        lk.load(model_file, net, solver)
        stretches = saved_stretches(model_file, saved, before)
        keep_as_trained(args, stretches, solver.iteration >= iterations)
        if saved.get("galaxies") != counts["galaxies"]:
            raise other_galaxies()
        try:
            history.update({key: [float(x) for x in saved["history"][key]] for key in history})
            watch.recent = [float(x) for x in saved["recent"]]
            spent, was_done = float(saved["seconds"]), bool(saved["done"])
            model.temperature = saved["latent_temperature"]
        except (LookupError, TypeError, ValueError, NetError) as error:
            raise SnapshotError(f"{model_file} lacks the history of a run ({error!r})") from error
        done = was_done and solver.iteration >= iterations
        if args.keep == "best":
            best.load(out / "best.h5")
        print(f"resuming at iteration {solver.iteration} in {model_file}")
    elif args.centre:
        lk.centre_biases(test_net, x=train[:1000])
    saved_iteration = solver.iteration
    now = {key: vars(args)[key] for key in TRAINING}
    if not stretches or now != {key: stretches[-1][key] for key in TRAINING}:
        stretches.append({"from": solver.iteration, **now})

    # A run that starts, or that trains a finished model further, sets the finished one and all that
    # was made of it aside, once it has something itself.
    settled = False

    def save_into(folder: Path) -> None:
        extra = {
            "settings": {key: vars(args)[key] for key in [*DEFAULTS, "command"]},
            "trained": stretches,
            "net_text": net_text,
            "galaxies": counts["galaxies"],
            **prepared,
            "history": history,
            "recent": watch.recent,
            "seconds": spent + trainer.seconds,
            "done": done,
            "latent_temperature": model.temperature.tolist(),
        }
        best.save(folder / "best.h5")
        lk.save(folder / "model.h5", net, solver, extra)

    def save() -> None:
        nonlocal settled
        if not settled:
            if args.resume:
                set_aside(model="copy" if was_done else "leave")
            else:
                set_aside(*unused)
            best.saved.clear()  # what was there is there no more
            settled = True
        save_into(out)

    def save_or_warn(trainer: lk.Trainer) -> None:
        try:
            save()
        except (LayerkitError, OSError) as error:  # a full disk, say
            print(
                f"\nwarning: {error}; training goes on, and tries again in {SNAPSHOT_SECONDS} s",
                file=sys.stderr,
            )

    def warm(weight: float) -> Callable[[int], float]:
        return lambda iteration: weight * min(1.0, (iteration + 1) / (args.kl_warm_up + 1))

    watch.best = best if args.keep == "best" else None
    breaks: list[lk.breaks.Break] = [
        lk.breaks.Schedule(x.name, warm(x.weight))
        for x in net.layers.values()
        if isinstance(x, L.GaussianKL)
    ]
    breaks += [
        watch,
        lk.breaks.Call(save_or_warn, seconds=SNAPSHOT_SECONDS),
        Bar(unit="images", each=args.batch),
    ]
    with Interrupt() as interrupt:  # a signal waits until the model is saved
        trainer = lk.Trainer(solver, breaks, interrupt=interrupt)
        trainer.run(until=max(iterations, solver.iteration))
        # A run that is resumed to end where it is may have been watched last long before, or never.
        watched = history["iteration"][-1:] == [solver.iteration]
        if solver.iteration >= iterations and not (history["iteration"] and (done or watched)):
            watch.take(trainer)
        if solver.iteration >= iterations and not done:
            if args.keep == "best":
                copy_parameters(best.net, net)
            model.standardise(train)  # gives each axis of z the scale of the prior; see there
            # How far z scatters when the noise of a picture is drawn anew and the picture prepared
            # anew, beside what the likelihood says: the standard deviations of z take it in.
            measured = galaxy.redrawn_coverage(
                model, pictures[0], refine_steps, True, tempered=False
            )
            model.temperature = measured.temperature() if measured else 1.0
            if not (measured and measured.is_sufficient):
                print(
                    "too few pictures, or none, to redraw noise in: standard deviations of z are "
                    "as the likelihood has them, unchecked"
                )
            done = True
        if not (done and was_done and solver.iteration == saved_iteration):
            try:
                save()
            except (LayerkitError, OSError) as error:
                galaxy.save_somewhere(save_into, error, out)
    spent += trainer.seconds
    if not done:
        print(
            f"stopped at iteration {solver.iteration} of {iterations}; go on with: "
            f"{go_on_with(out)}"
        )
        return OUTPUT_LOST if interrupt.output_lost else INTERRUPTED
    print(f"trained and saved as {model_file}; --resume draws the rest, should it be interrupted")
    # A few galaxies leave most units alone, active or not.
    inactive = lk.find_inactive(test_net, x=validation if len(validation) >= 100 else train)
    print(inactive)

    # 5. Evaluation on the held-out galaxies, beside the best Gaussian and Sersic profile of each
    #    and PCA.
    importance_samples = args.importance_samples or (100 if args.tiny else 1000)
    test_net.run.passes = solver.iteration  # the same noise, resumed or not
    coverage = galaxy.redrawn_coverage(model, pictures[1], refine_steps, True)
    result = galaxy.evaluate(model, train, held_out, True, importance_samples, refine_steps)
    seen = trained_galaxies(stretches, solver.iteration)
    metrics = {
        **counts,
        "train": len(train),
        "validation": len(validation),
        "held_out": len(held_out),
        "latent": model.latent,
        "pixels": " x ".join(map(str, held_out.shape[1:])),
        "iterations": solver.iteration,
        "epochs": seen / len(train),
        "batch": args.batch,
        "samples": args.samples,
        "augment": args.augment,
        "warm_up": args.warm_up,
        "clip": args.clip,
        "centre": args.centre,
        "never_active": inactive.counts,
        "kl_warm_up": args.kl_warm_up,
        "keep": args.keep,
        "kept_iteration": best.iteration if args.keep == "best" else solver.iteration,
        "iterations_per_second": solver.iteration / spent,
        "images_per_second": seen / spent,
        "seconds": spent,
        **result.metrics(),
        **(coverage.metrics() if coverage else {}),
        "backend": net.backend.name,
        "seed": args.seed,
        "rate": args.rate,
        "final_rate": 0.01 * args.rate if args.final_rate is None else args.final_rate,
        "net_settings": net_values(args),
        "data": args.data or "Hubble Deep Field",
        "net": Path(args.net).name,
        "command": args.command,
    }
    if earlier := changed_settings(stretches):
        metrics["earlier_settings"] = earlier

    # 6. Figures, and a page that shows them all.
    drawing["coverage"] = coverage
    try:
        galaxy.write_json(out / "metrics.json", metrics)
        pages = galaxy.draw_figures(out, model, result, held_out, history, **drawing)
        galaxy.write_report(out / "report.html", metrics, pages)
    except OSError as error:  # a full disk, say
        raise DataError(
            f"cannot write results into {out} ({error.strerror or error}); the model is saved: "
            f"make room, and draw the rest with: {go_on_with(out)}"
        ) from error
    print(galaxy.summary(metrics))
    print(f"open {out / 'report.html'}")
    return 0


if __name__ == "__main__":
    run(main)
