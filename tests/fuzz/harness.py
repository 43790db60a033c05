"""Runs cases by number, each with random numbers of its own, in a process with limits.

    python -m fuzz calls --seed 1 --count 500           in tests/
    python -m fuzz calls --seed 1 --first 37 --count 1  the same case number 37 again

A process of its own survives a crash or a hang of what it tests, in the eyes of pytest: the number
of a case is printed before it runs.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from layerkit.errors import GradientError, LayerkitError

TESTS = Path(__file__).resolve().parent.parent
ADDRESS_SPACE = 12 << 30  # bytes; stacks of threads and compiled code reserve more than they use
LONGEST_MESSAGE = 700


class HangError(Exception):
    """A case that took too long."""


class WrongError(AssertionError):
    """A result that is not right."""


@dataclass
class Case:
    """One case: its random numbers, and a story of what it did for whoever must repeat it."""

    rng: np.random.Generator
    folder: Path
    story: list[str] = field(default_factory=list)
    odd: bool = False  # whether something implausible was done

    def say(self, *words: Any) -> None:
        """Note what is about to be done."""
        self.story.append(" ".join(w if isinstance(w, str) else shown(w) for w in words))

    def chance(self, probability: float) -> bool:
        """Toss a coin."""
        return bool(self.rng.random() < probability)

    def pick(self, choices: Any) -> Any:
        """Choose one, with equal probabilities and as the object that it is."""
        choices = list(choices)
        return choices[int(self.rng.integers(len(choices)))]

    def whole(self, low: int, high: int) -> int:
        """Choose a whole number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))


def shown(value: Any) -> str:
    """A value in a story; a representation that fails is one of the things that may be wrong."""
    text = " ".join(repr(value).split())
    return text if len(text) < 120 else text[:117] + "..."


def check(good: Any, what: str) -> None:
    """Raise where something is not as it must be."""
    if not good:
        raise WrongError(what)


def one_line(error: LayerkitError) -> None:
    """Check that an error is one for people."""
    text = str(error)
    check(text.strip(), f"{type(error).__name__} without a message")
    if not isinstance(error, GradientError):  # which has a line for each number
        check("\n" not in text, f"a message of several lines: {text!r}")
    check(len(text) <= LONGEST_MESSAGE, f"a message of {len(text)} letters: {text[:200]!r}")


def limit_memory(size: int = ADDRESS_SPACE) -> None:
    """Let this process and its children have no more than this."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(
    case: Callable[[Case], None], folder: Path, seed: int, first: int, count: int, seconds: int
) -> dict[str, Any]:
    """Run cases; returns counts of how they ended, and the failures."""

    def too_long(number: int, frame: Any) -> NoReturn:
        raise HangError(f"took longer than {seconds} s")

    signal.signal(signal.SIGALRM, too_long)
    ends: Counter[str] = Counter()
    failures = []
    for number in range(first, first + count):
        print(json.dumps({"case": number}), flush=True)
        place = folder / str(number)
        place.mkdir()
        this = Case(np.random.default_rng([seed, number]), place)
        signal.alarm(seconds)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    case(this)
                    ends["odd but fine" if this.odd else "fine"] += 1
                except LayerkitError as error:
                    one_line(error)
                    ends["refused"] += 1
                    if not this.odd:
                        raise WrongError(f"nothing was odd, yet: {error}") from error
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            ends["failed"] += 1
            failures.append(
                {
                    "case": number,
                    "error": type(error).__name__,
                    "message": str(error)[:500],
                    "story": this.story[-8:],
                    "traceback": traceback.format_exc()[-1800:],
                }
            )
        finally:
            signal.alarm(0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"ends": ends, "failures": failures, "megabytes": round(peak)}


def in_process(
    kind: str, seed: int, first: int, count: int, seconds: float, *, threads: int = 1
) -> dict[str, Any]:
    """Run cases in a process of their own; one that dies or hangs is a failure of its last case."""
    command = [
        sys.executable,
        "-m",
        "fuzz",
        kind,
        "--seed",
        seed,
        "--first",
        first,
        "--count",
        count,
    ]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TESTS.parent,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)},
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
            ended = f"ended with status {process.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            ended = f"was still running after {seconds:.0f} s"
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    if process.returncode == 0 and lines and "ends" in lines[-1]:
        return lines[-1]
    last = next((line["case"] for line in reversed(lines) if "case" in line), first)
    return {
        "ends": {},
        "megabytes": 0,
        "failures": [
            {
                "case": last,
                "error": "the process",
                "message": ended,
                "story": [],
                "traceback": err[-1800:],
            }
        ],
    }


def report(kind: str, seed: int, result: dict[str, Any]) -> str:
    """Say what went wrong, with the command that repeats it."""
    texts = [f"{kind}, seed {seed}: {result['ends']}, {result['megabytes']} MB at most"]
    for failure in result["failures"]:
        texts.append(
            f"\n--- case {failure['case']}: {failure['error']}: {failure['message']}\n"
            + "\n".join(f"    {line}" for line in failure["story"])
            + f"\n{failure['traceback']}\n    again: cd tests && python -m fuzz {kind} "
            f"--seed {seed} --first {failure['case']} --count 1"
        )
    return "\n".join(texts)


def settings() -> tuple[int, float]:
    """The seed, and how many times more cases than usual, from the environment.

    LAYERKIT_FUZZ_SEED is a number, or "random"; LAYERKIT_FUZZ multiplies the number of cases.
    """
    seed = os.environ.get("LAYERKIT_FUZZ_SEED") or "20"
    number = int(np.random.SeedSequence().entropy % 2**32) if seed == "random" else int(seed)
    return number, float(os.environ.get("LAYERKIT_FUZZ") or 1)


def failures(kind: str, count: int, seconds: float) -> tuple[str, dict[str, Any]]:
    """Run as many cases of a kind as the environment asks; more than usual in two processes.

    Returns:
        A report, empty where nothing went wrong, and how many cases ended in which way.
    """
    seed, factor = settings()
    part = 2 if factor > 1 else 1  # as tests run on each core already
    count = max(part, round(count * factor))
    print(f"LAYERKIT_FUZZ_SEED={seed}: {count} cases of {kind}")
    first = [count * i // part for i in range(part + 1)]
    with ThreadPoolExecutor(part) as pool:
        results = list(
            pool.map(
                lambda i: in_process(
                    kind, seed, first[i], first[i + 1] - first[i], seconds * factor
                ),
                range(part),
            )
        )
    ends = Counter()
    for result in results:
        ends.update(result["ends"])
    ends["megabytes"] = max(result["megabytes"] for result in results)
    print(dict(ends))
    reports = [report(kind, seed, result) for result in results if result["failures"]]
    return "\n".join(reports), ends
