"""`layerkit train NET`: a net trained on a data set, with snapshots, a log and validation."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from layerkit import distributed
from layerkit.cli import arguments, data
from layerkit.cli.command import INTERRUPTED, OUTPUT_LOST
from layerkit.distributed import Communicator, Distributed
from layerkit.errors import BreaksError, DataError, LayerkitError
from layerkit.layers import MemoryData
from layerkit.net import Net
from layerkit.netfile import with_data
from layerkit.saving.snapshot import save
from layerkit.solvers import SGD, Adam, AdamW, Nesterov, RMSProp, Solver, rates
from layerkit.system import locks
from layerkit.system.interrupt import Interrupt
from layerkit.train import Trainer, breaks

LOG = "log.csv"
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
        "--resume continues. Ctrl-C saves. Several processes share each step with mpiexec and "
        "--shards.",
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
    arguments.add_shards(parser)
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
    arguments.add_flag(parser, "resume", "continue from the last snapshot in --out")
    arguments.add_where(parser)
    arguments.add_seed(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train in a folder that no other run uses meanwhile."""
    with distributed.started() as comm, comm.one_voice():
        lock = locks.lock(args.out, "a training run") if comm.leads else nullcontext()
        with lock:
            return train(args, Path(args.out), comm)


def train(args: argparse.Namespace, out: Path, comm: Communicator) -> int:
    """Train, save, and print the last values."""
    if not args.resume and (found := sorted(out.glob("*.h5"))):
        raise DataError(
            f"{out} holds {found[0].name} of an earlier run; continue it with --resume, or choose "
            "another folder"
        )
    if not args.resume and (out / LOG).exists():
        raise DataError(
            f"{out} holds {LOG} of an earlier run that saved nothing else; remove it, or choose "
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
    if args.shards is not None or comm.size > 1:
        Distributed(solver, comm, args.shards)
        print(f"{solver.team.shards} shards of {args.batch} examples on {comm.describe()}")
    every: list[breaks.Break] = [
        breaks.Progress(),
        breaks.Log(out / LOG, every=10),
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
            try:
                trainer.resume(out)
            except BreaksError as error:
                was, now = ("without", "with") if args.validate else ("with", "without")
                raise DataError(
                    f"--resume: the run in {out} was begun {was} --validate, and is to go on {now} "
                    "it; give the options that it was begun with"
                ) from error
        if trainer.iteration > args.steps:
            raise LayerkitError(
                f"--steps {args.steps}: the run in {out} has made {trainer.iteration} already"
            )
        try:
            ending = trainer.run(until=args.steps)
        except LayerkitError:
            if comm.leads and not any(
                out.glob("*.h5")
            ):  # nothing to go on from: another try begins anew
                (out / LOG).unlink(missing_ok=True)
            raise
        if comm.leads:
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
