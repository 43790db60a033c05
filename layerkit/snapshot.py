"""Snapshots: parameters, solver history and everything else that decides the next step, as HDF5.

A file is written beside its target, flushed to disk and renamed over it, so the target is always
either the old snapshot or the new one.  Nothing is pickled: a snapshot from a stranger holds
numbers, names and JSON, and loading it runs no code.  Behind the HDF5 data, where HDF5 does not
look, stands their SHA-256: HDF5 alone can read wrong numbers from a damaged file, or crash.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.display import Extra
from layerkit.errors import SnapshotError
from layerkit.net import Net
from layerkit.solvers.solver import Solver

if TYPE_CHECKING:  # it takes long to import
    import h5py

FORMAT = 1
CHECKSUM = hashlib.sha256().digest_size


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path beside `path`, flushes that to disk, and renames it.

    Temporary files for `path` of processes that are no more, as after kill -9, are removed.
    """
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        owner = left.name.split(".")[-2]
        if owner.isdigit() and not _runs(int(owner)):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether there is a process of this number."""
    if os.name != "posix":  # elsewhere there is no harmless signal to ask with
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def save(
    path: str | os.PathLike[str], net: Net, solver: Solver | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Writes a snapshot of a net and, if given, of its solver.

    Args:
        path: the file, replaced in one move if it is there.
        extra: anything JSON can hold, to be returned by `load`.

    Raises:
        SnapshotError: the file cannot be written.
    """
    import h5py

    image = io.BytesIO()  # HDF5 crashes where it cannot finish a file, as on a full disk
    with h5py.File(image, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["net"] = str(net)
        file.attrs["state"] = json.dumps(net.state())
        file.attrs["extra"] = json.dumps(extra or {})
        for name, p in net.params.items():
            file[f"params/{name}"] = net.backend.to_host(p.data)
        if solver is not None:
            file.attrs["solver"] = type(solver).__name__
            file.attrs["iteration"] = solver.iteration
            for key, flat in solver.history.items():
                for name, p in net.params.items():
                    piece = flat[p.offset : p.offset + p.size]
                    file[f"history/{key}/{name}"] = net.backend.to_host(piece)
    content = image.getvalue()
    content += hashlib.sha256(content).digest()
    try:
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        raise SnapshotError(f"cannot write snapshot {path}: {error}") from error


def load(
    path: str | os.PathLike[str], net: Net, solver: Solver | None = None
) -> dict[str, Any]:
    """Reads a snapshot into a net and, if given, its solver; all of it or nothing.

    Training that goes on from here equals training that never stopped, bit for bit on NumPy.
    Without a solver the net may have other data layers than the one that was saved, or none.

    Returns:
        The `extra` that `save` was given.

    Raises:
        SnapshotError: the file is missing, truncated, of a newer format, or of another net or
            solver; the message says which and the net is left as it was.
    """
    with _opened(path) as file:
        return _read(file, path, net, solver)


def read_extra(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The `extra` that `save` was given, without a net to load into.

    Raises:
        SnapshotError: as `load`.
    """
    with _opened(path) as file:
        return Extra(json.loads(file.attrs["extra"]))


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """An open snapshot of a format that can be read; whatever else is wrong is a SnapshotError."""
    import h5py

    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise SnapshotError(f"no snapshot at {path}") from error
    except OSError as error:
        raise SnapshotError(f"cannot read snapshot {path}: {error.strerror}") from error
    image, checksum = content[:-CHECKSUM], content[-CHECKSUM:]
    if hashlib.sha256(image).digest() != checksum:
        raise SnapshotError(f"{path} is not a snapshot, or truncated or damaged")
    try:
        with h5py.File(io.BytesIO(image), "r") as file:
            if file.attrs["format"] > FORMAT:
                raise SnapshotError(
                    f"{path} has snapshot format {file.attrs['format']}, this layerkit reads up to "
                    f"{FORMAT}; install a newer layerkit"
                )
            yield file
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise SnapshotError(f"{path} is not a snapshot of layerkit's ({error})") from error


def _read(
    file: h5py.File, path: str | os.PathLike[str], net: Net, solver: Solver | None
) -> dict[str, Any]:
    group = file["params"]
    stored: dict[str, tuple[int, ...]] = {}
    group.visititems(
        lambda name, item: stored.update({name: item.shape}) if hasattr(item, "shape") else None
    )
    expected = {name: p.shape for name, p in net.params.items()}
    for name in sorted(expected.keys() | stored.keys()):
        if expected.get(name) != stored.get(name):
            raise SnapshotError(
                f"{path} is of another net: parameter {name!r} has shape "
                f"{stored.get(name, 'none')} there, and {expected.get(name, 'none')} in this net"
            )
    values = {name: group[name][...].astype(net.dtype) for name in expected}
    own = net.state()
    state = {key: int(value) for key, value in json.loads(file.attrs["state"]).items()}
    if solver is None:
        state = {key: state.get(key, value) for key, value in own.items()}
    elif state.keys() != own.keys():
        raise SnapshotError(
            f"{path} is of a net with other data layers: it stores {sorted(state)}, "
            f"this net has {sorted(own)}"
        )
    histories: dict[str, np.ndarray] = {}
    iteration = 0
    if solver is not None:
        if file.attrs.get("solver") != type(solver).__name__:
            raise SnapshotError(
                f"{path} was saved with solver {file.attrs.get('solver', 'none')}, "
                f"not {type(solver).__name__}"
            )
        for key, flat in solver.history.items():
            histories[key] = np.zeros(flat.shape, net.dtype)
            for name, p in net.params.items():
                piece = file[f"history/{key}/{name}"][...].reshape(p.size)
                histories[key][p.offset : p.offset + p.size] = piece
        iteration = int(file.attrs["iteration"])
    extra = Extra(json.loads(file.attrs["extra"]))

    # Everything has been read, and fits: from here on nothing can fail half way.
    for name, p in net.params.items():
        p.data[...] = net.backend.asarray(values[name])
    if solver is not None:
        for key, flat in solver.history.items():
            flat[...] = net.backend.asarray(histories[key])
        solver.iteration = iteration
    net.set_state(state)
    return extra
