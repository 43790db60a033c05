"""Snapshots: parameters, solver history and everything else that decides the next step, as HDF5.

Statistics of layers, such as running means, are a group of their own beside the parameters.

A file is written beside its target, flushed to disk and renamed over it, so the target is always
either the old snapshot or the new one.  Nothing is pickled: a snapshot from a stranger holds
numbers, names and JSON, and loading it runs no code.  The checksum of the whole file is verified
before anything in it is used; see layerkit.saving.hdf5.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote

import numpy as np

from layerkit.blob import Parameter, Statistic
from layerkit.data.arrays import loses_digits
from layerkit.errors import NetError, SnapshotError, brief
from layerkit.inspection.display import Extra
from layerkit.net import Net
from layerkit.saving import hdf5
from layerkit.settings import fitting
from layerkit.settings.names import quoted
from layerkit.solvers.solver import Solver
from layerkit.system.files import path_of, write_atomically
from layerkit.system.uninterrupted import Uninterrupted

if TYPE_CHECKING:  # slow to import
    import h5py

__all__ = ["amend", "read_arrays", "read_extra", "save", "write_atomically"]

FORMAT = 2
KIND = "layerkit snapshot"
KINDS = {"params": "parameter", "statistics": "statistic"}  # group -> what it holds
SAFE = " !#$&'()*+,:;<=>?@[]^`{|}"  # stands for itself in the name of a data set
STORED = ("float16", "float32", "float64")  # types of parameters in a file
LARGEST = 2**62  # largest pass number or position
DEEPEST = 32  # slashes in the name of a parameter of format 1


@fitting(SnapshotError)
def save(
    path: str | os.PathLike[str],
    net: Net,
    solver: Solver | None = None,
    extra: Mapping[str, Any] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
    dtype: Literal["float16", "float32", "float64"] | None = None,
) -> None:
    """Write a snapshot of a net and, if given, of its solver.

    Args:
        path: the file, replaced in one move if it is there.
        net: the net.
        solver: the solver that trains it.
        extra: a dict that JSON can hold, to be returned by `load`; NumPy's numbers come back as
            Python's, arrays and tuples as lists, and paths as strings.
        arrays: further arrays of floats by name, to be returned by `read_arrays`.
        dtype: of parameters in the file: "float16" makes it half as large as "float32" does, at
            three digits a number, by the scale of each parameter.  None, the default, takes the
            net's.

    Raises:
        SnapshotError: the file cannot be written, JSON cannot hold `extra`, `dtype` is another, or
            a parameter is too large or too small for it, or it is not the net's and a solver is
            given, which would not go on as it was; a file that was there is unchanged.
    """
    path = path_of(path, SnapshotError)
    check_arguments(net, solver)
    if extra is not None and not isinstance(extra, Mapping):
        raise SnapshotError(f"extra must be a dict, got {type(extra).__name__}")
    kept = json.dumps(hdf5.plain(extra or {}, "extra", SnapshotError))
    if dtype not in (None, *STORED) or (dtype != net.dtype and dtype and solver is not None):
        expected = f"the net's, {net.dtype}, with a solver" if solver else f"None, {quoted(STORED)}"
        raise SnapshotError(f"dtype of a snapshot: expected {expected}, got {brief(dtype)}")
    hdf5.refuse_other(path, SnapshotError, KIND)

    def fill(file: h5py.File) -> None:
        file.attrs["format"] = FORMAT
        hdf5.attribute(file, "net", str(net))
        state = {key: int(value) for key, value in net.state().items()}
        hdf5.attribute(file, "state", json.dumps(state))
        hdf5.attribute(file, "extra", kept)
        file.create_group("params")
        for name, p in net.params.items():
            values = net.backend.to_host(p.data)
            file["/".join(_place("params", name))] = _cast(values, dtype, name, path)
        for name, s in net.statistics.items():
            file["/".join(_place("statistics", name))] = net.backend.to_host(s.data)
        for name, array in (arrays or {}).items():
            file[f"arrays/{_escape(name)}"] = array
        if solver is not None:
            hdf5.attribute(file, "solver", type(solver).__name__)
            hdf5.attribute(file, "iteration", int(solver.iteration))
            hdf5.attribute(file, "solver_state", json.dumps(solver.state()))
            for key, flat in solver.history.items():
                file.create_group(f"history/{_escape(key)}")
                for name, p in net.arena.parameters.items():
                    piece = flat[p.offset : p.offset + p.size]
                    place = _place("history", name, key)
                    file["/".join(place)] = net.backend.to_host(piece)

    try:
        with net.lock:
            if solver is not None:
                net.lock.check_own(net.arena.data, SnapshotError, "save: save the net alone")
            hdf5.write_sealed(path, KIND, fill)
    except OSError as error:
        raise SnapshotError(f"cannot write snapshot {path}: {error.strerror or error}") from error


def _cast(values: np.ndarray, dtype: str | None, name: str, path: Any) -> np.ndarray:
    """Return values as they are stored.

    Raises:
        SnapshotError: some are too large for the type, or all too small.
    """
    with np.errstate(over="ignore", under="ignore"):
        found = values.astype(dtype or values.dtype, copy=False)
    large = np.isinf(found).any() and np.isfinite(values).all()
    if large or loses_digits(values, found):
        raise SnapshotError(
            f"cannot write snapshot {path}: parameter {name!r} has numbers too "
            f"{'large' if large else 'small'} for {dtype}; store {values.dtype}"
        )
    return found


@fitting(SnapshotError)
def amend(
    path: str | os.PathLike[str],
    *,
    arrays: Mapping[str, np.ndarray] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Change the `arrays` or the `extra` of a snapshot, and leave all the rest of it as it is.

    Args:
        path: the file.
        arrays: arrays of floats by name, which take the place of those in it; None, the default,
            keeps these.
        extra: entries that are added to its `extra`, or replace those of their names.

    Raises:
        SnapshotError: as for `load`, or the file cannot be written.
    """
    path = path_of(path, SnapshotError)

    def fill(file: h5py.File) -> None:
        with opened(path) as old:
            kept = {**old.json("extra"), **hdf5.plain(extra or {}, "extra", SnapshotError)}
            for key, value in old.file.attrs.items():
                if key != "extra":
                    file.attrs[key] = value
            hdf5.attribute(file, "extra", json.dumps(kept))
            for group in old.file:
                if group != "arrays" or arrays is None:
                    old.file.copy(group, file)
        for name, array in (arrays or {}).items():
            file[f"arrays/{_escape(name)}"] = array

    try:
        hdf5.write_sealed(path, KIND, fill)
    except OSError as error:
        raise SnapshotError(f"cannot write snapshot {path}: {error.strerror or error}") from error


