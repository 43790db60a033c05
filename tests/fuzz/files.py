"""Damaged and hostile files, thousands of them: each is loaded right, or refused in one line.

Run by itself, `python tests/fuzz/files.py --cases 20000 --seed 1`, it goes on for as long as it is
told; test_fuzz_files.py runs a few hundred cases.  Cases run in child processes, as HDF5 may crash
or loop for ever; the child's number of the case is all that is needed to run it again.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import LayerkitError
from layerkit.galaxy.images.prepare.prepare import prepare
from layerkit.galaxy.images.prepared import is_prepared, load

SECONDS = 20  # for one case, which takes milliseconds; more is a loop without end
MEMORY = 2**29  # bytes that a case may take beyond what the process has before
CHECKSUM = 32


# Files to be damaged.


class Pictures:
    """A small source of galaxies."""

    name = "pictures"
    ids = tuple("abcdef")

    def __len__(self):
        return len(self.ids)

    def read(self, i):
        dy, dx = np.mgrid[:48, :48] - 23.5
        noise = np.random.default_rng(i).normal(0.02, 0.005, (48, 48))
        return np.clip(noise + 0.6 * np.exp(-(dy**2 + dx**2) / (8 + i)), 0, 1).astype("f4")


def make(seed):
    layers = [
        L.Input("x", shape=(5,)),
        L.Dense("a/b", "x", units=3, neuron="tanh"),
        L.Dense("y", "a/b", units=2),
        L.SquareLoss("loss", "y", "y"),
    ]
    net = lk.Net(layers, batch_size=4, seed=seed)
    return net, lk.Adam(net, rate=0.01)


def state_of(net, solver):
    """Everything that `load` may change."""
    return (
        net.arena.data.tobytes(),
        net.state(),
        solver.iteration,
        [flat.tobytes() for flat in solver.history.values()],
    )


class Snapshot:
    def __init__(self, folder):
        self.path = folder / "model.h5"
        net, solver = make(1)
        solver.step(x=np.ones((4, 5)))
        lk.save(self.path, net, solver, {"note": [1, 2.5, "three"]})
        self.expected = state_of(net, solver)
        self.net, self.solver = make(2)
        self.solver.step(x=np.ones((4, 5)))

    def check(self, intact):
        """All or nothing."""
        before = state_of(self.net, self.solver)
        try:
            lk.load(self.path, self.net, self.solver)
        except LayerkitError:
            assert state_of(self.net, self.solver) == before, "a failed load changed the net"
            raise
        after = state_of(self.net, self.solver)
        if intact:
            assert after == self.expected, "other numbers were loaded in silence"
        lk.snapshot.read_extra(self.path)


class OldSnapshot(Snapshot):
    """Format 1, as the first version wrote it."""

    def __init__(self, folder):
        super().__init__(folder)
        net, solver = make(1)
        image = io.BytesIO()
        with h5py.File(image, "w") as file:
            texts = {"net": str(net), "state": json.dumps(net.state()), "extra": "{}"}
            file.attrs.update({"format": 1, "iteration": 0, "solver": "Adam", **texts})
            for name, p in net.params.items():
                file[f"params/{name}"] = p.data
                for key, flat in solver.history.items():
                    file[f"history/{key}/{name}"] = flat[p.offset : p.offset + p.size]
        self.path.write_bytes(image.getvalue() + hashlib.sha256(image.getvalue()).digest())
        self.expected = state_of(net, solver)


class PreparedSet:
    def __init__(self, folder):
        self.path = folder / "set.h5"
        prepare(Pictures(), self.path, size=9, progress=False, workers=1, origin={"path": "x"})
        self.expected = load(self.path).digest

    def check(self, intact):
        is_prepared(self.path)
        found = load(self.path)
        if intact:
            assert found.digest == self.expected, "other galaxies were loaded in silence"


class UsersFile:
    """HDF5 of somebody's own, without a checksum, as HDF5Data reads it."""

    how: ClassVar[dict] = {}

    def __init__(self, folder):
        self.path = folder / "data.h5"
        with h5py.File(self.path, "w") as file:
            images = np.arange(120, dtype="f4").reshape(30, 4)
            file.create_dataset("group/images", data=images, **self.how)
            file["labels"] = np.arange(30, dtype="u1")

    def check(self, intact):
        is_prepared(self.path)
        data = L.HDF5Data(
            "d", path=self.path, datasets=["group/images", "labels"], tops=["x", "t"], block=8
        )
        net = lk.Net([data], batch_size=10)
        for _ in range(4):
            net.forward()


