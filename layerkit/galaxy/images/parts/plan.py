"""The plan of work in parts: which pictures of which source belong to which part."""

from __future__ import annotations

import functools
import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layerkit.errors import DataError
from layerkit.galaxy.images.crop.crop import DEEPEST
from layerkit.galaxy.images.decode.formats.planes import Planes
from layerkit.galaxy.images.prepare.bit_depth import white_value
from layerkit.galaxy.images.prepared import files_of, is_prepared, is_sharded, load_file
from layerkit.galaxy.images.sources.ids import numbered, unique_ids
from layerkit.galaxy.images.sources.listed import PathsSource
from layerkit.galaxy.images.sources.sources import Source, open_source
from layerkit.system.files import path_of

REMOTE = "://"  # in addresses that fsspec opens
FEW = 2  # sources that a worker keeps open


@dataclass(frozen=True)
class Part:
    """Pictures `start` to `stop` of a source, and the file that holds what is made of them.

    Attributes:
        file: name of the file.
        source: a path, the pattern of files, or an address.
        label: begins the ids of the source's pictures; empty where there is one source only.
        white: value of white in 16-bit pictures of the source; see `white_value`.
        state: a digest of the names, sizes and times of the source's files; empty for addresses.
    """

    file: str
    source: str
    start: int
    stop: int
    white: float
    label: str = ""
    state: str = ""


class Stretch:
    """Some neighbouring pictures of a source; see Source for its attributes.

    Args:
        source: all pictures.
        start, stop: numbers of the first picture and of the one after the last.
        white: value of white in 16-bit pictures.
        label: put before the ids, with a "/".
    """

    def __init__(self, source: Source, start: int, stop: int, white: float, label: str = ""):
        self.name, self.white = source.name, white
        self.ids = [f"{label}/{i}" if label else i for i in source.ids[start:stop]]
        self.row_order = getattr(source, "row_order", "top")
        self.files = getattr(source, "files", None)
        self.pictures = (getattr(source, "pictures", None) or [])[start:stop]
        scales = getattr(source, "scales", None)
        self.scales = None if scales is None else scales[start:stop]
        self._source, self._start = source, start

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, i: int) -> np.ndarray:
        """Read picture `i` of the stretch."""
        return self._source.read(self._start + i)

    def planes(self, i: int) -> Planes:
        """Read what the source says of the pixels of picture `i`, if it says anything."""
        found = getattr(self._source, "planes", None)
        return Planes() if found is None else found(self._start + i)


def stretch_of(part: Part, hdu: Any, call: str) -> Stretch:
    """Open the pictures of a part.

    Args:
        call: names the call that the part belongs to; a source stays open within one.

    Raises:
        DataError: the source cannot be read, or has lost pictures since the work was planned.
    """
    source = _kept_open(part.source, hdu, call)
    if len(source) < part.stop:
        raise DataError(
            f"{part.source}: has {len(source)} pictures, and had at least {part.stop} when the "
            "work was planned; begin again in another folder"
        )
    return Stretch(source, part.start, part.stop, part.white, part.label)


@functools.lru_cache(maxsize=FEW)
def _kept_open(source: str, hdu: Any, call: str) -> Source:
    return opened(source, hdu)


def expand(given: Iterable[Any]) -> list[str]:
    """List the sources that paths, patterns and addresses name.

    A pattern such as "nights/*.zip" stands for all that match, in sorted order: zips and folders
    are sources of their own, and loose files are one source together.  Addresses that fsspec knows,
    such as "s3://bucket/*.zip", are files, each a source.  So are the files of a prepared set.

    Raises:
        DataError: nothing matches, or the package fsspec is missing.
    """
    sources: list[str] = []
    for one in given:
        text = str(path_of(one, DataError)) if not _is_remote(one) else str(one)
        if _is_remote(text):
            sources += _remote(text)
        elif glob.has_magic(text) and not os.path.lexists(text):
            pattern = os.path.abspath(text)
            found = sorted(glob.glob(pattern, recursive=True))
            if not found:
                raise DataError(f"{text}: no file matches this pattern")
            sources += [path for path in found if _stands_alone(path)]
            if len(_loose(found)):
                sources.append(pattern)
        elif is_sharded(text):
            sources += [os.path.abspath(file) for file in files_of(Path(text))]
        else:
            sources.append(os.path.abspath(text))
    if not sources:
        raise DataError("no source is given: name folders, zips, files, patterns or addresses")
    return sources


