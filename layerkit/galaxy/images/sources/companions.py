"""Files whose names say that they are weights, masks, models or the like of another file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from layerkit.galaxy.images.decode.science import (
    field_of,
    is_image,
    is_no_science,
    is_plainly_no_science,
    is_science,
)
from layerkit.galaxy.images.sources.ids import SUFFIX

# Words between separators; with digits only two that always have one, and masks of many.
WORD = re.compile(r"(?<![^-_. ])([A-Za-z]+|i2d|chi2)(?![^-_. ])", re.IGNORECASE)
NUMBERED = re.compile(r"(?<![^-_. ])([A-Za-z]+)(\d+)(?![^-_. ])")
# A word that begins with a capital, or follows a number: `ngc1Mask`, `1mask`.
JOINED = re.compile(r"((?<=[a-z0-9])[A-Z][A-Za-z]*|(?<=[0-9])[a-z]+)(?![A-Za-z])")
# A word at the end of another, as `swpweight` of the S-PLUS survey beside `swp`.
ENDING = re.compile(
    r"(?<=[a-z])(weights?|wht|masks?|flags?|sigma|rms|ivar|invvar|error)$", re.IGNORECASE
)
VERSION = re.compile(r"[-_. ]v\d+([-_.]\d+)*$", re.IGNORECASE)
MAP = re.compile(r"[-_. ](map|image|img)(?![^-_. ])", re.IGNORECASE)  # as in `weight_map`

Path = tuple[str | None, ...]  # the folders and the name of a file; None is any folder


def companions(names: list[str]) -> set[int]:
    """Find the files that are named as weights, a mask, a model or the like of another file.

    A word that says so may be anywhere in a name, or name a folder:

    - `ngc1_mask.png`, `ngc1.weight.fits` and `sigma_ngc1.fits` if there is an `ngc1.fits` or an
      `ngc1_sci.fits`; and `ngc1_err_v1.0.fits`, as versions at the end are not compared;
    - `ngc1Mask.fits` and `1mask.png` beside `ngc1.fits` and `1.png`, of words that can stand for
      nothing else;
    - `a_swpweight.fits` beside `a_swp.fits`;
    - `masks/1.jpg` if there is a `1.jpg` above the folder or in one beside it, such as
      `images/1.jpg`.  A folder that may also hold galaxies, such as `models`, counts only beside
      one that is named as `images` or `sci` are.

    - files that survey archives name so, as `unwise-1234p015-w1-n-m.fits`, beside another file of
      the field.

    The words are those that `science` knows.  With a number at their end, as in `mask1.png` beside
    `image1.png`, they are those that can stand for nothing else.

    Args:
        names: paths with "/" between folders.

    Returns:
        The positions of such files in `names`.
    """
    paths = [tuple(SUFFIX.sub("", name).split("/")) for name in names]
    there: set[Path] = set()
    for *folders, name in paths:
        for plain in {name, *_without(name, is_image), *_numbers(name, is_image)}:
            there.add((*folders, VERSION.sub("", plain)))
    beside = _neighbours(there) if any(map(_is_apart, {f for p in paths for f in p[:-1]})) else {}
    found = {k for k, path in enumerate(paths) if _has_counterpart(path, there, beside)}
    return found | _of_archives(paths)


def _of_archives(paths: list[tuple[str, ...]]) -> set[int]:
    """Find the files that archives name as weights or the like of a field, beside another of it."""
    fields = {k: field.lower() for k, path in enumerate(paths) if (field := field_of(path[-1]))}
    if not fields:
        return set()
    there = set[str]()
    for name in (path[-1].lower() for k, path in enumerate(paths) if k not in fields):
        there.update(name[: end.start()] for end in re.finditer("[-_.]|$", name))
        there.update(re.findall(r"tile\d+", name))
    return {k for k, field in fields.items() if field in there}


def _has_counterpart(path: tuple[str, ...], there: set[Path], beside: dict[Path, bool]) -> bool:
    """Tell whether there is a file of which this one is a companion."""
    *folders, name = path
    numbers = _numbers(name, is_plainly_no_science)
    joined = _joined(name)
    bare = {VERSION.sub("", plain) for plain in (*_without(name, is_no_science), *numbers, *joined)}
    if any((*folders, plain) in there for plain in bare):
        return True
    for i, folder in enumerate(folders):
        if _is_apart(folder):
            plainly = any(map(is_plainly_no_science, _words(folder)))
            for plain in {VERSION.sub("", name), *bare}:
                above = (*folders[:i], *folders[i + 1 :], plain)
                named = beside.get((*folders[:i], None, *folders[i + 1 :], plain))
                if named or (plainly and (named is not None or above in there)):
                    return True
    return False


def _neighbours(there: set[Path]) -> dict[Path, bool]:
    """Return the paths with any folder of science images left open.

    The values tell whether the name of one of those folders says that it holds science images.
    """
    beside: dict[Path, bool] = {}
    for path in there:
        for i, folder in enumerate(path[:-1]):
            assert folder is not None
            if not _is_apart(folder):
                key = (*path[:i], None, *path[i + 1 :])
                beside[key] = beside.get(key, False) or any(map(is_science, _words(folder)))
    return beside


def _without(name: str, says: Callable[[str], bool]) -> Iterator[str]:
    """Yield a name without one of the words of a kind, and without the separator beside it."""
    for match in WORD.finditer(name):
        if says(match[0]):
            start, end = match.span()
            for stop in {end, more.end() if (more := MAP.match(name, end)) else end}:
                if start:
                    yield name[: start - 1] + name[stop:]
                if name[:start] + name[stop + 1 :]:
                    yield name[:start] + name[stop + 1 :]


def _numbers(name: str, says: Callable[[str], bool]) -> Iterator[str]:
    """Yield a name without one of the words of a kind that have a number, and with the number."""
    for match in NUMBERED.finditer(name):
        if says(match[1]):
            start, end = match.span()
            yield name[:start] + name[match.end(1) :]
            if start:  # `galaxy1_mask2` may be the second mask of `galaxy1`
                yield name[: start - 1] + name[end:]


def _joined(name: str) -> Iterator[str]:
    """Yield a name without a word that has no separator, and can stand for nothing else."""
    for match in JOINED.finditer(name):
        if is_plainly_no_science(match[0]):
            yield name[: match.start()] + name[match.end() :]
    if ending := ENDING.search(name):
        yield name[: ending.start()]


@lru_cache(1024)
def _is_apart(folder: str) -> bool:
    """Tell whether the name of a folder says that it holds no science images."""
    return any(map(is_no_science, _words(folder)))


def _words(folder: str) -> list[str]:
    """Return the words in the name of a folder, in the singular too."""
    words = WORD.findall(folder)
    return [*words, *(word[:-1] for word in words if word[-1] in "sS" and len(word) > 3)]