@fitting(SnapshotError)
def read_extra(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the `extra` that `save` was given, without a net to load into.

    Raises:
        SnapshotError: as for `load`.
    """
    with opened(path) as snapshot:
        return Extra(snapshot.json("extra"))


@fitting(SnapshotError)
def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the `arrays` that `save` was given.

    Raises:
        SnapshotError: as for `load`.
    """
    with opened(path) as snapshot:
        return {
            _named(snapshot, name): snapshot.array("arrays", name, kinds="f")
            for name in snapshot.names("arrays")
        }


def check_arguments(net: Net, solver: Solver | None) -> None:
    """Fail unless a net, and perhaps the solver that trains it, were given."""
    if not isinstance(net, Net):
        raise SnapshotError(f"expected a Net after the path, got {type(net).__name__}")
    if solver is not None and not isinstance(solver, Solver):
        raise SnapshotError(f"expected a solver after the net, got {type(solver).__name__}")
    if solver is not None and solver.net is not net:
        raise SnapshotError("the solver trains another net; give the net that it trains")


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[hdf5.Reader]:
    """Open a snapshot of a format that can be read; interrupts wait, as h5py would lose some."""
    with (
        Uninterrupted(),
        hdf5.open_sealed(path, KIND, "a snapshot", SnapshotError, unmarked=True) as snapshot,
    ):
        found = snapshot.integer("format", 1)
        if found > FORMAT:
            raise SnapshotError(
                f"{snapshot.name} has snapshot format {found}, this layerkit reads up to {FORMAT}; "
                "install a newer layerkit"
            )
        yield snapshot


# Any name of a layer can be stored: "/" would make groups, and HDF5 looks for "." in vain.


def _place(section: str, name: str, *keys: str) -> tuple[str, ...]:
    """Name the groups and the data set in which a parameter, or its history, is stored."""
    layer, _, own = name.rpartition("/")
    return (section, *map(_escape, (*keys, layer, own)))


def _escape(name: str) -> str:
    """Turn any name into one that HDF5 can hold; `_unescape` turns it back."""
    escaped = quote(name, SAFE, errors="surrogatepass")
    return "%2E" * len(name) if name and set(name) == {"."} else escaped or "%"


def _unescape(name: str) -> str:
    return "" if name == "%" else unquote(name, errors="surrogatepass")


def _named(file: hdf5.Reader, escaped: str) -> str:
    """Return the name that stands in a file as `_escape` writes it."""
    with contextlib.suppress(UnicodeError):
        name = _unescape(escaped)
        if _escape(name) == escaped:
            return name
    raise file.fail(repr(escaped), "is no name of a layer or parameter")


class Contents:
    """Contents of a snapshot, checked against the net and solver that it is for."""

    def __init__(self, file: hdf5.Reader, net: Net, solver: Solver | None):
        self.old = file.integer("format") < 2  # names of parameters as they are
        self.file = file
        self.groups, self.most_groups = 0, 100 + 10 * len(net.params)
        self.extra = Extra(file.json("extra"))
        self._check_names("params", net.params)
        self._check_names("statistics", net.statistics)
        to_device = net.backend.asarray
        self.values = {
            name: to_device(self._read(self._path("params", name), p.shape, net.dtype))
            for name, p in net.params.items()
        }
        self.statistics = {
            name: to_device(self._read(self._path("statistics", name), s.shape, net.dtype))
            for name, s in net.statistics.items()
        }
        self.state = self._state(net, solver)
        self.iteration = 0
        self.solver_state: dict[str, Any] = {}
        self.histories: dict[str, Any] = {}
        if solver is not None:
            self._check_solver(solver)
            self.iteration = file.integer("iteration")
            stored = file.json("solver_state") if file.has("solver_state") else {}
            self.solver_state = {**stored, "iteration": self.iteration}
            for key, flat in solver.history.items():
                values = np.zeros(flat.shape, net.dtype)
                for name, p in net.arena.parameters.items():
                    piece = self._read(self._path("history", name, key), (p.size,), net.dtype)
                    values[p.offset : p.offset + p.size] = piece
                self.histories[key] = to_device(values)

    def apply(self, net: Net, solver: Solver | None) -> None:
        """Put the contents into a net and its solver; on an interrupt put the old ones back."""
        pairs = [(p.data, self.values[name]) for name, p in net.params.items()]
        pairs += [(s.data, self.statistics[name]) for name, s in net.statistics.items()]
        if solver is not None:
            pairs += [(flat, self.histories[key]) for key, flat in solver.history.items()]
        before = [target.copy() for target, _ in pairs]
        state, own = net.state(), solver.state() if solver is not None else {}
        try:
            for target, values in pairs:
                target[...] = values
            if solver is not None:
                try:
                    solver.set_state(self.solver_state)
                except NetError as error:
                    raise SnapshotError(f"{self.file.name}: {error}") from error
            net.set_state(self.state)
        except BaseException:
            for (target, _), values in zip(pairs, before, strict=True):
                target[...] = values
            if solver is not None:
                solver.set_state(own)
            net.set_state(state)
            raise

    def _path(self, section: str, name: str, *keys: str) -> tuple[str, ...]:
        return (section, *keys, *name.split("/")) if self.old else _place(section, name, *keys)

    def _check_names(self, section: str, own: Mapping[str, Parameter | Statistic]) -> None:
        """Compare names and shapes of the parameters, or the statistics, with the net's."""
        found = self._stored(section)
        for name in sorted(own.keys() | found):
            there: Any = self._shape(section, name) if name in found else "none"
            here: Any = own[name].shape if name in own else "none"
            if there != here:
                raise SnapshotError(
                    f"{self.file.name} is of another net: {KINDS[section]} {name!r} has shape "
                    f"{there} there, and {here} in this net"
                )

    def _shape(self, section: str, name: str) -> tuple[int, ...]:
        return self.file.dataset(*self._path(section, name), kinds="f").shape

    def _stored(self, section: str) -> set[str]:
        """Collect the names of all parameters, or statistics, stored."""
        if section == "params" and not self.file.is_group(section):  # others may be missing
            raise self.file.fail(repr(section), "is missing, or not a group")
        if self.old:
            return set(self._walk(section))
        return {
            f"{_named(self.file, layer)}/{_named(self.file, own)}"
            for layer in self.file.names(section)
            for own in self.file.names(section, layer)
        }

    def _walk(self, *group: str) -> Iterator[str]:
        """Yield paths of the data sets in a group of an old snapshot, and in the groups in it."""
        self.groups += 1
        if len(group) > DEEPEST or self.groups > self.most_groups:  # groups may contain each other
            raise self.file.fail(repr(group[0]), "holds groups in groups without end")
        for name in self.file.names(*group):
            if self.file.is_group(*group, name):
                yield from self._walk(*group, name)
            else:
                yield "/".join((*group[1:], name))

    def _read(self, place: tuple[str, ...], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        values = self.file.array(*place, kinds="f", shape=shape)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            cast = values.astype(dtype)
        large = np.count_nonzero(np.isinf(cast)) > np.count_nonzero(np.isinf(values))
        if large or (place[0] == "params" and loses_digits(values, cast)):
            size = "large" if large else "small"
            raise self.file.fail(repr("/".join(place)), f"holds numbers too {size} for {dtype}")
        return cast

    def _state(self, net: Net, solver: Solver | None) -> dict[str, int]:
        own = net.state()
        found = self.file.json("state")
        for key, value in found.items():
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or (key != "seed" and not 0 <= value <= LARGEST):
                raise self.file.fail(
                    f"state: {key!r}", f"must be a whole number, got {brief(value)}"
                )
        if solver is None:
            return {key: found.get(key, value) for key, value in own.items()}
        if found.keys() != own.keys():
            there, here = quoted(sorted(found)), quoted(sorted(own))
            raise SnapshotError(
                f"{self.file.name} is of a net with other data layers: it stores {there}, this net "
                f"has {here}"
            )
        return found

    def _check_solver(self, solver: Solver) -> None:
        own = type(solver).__name__
        found = self.file.text("solver") if self.file.has("solver") else "none"
        if found != own:
            raise SnapshotError(
                f"{self.file.name} was saved with solver {hdf5.one_line(found)}, not {own}"
            )
        stored = self.file.names("history")
        wanted = sorted(solver.history if self.old else map(_escape, solver.history))
        if stored != wanted:
            raise self.file.fail(
                "history",
                f"holds {quoted(stored)}, but {own} keeps {quoted(wanted)} with the settings "
                "that it was made with (accumulate=, ema=)",
            )
