"""`layerkit train NET`: a net trained on a data set, with snapshots, a log and validation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from layerkit.cli import arguments, data
from layerkit.cli.command import INTERRUPTED, OUTPUT_LOST
from layerkit.errors import DataError, LayerkitError
from layerkit.layers import MemoryData
from layerkit.net import Net
from layerkit.netfile import with_data
from layerkit.saving.snapshot import save
from layerkit.solvers import SGD, Adam, AdamW, Nesterov, RMSProp, Solver, rates
from layerkit.system import locks
from layerkit.system.interrupt import Interrupt
from layerkit.train import Trainer, breaks

SOLVERS: dict[str, type[Solver]] = {
    "adam": Adam,
    "adamw": AdamW,
    "nesterov": Nesterov,
    "rmsprop": RMSProp,
    "sgd": SGD,
}


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "train",
        help="train a net on a data set",
        description="Train a net. The folder --out gets model.h5 with the trained parameters, "
        "best.h5 with those that did best on --validate, log.csv, and snapshots from which "
        "--resume continues. Ctrl-C saves.",
    )
    arguments.add_net(parser)
    data.add_data(parser, "data", "what to train on")
    data.add_data(parser, "validate", "what to validate on", required=False)
    parser.add_argument(
        "--out", metavar="DIR", type=arguments.path, required=True, help="folder for results"
    )
    parser.add_argument(
        "--steps",
        type=arguments.COUNT,
        default=1000,
        metavar="N",
        help="steps to make, those before --resume included (default: %(default)s)",
    )
    arguments.add_batch(parser)
    parser.add_argument(
        "--solver", choices=[*SOLVERS], default="adam", help="solver (default: %(default)s)"
    )
    parser.add_argument(
        "--rate",
        type=arguments.POSITIVE,
        metavar="R",
        help="the solver's rate (default: the solver's own)",
    )
    parser.add_argument(
        "--final-rate",
        type=arguments.NOT_NEGATIVE,
        metavar="R",
        help="rate at the end, to which it falls along half a cosine (default: a fixed rate)",
    )
    parser.add_argument(
        "--clip", type=arguments.POSITIVE, metavar="NORM", help="largest norm of a gradient"
    )
    parser.add_argument(
        "--every",
        type=arguments.COUNT,
        default=100,
        metavar="N",
        help="steps between validations (default: %(default)s)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue from the last snapshot in --out"
    )
    arguments.add_where(parser)
    arguments.add_seed(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train in a folder that no other run uses meanwhile."""
    with locks.lock(args.out, "a training run"):
        return train(args, Path(args.out))


def train(args: argparse.Namespace, out: Path) -> int:
    """Train, save, and print the last values."""
    if not args.resume and (found := sorted(out.glob("*.h5"))):
        raise DataError(
            f"{out} holds {found[0].name} of an earlier run; continue it with --resume, or choose "
            "another folder"
        )
    layers = arguments.layers_of(args)
    inputs = Net(layers, 1, phase="test").input_names()
    source = data.layer(args.data, inputs) or MemoryData(
        "data", data=list(data.arrays(args.data, inputs).values()), tops=inputs
    )
    net = Net(
        with_data(layers, source), args.batch, args.backend, seed=args.seed, kernels=args.kernels
    )
    solver = SOLVERS[args.solver](net, **solver_settings(args))
    every: list[breaks.Break] = [
        breaks.Progress(),
        breaks.Log(out / "log.csv", every=10),
        breaks.Snapshot(out, every=max(1, args.steps // 10), keep=2),
    ]
    if args.validate:
        held = Net(layers, args.batch, args.backend, kernels=args.kernels, phase="test", share=net)
        watched = data.layer(args.validate, inputs) or data.arrays(args.validate, inputs)
        every += [breaks.Validate(held, watched, every=args.every)]
        if sum(layer.is_loss for layer in held.reported) == 1:
            every += [breaks.KeepBest(out / "best.h5")]
    with Interrupt() as interrupt:
        trainer = Trainer(solver, every, interrupt=interrupt)
        if args.resume:
            trainer.resume(out)
        if trainer.iteration > args.steps:
            raise LayerkitError(
                f"--steps {args.steps}: the run in {out} has made {trainer.iteration} already"
            )
        ending = trainer.run(until=args.steps)
        save(out / "model.h5", net, solver)
    for name, value in {**net.losses, **net.metrics, **trainer.values}.items():
        print(f"{name}  {value:.6g}")
    if ending == "interrupted":
        print(f"stopped at step {trainer.iteration} of {args.steps}; --resume continues")
        return OUTPUT_LOST if interrupt.output_lost else INTERRUPTED
    return 0


def solver_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the solver that were given."""
    found: dict[str, Any] = {} if args.clip is None else {"clip": args.clip}
    if args.final_rate is not None:
        if args.rate is None:
            raise LayerkitError("--final-rate needs --rate, from which it falls")
        found["rate"] = rates.Cosine(args.rate, args.steps, args.final_rate)
    elif args.rate is not None:
        found["rate"] = args.rate
    return found
