"""Command lines of the example and of `python -m layerkit`: a result, or one line and status 2.

Each runs in a fork of this process, which has imported everything.  The evaluation, which follows
training, is replaced by an exit with a status of its own.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import layerkit as lk
from fuzz import pictures
from fuzz.harness import Case, HangError, check
from layerkit import galaxy
from layerkit.cli import command
from layerkit.cli import main as cli
from layerkit.errors import DataError
from layerkit.galaxy.evaluation import evaluate as evaluation

SECONDS = 120
ALONE = 60  # seconds that one command may take
TRAINED = 77
ROOT = Path(__file__).resolve().parents[2]

TOKENS = (
    "",
    "-1",
    "-5",
    "0",
    "1",
    "3",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "abc",
    "1.5",
    "1e-3",
    "0x10",
    "\u03bc",
    "\udcff",
    "None",
    "True",
    "-",
    "--",
    "/dev/null",
    "/dev/full",
    "/nonexistent/x",
    "/proc/self/mem",
    ".",
    "..",
    "a\nb",
    "$(x)",
    "%s",
    "{}",
    "~",
    "a" * 300,
    "1,000",
    " 7 ",
    "1_0",
    "\u0663",
    "--help",
    "-h",
    "--out",
    "=",
    "=3",
    "x=",
    "[1, 2]",
)
SETS = (
    "hidden=0",
    "hidden=abc",
    "hidden=[1]",
    "=3",
    "nope=1",
    "latent=1e3",
    "hidden=None",
    "latent=-1",
    "hidden=__import__('os')",
    "hidden=100000000",
    "hidden=3",
    "latent=2.0",
    "latent=True",
    "hidden",
    "latent='",
    "hidden=" + "(" * 200,
    "latent=" + "9" * 5000,
    "path=3",
    "latent=nan",
)


def load_example() -> Any:
    """The example as a module."""
    path = ROOT / "examples" / "galaxy_gdae.py"
    spec = importlib.util.spec_from_file_location("galaxy_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


EXAMPLE = load_example()


def trained(*_: Any, **__: Any) -> NoReturn:
    """In the place of `evaluate`."""
    sys.stdout.flush()
    os._exit(TRAINED)


evaluation.evaluate = trained


@functools.cache
def materials(folder: Path) -> dict[str, Path]:
    """Files that command lines name; made once."""
    place = folder / "materials"
    shots = place / "pictures"
    shots.mkdir(parents=True)
    rng = np.random.default_rng(3)
    for i in range(24):
        pixels = np.round(255 * pictures.light(rng)).astype(np.uint8)
        (shots / f"{i}.png").write_bytes(pictures.pillow(pixels, "PNG"))
    galaxy.prepare(galaxy.open_source(shots), place / "set.h5")
    (place / "empty").mkdir()
    (place / "text.txt").write_text("not a picture")
    (place / "bad.zip").write_bytes(b"PK\3\4" + bytes(40))
    (place / "cut.h5").write_bytes((place / "set.h5").read_bytes()[:5000])
    (place / "net.py").write_text(
        (ROOT / "nets/galaxy_gdae.py").read_text().replace("def galaxy_gdae", "def net")
    )
    (place / "wrong.py").write_text("def wrong():\n    return [3]\n")
    lk.save(
        place / "snapshot.h5",
        lk.Net([lk.layers.Input("x", shape=(2,)), lk.layers.Dense("y", "x", units=2)], 2),
    )
    return {p.stem + p.suffix: p for p in place.iterdir()}


def run(case: Case, main: Callable[[], Any], arguments: list[str]) -> tuple[int, str, str]:
    """A program in a fork; returns its status and what it wrote."""
    case.say(*(repr(a) for a in arguments))
    out, err = case.folder / "out.txt", case.folder / "err.txt"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            os.chdir(case.folder)
            for path, number in ((out, 1), (err, 2)):
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(file, number)
            sys.argv = arguments
            command.run(main)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status or 0)
    end = time.monotonic() + ALONE
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            break
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise HangError(f"{arguments} took longer than {ALONE} s")
        time.sleep(0.005)
    code = os.waitstatus_to_exitcode(status)
    return code, *(path.read_text(errors="replace") for path in (out, err))


def example(case: Case) -> None:
    """A command line of the example, and maybe another that goes on with it."""
    files = materials(case.folder.parent)
    options: dict[str, list[str]] = {
        "--data": [str(case.pick([files["set.h5"], files["set.h5"], files["pictures"]]))],
        "--net": [str(ROOT / "nets/galaxy_gdae.py")],
        "--set": ["hidden=4", "latent=2"],
        "--out": [str(case.folder / "run")],
        "--iterations": ["2"],
        "--batch": ["4"],
    }
    more: dict[str, list[str]] = {
        "--held-out": ["3"],
        "--rate": ["0.001"],
        "--final-rate": ["0"],
        "--kl-warm-up": ["3"],
        "--samples": ["2"],
        "--augment": ["none"],
        "--keep": ["best"],
        "--seed": ["5"],
        "--backend": ["numpy"],
        "--refine": ["3"],
        "--importance-samples": ["5"],
        "--tiny": [],
        "--epochs": ["1"],
        "--resume": [],
    }
    for name in case.rng.permutation(sorted(more))[: case.whole(0, 3)].tolist():
        if name not in ("--epochs", "--resume"):
            options[name] = more[name]
    status, _, err = (
        run(case, EXAMPLE.main, ["galaxy_gdae.py", *flat(options)])
        if case.chance(0.25)
        else (None, "", "")
    )
    if status is not None:
        check(status == TRAINED, f"a plain command line ended with {status}: {err[-500:]}")
        options["--resume"] = []
    case.odd = True
    for _ in range(case.whole(1, 2)):
        name = case.pick([*options, *more])
        if name == "--set":
            options[name] = [case.pick(SETS) for _ in range(case.whole(0, 2))]
        elif case.chance(0.4):
            options[name] = [str(case.pick(list(files.values())))]
        else:
            options[name] = [case.pick(TOKENS) for _ in range(case.pick([1, 1, 1, 0, 2]))]
    arguments = flat(options)
    if case.chance(0.2):
        arguments.insert(case.whole(0, len(arguments)), case.pick(TOKENS))
    judge(*run(case, EXAMPLE.main, ["galaxy_gdae.py", *arguments]))


def flat(options: dict[str, list[str]]) -> list[str]:
    return [word for name, values in options.items() for word in (name, *values)]


NAMES = ["--model", "--data", "--blob", "--out", "--set", "--seed", "--nothing"]


def framework(case: Case) -> None:
    """A command line of `layerkit`."""
    files = materials(case.folder.parent)
    case.odd = True
    net = str(case.pick([files["net.py"], files["net.py"], *files.values()]))
    options = {"--batch": ["2"], "--iterations": ["1"]}
    for _ in range(case.whole(0, 2)):
        name = case.pick(["--batch", "--iterations", "--backend", "--kernels", *NAMES])
        options[name] = [case.pick(TOKENS)]
    name = case.pick(["time", "time", "check", "test", "infer", "devices", *TOKENS])
    arguments = [name, net, *flat(options)]
    if case.chance(0.2):
        arguments[case.whole(0, len(arguments) - 1)] = case.pick(TOKENS)
    judge(*run(case, cli.main, ["layerkit", *arguments]))


def judge(status: int, out: str, err: str) -> None:
    """Check how a program ended."""
    check(status in (0, 2, TRAINED, command.INTERRUPTED), f"status {status}: {err[-1500:]}")
    check("Traceback" not in err, f"a traceback: {err[-1500:]}")
    if status == 2:
        last = err.strip().splitlines()[-1] if err.strip() else ""
        check("error:" in last, f"status 2, and the last line is {last!r}")
        check(len(last) < 900, f"a message of {len(last)} letters: {last[:300]}")
        raise DataError("refused")


def case(case: Case) -> None:
    """One program."""
    case.pick([example, example, framework])(case)
