"""Pictures in files: found in folders and tables, and decoded."""

from __future__ import annotations

import csv
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from layerkit.errors import LayerkitError, brief
from layerkit.system.files import open_regular

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
MOST = 1 << 28  # pixels of a picture; a file of a few bytes can claim to hold any number
WHOLE = ("1", "I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of grey integers, but of 8
BITS, PHOTOMETRIC, PLANES, FORMAT = 258, 262, 284, 339  # numbers of tags in TIFF

Errors = Callable[[str], LayerkitError]


class Labelled(NamedTuple):
    """Files and their classes.

    Attributes:
        files: the paths.
        labels: int64, the number of each file's class, or its label; None without classes.
        classes: names of the classes in the order of their numbers; none where labels are numbers.
    """

    files: list[Path]
    labels: np.ndarray | None
    classes: list[str]


def is_picture(path: Path) -> bool:
    """Tell by the name whether a file holds a picture."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def pictures_below(folder: Path) -> list[Path]:
    """List the files with pictures in a folder and in those inside, sorted by path."""
    return sorted(path for path in folder.rglob("*") if is_picture(path))


def in_folder(folder: Path, labelled: bool, error: Errors) -> Labelled:
    """Find the pictures of a folder; each sub-folder with pictures is a class, by sorted name.

    Args:
        labelled: whether classes are wanted.
    """
    if not folder.is_dir():
        raise error(f"there is no folder {folder}")
    if not labelled:
        files = pictures_below(folder)
        if not files:
            raise error(f"no pictures in {folder}; they end in {', '.join(SUFFIXES)}")
        return Labelled(files, None, [])
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    by_class = {p.name: files for p in inside if (files := pictures_below(p))}
    loose = [p for p in folder.iterdir() if is_picture(p)]
    if not by_class:
        raise error(
            f"no sub-folders with pictures in {folder}, one for each class; give a table of files "
            "and labels, or one top for pictures without labels"
        )
    if loose:
        raise error(f"{loose[0]} lies beside the sub-folders, so it has no class; move it")
    counts = [len(files) for files in by_class.values()]
    labels = np.repeat(np.arange(len(counts)), counts)
    return Labelled([f for files in by_class.values() for f in files], labels, list(by_class))


def in_table(table: Any, folder: Path, error: Errors) -> Labelled:
    """Read files and labels: pairs, or the path of a CSV file with a header and such columns.

    Labels are whole numbers, which spreadsheets may write as 3.0, or else names of classes, which
    are numbered in sorted order.  Paths are relative to the folder.
    """
    pairs = table if isinstance(table, list) else _rows(Path(table), error)
    if not pairs:
        raise error("the table of files and labels is empty")
    files = [folder / str(name) for name, _ in pairs]
    given = ["" if label is None else str(label).strip() for _, label in pairs]
    numbers = [_number(label) for label in given]
    for path, label, number in zip(files, given, numbers, strict=True):
        if not label or (number is not None and math.isnan(number)):
            raise error(f"{path} has no label in the table, but {label or 'nothing'}")
    if None in numbers:
        classes = sorted(set(given))
        places = {name: i for i, name in enumerate(classes)}
        return Labelled(files, np.array([places[label] for label in given]), classes)
    for path, label, number in zip(files, given, numbers, strict=True):
        if not isinstance(number, int):
            raise error(f"{path} has the label {label}; labels are whole numbers, or names")
    try:
        return Labelled(files, np.array(numbers, "int64"), [])
    except OverflowError:
        raise error(f"the label {max(numbers, key=lambda n: abs(n or 0))} is too large") from None


def _number(label: str) -> float | int | None:
    """Return the number that a label is, an int where it is whole; None for a name."""
    if re.fullmatch(r"[-+]?[0-9]+(\.0*)?", label):
        return int(label.partition(".")[0])
    if label.lower() == "nan" or re.fullmatch(r"[-+]?[0-9]*\.[0-9]+([eE][-+]?[0-9]+)?", label):
        return float(label)
    return None


def _rows(path: Path, error: Errors) -> list[tuple[str, str]]:
    """Read the columns "file" and "label" of a CSV file, or its two columns."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (OSError, UnicodeError, csv.Error) as problem:
        raise error(
            f"cannot read {path}: {getattr(problem, 'strerror', 0) or problem}"
        ) from problem
    names = [name.strip().lower() for name in header]
    if {"file", "label"} <= set(names):
        places = names.index("file"), names.index("label")
    elif len(names) == 2 and not is_picture(Path(header[0])):
        places = 0, 1
    else:
        raise error(f"{path} must begin with the names of its columns, file and label among them")
    short = next((i for i, row in enumerate(rows) if len(row) <= max(places)), None)
    if short is not None:
        raise error(f"{path}: row {short + 1} has {len(rows[short])} columns: {brief(rows[short])}")
    return [(row[places[0]], row[places[1]]) for row in rows]


def check_files(files: Iterable[Path], error: Errors) -> None:
    """Fail where a file is not there."""
    missing = [path for path in files if not os.path.isfile(path)]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise error(f"there is no file {missing[0]}{more}")


def decode(path: Path, channels: int, size: Sequence[int] | None, fit: str) -> np.ndarray:
    """Read a picture with Pillow, float32 (channels, height, width), 0 black and 1 white.

    Numbers of files in floats stay as they are.  Pictures that a camera has marked as turned are
    turned back; transparency is dropped.

    Args:
        channels: 1 for grey (ITU-R 601 luma), 3 for red, green and blue.
        size: (height, width) to be brought to, or None.
        fit: "resize" stretches; "crop" takes the middle of the picture, scaled to cover that size;
            "exact" leaves pictures as they are.

    Raises:
        ValueError: it cannot be read; the text says why.
    """
    from PIL import Image, ImageOps

    try:
        with open_regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks of Pillow on metadata, and its own limit
            picture: Any = Image.open(file, formats=("PNG", "JPEG", "TIFF"))
            if picture.width * picture.height > MOST:
                raise ValueError(f"it claims to have {picture.width} x {picture.height} pixels")
            if getattr(picture, "n_frames", 1) > 1:
                raise ValueError(f"it holds {picture.n_frames} pictures")
            most, negative, turned = _stored(picture)
            picture.load()
            picture = ImageOps.exif_transpose(picture)
            if picture.mode == "F":
                floats = np.asarray(picture, "float32")
                numbers = [floats.byteswap() if turned else floats] * channels
            elif picture.mode in WHOLE:
                grey = np.asarray(picture)
                if most == 2**32 - 1:  # which Pillow takes for signed
                    grey = grey.view("uint32")
                grey = np.asarray(most - grey if negative else grey, "float32")
                numbers = [grey / np.float32(most)] * channels
            else:
                if picture.mode == "La":  # times alpha
                    picture = picture.convert("LA")
                bands = picture.convert("RGB" if channels == 3 else "L").split()
                numbers = [np.asarray(band, "float32") / np.float32(255) for band in bands]
            bands = [Image.fromarray(band) for band in numbers]
            if size is not None and fit != "exact":
                bands = [_fitted(band, tuple(size), fit) for band in bands]
            return np.stack([np.asarray(band, "float32") for band in bands])
    except (ValueError, MemoryError):
        raise
    except Exception as problem:  # decoders meet damage in many ways
        reason = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
        raise ValueError(" ".join(str(reason).split())) from problem


def _stored(picture: Any) -> tuple[int, bool, bool]:
    """Tell how the numbers of a picture are to be read that is not loaded yet.

    Pillow takes some TIFF files for what they are not: they are put right by this, or refused.

    Returns:
        The largest number, where they are integers of grey; whether it is black, and 0 is white;
        and whether the bytes of floats are the wrong way round.
    """
    tags = getattr(picture, "tag_v2", {})
    bits = tags.get(BITS, (1 if picture.mode == "1" else 16,))[0]
    if 2 in tags.get(FORMAT, ()):
        raise ValueError("it holds signed integers, none of which is white; save it unsigned")
    if not picture.tile:
        raise ValueError("it holds no pixels")
    codec, _, _, layout = picture.tile[0]
    if tags.get(PLANES) == 2 and bits == 16 and codec == "raw":
        raise ValueError("it has a plane of 16 bits for each colour; save it with colours together")
    # Pillow turns the bytes of compressed big-endian files round once more, after libtiff.
    turned = picture.mode == "F" and codec == "libtiff" and layout[0] == "F;32BF"
    return 2**bits - 1, tags.get(PHOTOMETRIC) == 0 and picture.mode.startswith("I"), turned


def _fitted(band: Any, size: tuple[int, ...], fit: str) -> Any:
    """Bring one band to a size, (height, width)."""
    from PIL import Image, ImageOps

    wanted = size[1], size[0]
    if fit == "crop":
        return ImageOps.fit(band, wanted, Image.Resampling.BILINEAR)
    return band if band.size == wanted else band.resize(wanted, Image.Resampling.BILINEAR)