def opened(source: str, hdu: Any = None) -> Source:
    """Open a source that `expand` has listed.

    Raises:
        DataError: see `open_source`; or a file that cannot be fetched.
    """
    if _is_remote(source):
        return open_source(_fetched(source), hdu)
    if glob.has_magic(source) and not os.path.lexists(source):
        files = _loose(sorted(glob.glob(source, recursive=True)))
        if not files:
            raise DataError(f"{source}: no file matches this pattern any more")
        top = os.path.commonpath([os.path.dirname(path) for path in files])
        names = [os.path.relpath(path, top).replace(os.sep, "/") for path in files]
        return PathsSource(top, names, os.path.basename(source), hdu=hdu)
    if os.path.exists(source) and is_prepared(source):
        raise DataError(f"{source}: a prepared set; give the pictures that it was made of")
    return open_source(source, hdu)


def planned(
    sources: Sequence[str],
    each: int,
    suffix: str,
    hdu: int | str | None,
    workers: int | None = None,
    labelled: bool = False,
    prepared: bool = False,
) -> Iterator[Part]:
    """Yield the parts of all sources, in order.

    Pictures of 16 bits are read for it, as all of a source have one white level.

    Args:
        sources: as `expand` lists them.
        each: pictures in a part; the last of a source has fewer.
        suffix: of the parts' files.
        hdu: see `open_source`.
        workers: processes that read pictures of 16 bits.
        labelled: whether ids begin with the name of their source, where there are several.
        prepared: whether a file of a prepared set may be a source; it is one part.

    Raises:
        DataError: a source that cannot be read, or is not such a file.
    """
    labels = numbered(unique_ids([source.replace(os.sep, "/") for source in sources]))
    number = 0
    for source, label in zip(sources, labels, strict=True):
        if prepared and os.path.isfile(source) and is_prepared(source):
            if hdu is not None:
                raise DataError(f"{source}: a prepared set has no FITS extensions; leave hdu out")
            total = step = load_file(Path(source), 1, may_be_empty=True).read
            white, state = DEEPEST, _state([Path(source)])
        else:
            pictures, step = opened(source, hdu), each
            total = len(pictures)
            white = white_value(pictures, range(total), workers)
            state = "" if _is_remote(source) else _state(_files(pictures))
        for start in range(0, total, step):
            stop = min(start + step, total)
            name = f"part-{number:06d}{suffix}"
            own = label if labelled and len(sources) > 1 else ""
            yield Part(name, source, start, stop, white, own, state)
            number += 1


def _files(pictures: Source) -> list[Path]:
    """List the files of an open source."""
    path = getattr(pictures, "path", None)
    if path is None:
        return []
    return [path] if path.is_file() else [path / name for name in getattr(pictures, "files", ())]


def _state(files: Iterable[Path]) -> str:
    """Return a digest of the names, sizes and times of files."""
    total = hashlib.sha256()
    for file in files:
        try:
            known = file.stat()
        except OSError:  # a broken link
            continue
        about = file.name, known.st_size, known.st_mtime_ns
        total.update(repr(about).encode(errors="surrogateescape"))
    return total.hexdigest()[:16]


def _is_remote(given: Any) -> bool:
    return isinstance(given, str) and REMOTE in given


def _stands_alone(path: str) -> bool:
    return os.path.isdir(path) or path.lower().endswith(".zip")


def _loose(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if not _stands_alone(path)]


def _fsspec() -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise DataError(
            "addresses need the package fsspec, and one for the kind of address, such as s3fs: "
            "pip install fsspec s3fs"
        ) from error
    return fsspec


def _remote(address: str) -> list[str]:
    """List the files at an address, which may be a pattern."""
    fsspec = _fsspec()
    try:
        system, path = fsspec.core.url_to_fs(address)
        found = sorted(system.glob(path)) if glob.has_magic(path) else [path]
        if not found or not all(system.isfile(one) for one in found):
            raise DataError(
                f"{address}: no file there; addresses are of files, or patterns of them"
            )
        return [system.unstrip_protocol(one) for one in found]
    except DataError:
        raise
    except Exception as error:  # of any kind, from the package that knows the address
        raise DataError(f"{address}: cannot be listed ({type(error).__name__}: {error})") from error


def _fetched(address: str) -> Path:
    """Copy a file at an address into a temporary folder, which goes with the process."""
    try:
        return Path(
            _fsspec().open_local(f"simplecache::{address}", simplecache={"same_names": True})
        )
    except Exception as error:  # of any kind, from the package that knows the address
        raise DataError(f"{address}: cannot be read ({type(error).__name__}: {error})") from error