class CompressedFile(UsersFile):
    how: ClassVar[dict] = {"chunks": (7, 4), "compression": "gzip", "shuffle": True}


class ManyChunks(UsersFile):
    """Hundreds of chunks, found through a tree, as prepared sets once were stored."""

    how: ClassVar[dict] = {"chunks": (1, 1), "maxshape": (None, 4)}


KINDS = (Snapshot, OldSnapshot, PreparedSet, UsersFile, CompressedFile, ManyChunks)


# How it is damaged.


def flip(rng, content):
    """One bit to a few bytes, at one place or several."""
    content = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 1, 2, 8]))):
        at = int(rng.integers(len(content)))
        if rng.random() < 0.5:
            content[at] ^= 1 << int(rng.integers(8))
        else:
            length = int(rng.choice([1, 2, 4, 8]))
            value = rng.choice([b"\0" * length, b"\xff" * length, rng.bytes(length)])
            content[at : at + length] = bytes(value).ljust(length, b"\0")[: len(content) - at]
    return bytes(content)


def truncate(rng, content):
    return content[: int(rng.integers(len(content)))]


def lengthen(rng, content):
    return content + rng.bytes(int(rng.integers(1, 5000)))


def shuffle_pieces(rng, content):
    """A piece of the file in another place, as after a bad copy."""
    length = int(rng.integers(1, 600))
    a, b = (int(n) for n in rng.integers(0, len(content), 2))
    piece = content[a : a + length]
    return content[:b] + piece + content[b + len(piece) :]


def seal(content):
    return content + hashlib.sha256(content).digest()


def values(rng):
    """Something that does not belong there, of every kind there is."""
    text = h5py.string_dtype()
    choices = [
        lambda: np.float32(1),
        lambda: np.zeros(3, "f8"),
        lambda: np.zeros((2, 3), ">f4"),
        lambda: np.zeros(0, "f4"),
        lambda: np.full(5, np.nan, "f4"),
        lambda: np.arange(4),
        lambda: np.array([2**63], "u8"),
        lambda: "text",
        lambda: b"\xff\xfe",
        lambda: "[" * 9000,
        lambda: np.array(["a", "b"], dtype=object),
        lambda: h5py.Empty("f4"),
        lambda: True,
        lambda: np.zeros(3, "f4,i8"),
        lambda: np.zeros(3, complex),
        lambda: "{}",
        lambda: "[]",
        lambda: '{"seed": NaN}',
        lambda: '{"seed": 1e999, "passes": -1}',
        lambda: -1,
        lambda: 2**62,
        lambda: np.full(2, h5py.Reference(), h5py.ref_dtype),
        lambda: 10**300 * 1.0,
        lambda: np.zeros(2, h5py.enum_dtype({"a": 0, "b": 1})),
        lambda: np.zeros((1,) * 30, "f4"),
        lambda: np.array(b"\xff\0\xff", text),
        lambda: np.float16(3),
        lambda: np.longdouble(3),
        lambda: "1" * 5000,
        lambda: np.zeros(2, np.dtype(("f4", (3,)))),
    ]
    return choices[int(rng.integers(len(choices)))]()


def things(file):
    """Names of everything in the file, groups included."""
    names = []
    file.visit(names.append)
    return names


