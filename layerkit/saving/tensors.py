"""Parameters of nets in safetensors files, which other libraries read and write."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from layerkit.data.arrays import rounded
from layerkit.errors import SnapshotError, brief
from layerkit.inspection.display import Extra
from layerkit.net import Net
from layerkit.saving.loading import Choice, Loaded, Patterns, Rename, matching, patterns_of
from layerkit.saving.states import learned
from layerkit.settings import fitting
from layerkit.system.files import open_regular, path_of, write_atomically


@fitting(SnapshotError)
def save_safetensors(path: str | os.PathLike[str], net: Net) -> None:
    """Write the parameters of a net, and statistics such as BatchNorm's, as safetensors.

    The arrays are called as in the net, "layer/parameter".  A snapshot, as layerkit.save writes it,
    also holds solver and state.

    Args:
        path: the file, replaced in one move if it is there.
        net: the net.

    Raises:
        SnapshotError: the package safetensors is missing, or the file cannot be written.
    """
    path, library = path_of(path, SnapshotError), _library()
    _check(net)
    with net.lock:
        arrays = {name: net.backend.to_host(x.data) for name, x in learned(net).items()}
    content = library.numpy.save(arrays, metadata={"format": "np"})
    try:
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        raise SnapshotError(f"cannot write {path}: {error.strerror or error}") from error


@fitting(SnapshotError)
def load_safetensors(
    path: str | os.PathLike[str],
    net: Net,
    *,
    only: Patterns | None = None,
    skip: Patterns | None = None,
    rename: Rename | None = None,
    strict: bool = True,
    transpose: Patterns = (),
) -> Loaded:
    """Read parameters from a safetensors file into a net.

    Arrays are taken as they are.  A weight of Dense is (bottom, units); PyTorch's Linear has it the
    other way round, and its names have dots:

        lk.load_safetensors("torch.safetensors", net, rename={"*.*": "*/*"}, transpose="fc*/weight")

    Args:
        path: the file.
        net: the net.
        only, skip, rename, strict: see layerkit.load.
        transpose: names or patterns of matrices to be transposed.

    Returns:
        An empty dict with the attribute `report`, which says what was loaded, what was not, and
        why.

    Raises:
        SnapshotError: as layerkit.load, or the package safetensors is missing.
    """
    path = path_of(path, SnapshotError)
    _check(net)
    choice = Choice(only, skip, rename, strict)
    with net.lock, _opened(path) as file:
        net.lock.check_own(net.arena.data, SnapshotError, "load_safetensors")
        source = _Tensors(path, file)
        turned = patterns_of("transpose", transpose) or []
        if turned:
            names = choice.renamed(source)
            matrices = [n for n in names if len(source.shapes[names[n]]) == 2]
            source.turn([names[n] for n in matching("transpose", turned, matrices)])
        return Loaded(Extra(), choice.load(net, source))


def _library() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise SnapshotError(
            "safetensors files need the package safetensors: pip install safetensors"
        ) from None
    return safetensors


def _check(net: Any) -> None:
    if not isinstance(net, Net):
        raise SnapshotError(f"expected a Net after the path, got {brief(net)}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file; what the library raises about it is this file's error."""
    library = _library()
    try:
        with open_regular(path), library.safe_open(str(path), framework="numpy") as file:
            yield file
    except OSError as error:
        raise SnapshotError(f"cannot read {path}: {error.strerror or error}") from error
    except library.SafetensorError as error:
        reason = " ".join(str(error).split())
        raise SnapshotError(
            f"{path} is no safetensors file, or a damaged one ({reason})"
        ) from error


class _Tensors:
    """The arrays of an open file; see layerkit.saving.loading.Source."""

    def __init__(self, path: Path, file: Any):
        self.name, self.file = str(path), file
        names = list(file.keys())
        self.shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
        self.turned: set[str] = set()

    def turn(self, names: list[str]) -> None:
        """Transpose matrices as they are read."""
        self.turned = set(names)
        self.shapes.update({name: self.shapes[name][::-1] for name in names})

    def array(self, name: str, dtype: np.dtype) -> np.ndarray:
        """Read an array, in a dtype that must be able to hold it."""
        what = f"{self.name}: {name!r}"
        try:
            array = self.file.get_tensor(name)
        except (TypeError, AttributeError, ValueError) as error:  # a dtype that NumPy lacks
            kind = self.file.get_slice(name).get_dtype()
            raise SnapshotError(f"{what} holds {kind}, which NumPy does not have") from error
        if array.dtype.kind != "f":
            raise SnapshotError(f"{what} must hold floats, got {array.dtype}")
        array = rounded(array, dtype, what, SnapshotError).astype(dtype)
        return np.ascontiguousarray(array.T) if name in self.turned else array