def restructure(rng, file):
    """One change through HDF5 itself: the file is sound, and not what it should be."""
    names = things(file)
    name = names[int(rng.integers(len(names)))] if names else "a"
    item = file.get(name)
    shape = getattr(item, "shape", None) or (3,)
    way = int(rng.integers(14))
    if way < 4 and len(file.attrs):  # an attribute
        key = list(file.attrs)[int(rng.integers(len(file.attrs)))]
        del file.attrs[key]
        if way:
            file.attrs[key] = values(rng)
        return
    if way == 4:
        file.move(name, name + str(rng.choice(["x", "/y", "%41", "%ff", "."])))
        return
    if way == 5:
        file[f"{name} more"] = values(rng)
        return
    if way == 6:
        holder = item if isinstance(item, h5py.Group) else item.parent
        holder["again"] = file[str(rng.choice(names))] if rng.random() < 0.5 else file
        return
    del file[name]
    if way == 7:
        file.create_group(name)
    elif way == 8:
        file[name] = h5py.SoftLink(str(rng.choice(["/", "/nowhere", f"/{name}", *names])))
    elif way == 9:
        file[name] = h5py.ExternalLink(str(rng.choice(["/etc/passwd", "set.h5", "."])), "/images")
    elif way == 10:
        file.create_dataset(name, shape, "f4", external=[("/etc/passwd", 0, 10**6)])
    elif way == 11:
        layout = h5py.VirtualLayout(shape, "f4")
        layout[...] = h5py.VirtualSource("/etc/passwd", "a", shape)
        file.create_virtual_dataset(name, layout)
    elif way == 12:
        claimed = tuple(int(n) for n in rng.choice([1, 2**16, 2**31, 2**40], len(shape)))
        chunks = None if rng.random() < 0.5 else tuple(min(n, 2**8) for n in claimed)
        with contextlib.suppress(ValueError, OSError):
            file.create_dataset(name, claimed, "f4", chunks=chunks)
    elif way == 13:
        file[name] = values(rng)


BYTES = (flip, flip, flip, truncate, lengthen, shuffle_pieces)


def damage(rng, content, sealed):
    """(damaged content, whether the checksum, if there is one, still shows it)."""
    inside = content[:-CHECKSUM] if sealed else content
    if rng.random() < 0.4:
        image = io.BytesIO(inside)
        impossible = KeyError, ValueError, TypeError, OSError, RuntimeError, OverflowError
        with contextlib.suppress(*impossible), h5py.File(image, "r+") as file:
            for _ in range(int(rng.choice([1, 1, 2, 4]))):
                restructure(rng, file)
        return (seal(image.getvalue()) if sealed else image.getvalue()), False
    change = BYTES[int(rng.integers(len(BYTES)))]
    if sealed and rng.random() < 0.5:
        return seal(change(rng, inside)), False
    return change(rng, content), sealed


# Running.


def run_cases(seed, first, stop):
    """Runs cases one after the other, and says which before each."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "layerkit.s compiled kernels")  # are not installed
    with tempfile.TemporaryDirectory() as name:
        subjects = []
        for kind in KINDS:
            folder = Path(name, kind.__name__)
            folder.mkdir()
            subject = kind(folder)
            subject.check(True)
            subjects.append((subject, subject.path.read_bytes()))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        for case in range(first, stop):
            rng = np.random.default_rng([seed, case])
            subject, content = subjects[case % len(subjects)]
            sealed = not isinstance(subject, UsersFile)
            print(f"case {case} {type(subject).__name__}", flush=True)
            signal.alarm(SECONDS)  # not answered in Python, so that it ends a loop in C as well
            damaged, shows = damage(rng, content, sealed)
            print("made", flush=True)
            subject.path.unlink()  # HDF5 knows a file that is still open by its number
            subject.path.write_bytes(damaged)
            signal.alarm(SECONDS)
            refused = ""
            try:
                subject.check(shows or damaged == content)
            except LayerkitError as error:
                refused = str(error)
            assert "\n" not in refused, f"not one line: {refused}"
            assert not refused or damaged != content, f"a sound file is refused: {refused}"
            signal.alarm(0)


def fuzz(seed, first, stop):
    """Lines of text about the cases that crash, hang, or raise an error of the wrong kind."""
    faults = []
    while first < stop:
        command = [sys.executable, __file__, "--child", str(seed), str(first), str(stop)]
        child = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if child.returncode == 0:
            break
        lines = child.stdout.splitlines()
        cases = [line for line in lines if line.startswith("case ")]
        if not cases:
            return [*faults, f"seed {seed}: does not start: {child.stderr}"]
        last = int(cases[-1].split()[1])
        if lines[-1] == "made":  # and not an accident of making it
            how = f"signal {-child.returncode}" if child.returncode < 0 else child.stderr.strip()
            faults.append(f"seed {seed}, {cases[-1]}: {how}")
        first = last + 1
    return faults


def main():
    if sys.argv[1:2] == ["--child"]:
        run_cases(*map(int, sys.argv[2:5]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    faults = fuzz(args.seed, 0, args.cases)
    print("\n".join(faults) or f"{args.cases} damaged files, no fault")
    sys.exit(bool(faults))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
