"""Folders and zips of pictures, damaged in every way, given to prepare: each counted, none fatal.

A case is a set of some twenty files: a few good pictures of a galaxy, which must be kept, and
others of all kinds of formats, damaged by flipped bytes, cuts, edited headers and wrong names; now
and then one that claims, or becomes, gigabytes.
"""

from __future__ import annotations

import bz2
import gzip
import io
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from astropy.io import fits
from PIL import Image

from fuzz.harness import Case, check
from layerkit import galaxy
from layerkit.errors import LayerkitError

SECONDS = 30
ADDRESS_SPACE = 6 << 30
GOOD = 3  # pictures of a set that nothing is done to


def light(rng: np.random.Generator, side: int = 110) -> np.ndarray:
    """A galaxy near the centre, in 0..1, on a faint noisy sky."""
    y, x = np.mgrid[:side, :side] - side / 2 + rng.uniform(-2, 2, (2, 1, 1))
    angle, flat = rng.uniform(0, np.pi), rng.uniform(0.4, 1)
    u = x * np.cos(angle) + y * np.sin(angle)
    v = (y * np.cos(angle) - x * np.sin(angle)) / flat
    picture = 0.8 * np.exp(-np.hypot(u, v) / rng.uniform(6, 9))
    return np.clip(picture + rng.normal(0.03, 0.008, picture.shape), 0, 1)


def pillow(pixels: np.ndarray, kind: str, mode: str | None = None, **settings: Any) -> bytes:
    """Pixels as a file that Pillow writes."""
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, kind, **settings)
    return file.getvalue()


def tiff(pixels: np.ndarray, **settings: Any) -> bytes:
    """Pixels as a TIFF."""
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **settings)
    return file.getvalue()


def fits_file(*hdus: Any) -> bytes:
    """A FITS file of these HDUs."""
    file = io.BytesIO()
    fits.HDUList(list(hdus)).writeto(file)
    return file.getvalue()


def hdf5(**datasets: Any) -> bytes:
    """An HDF5 file of these data sets."""
    file = io.BytesIO()
    with h5py.File(file, "w") as out:
        for name, value in datasets.items():
            out[name] = value
    return file.getvalue()


def formats(x: np.ndarray) -> dict[str, tuple[str, Callable[[], bytes]]]:
    """Name -> suffix and what makes the file of a picture in 0..1."""
    byte = np.round(255 * x).astype(np.uint8)
    deep = np.round(65535 * x).astype(np.uint16)
    colour = np.stack([byte, byte, byte], -1)
    counts = (1000 * x + 100).astype(np.float32)
    image = fits.ImageHDU
    return {
        "jpeg": (".jpg", lambda: pillow(byte, "JPEG", quality=95)),
        "jpeg in colours": (".jpeg", lambda: pillow(colour, "JPEG", progressive=True)),
        "jpeg in cmyk": (".jpg", lambda: pillow(colour, "JPEG", "CMYK")),
        "png": (".png", lambda: pillow(byte, "PNG")),
        "deep png": (".png", lambda: pillow(deep, "PNG")),
        "png with a palette": (".png", lambda: pillow(byte, "PNG", "P")),
        "png with alpha": (".png", lambda: pillow(colour, "PNG", "RGBA")),
        "one bit": (".png", lambda: pillow(byte, "PNG", "1")),
        "gif": (".gif", lambda: pillow(byte, "GIF")),
        "bmp": (".bmp", lambda: pillow(byte, "BMP")),
        "tiff": (".tif", lambda: tiff(deep)),
        "tiff of floats": (".tiff", lambda: tiff(counts)),
        "planar tiff": (
            ".tif",
            lambda: tiff(np.stack([deep] * 3), photometric="rgb", planarconfig="separate"),
        ),
        "tiff of pages": (".tif", lambda: tiff(np.stack([byte] * 4), photometric="minisblack")),
        "big tiff": (".tif", lambda: tiff(deep, bigtiff=True, compression="zlib")),
        "tiled tiff": (".tif", lambda: tiff(byte, tile=(32, 32))),
        "fits": (".fits", lambda: fits_file(fits.PrimaryHDU(counts))),
        "fits of integers": (".fit", lambda: fits_file(fits.PrimaryHDU(deep))),
        "fits in doubles": (".fts", lambda: fits_file(fits.PrimaryHDU(counts.astype(float)))),
        "fits extensions": (
            ".fits",
            lambda: fits_file(
                fits.PrimaryHDU(),
                image(np.ones_like(counts), name="WHT"),
                image(counts, name="SCI"),
            ),
        ),
        "fits cube": (".fits", lambda: fits_file(fits.PrimaryHDU(np.stack([counts] * 3)))),
        "compressed fits": (
            ".fits.fz",
            lambda: fits_file(fits.PrimaryHDU(), fits.CompImageHDU(deep.astype(np.int32))),
        ),
        "fits table": (
            ".fits",
            lambda: fits_file(
                fits.PrimaryHDU(),
                fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.arange(5.0))]),
            ),
        ),
        "fits.gz": (".fits.gz", lambda: gzip.compress(fits_file(fits.PrimaryHDU(counts)))),
        "fits.bz2": (".fits.bz2", lambda: bz2.compress(fits_file(fits.PrimaryHDU(counts)))),
        "hdf5": (".h5", lambda: hdf5(images=np.stack([colour] * 3), ans=np.arange(3))),
        "hdf5 of something": (".hdf5", lambda: hdf5(table=np.arange(9.0))),
        "hdf5 of rows": (".h5", lambda: hdf5(images=np.stack([counts.ravel()] * 9))),
        "hdf5 in another order": (".h5", lambda: hdf5(images=np.stack([counts] * 20, -1))),
        "hdf5 of matlab": (".mat", lambda: hdf5(images=np.stack([colour] * 20).T)),
        "fits of two bands": (
            ".fits",
            lambda: fits_file(fits.PrimaryHDU(np.stack([counts] * 2, -1))),
        ),
        "fits with marks": (
            ".fits",
            lambda: fits_file(
                fits.PrimaryHDU(
                    np.where(np.arange(counts.size).reshape(counts.shape) % 97, counts, -1e30)
                )
            ),
        ),
        "clipped": (
            ".fits",
            lambda: fits_file(fits.PrimaryHDU(np.where(counts > 160, counts - 130, 0))),
        ),
        "tar": (".tar", lambda: b"a.png".ljust(257, b"\0") + b"ustar\0" + b"00".ljust(2000, b"\0")),
        "zip": (".zip", lambda: zipped([("a.png", pillow(byte, "PNG")), ("b.txt", b"b")])),
        "text": (".txt", lambda: b"ids,classes\n1,2\n"),
        "array": (".npy", lambda: npy(counts)),
        "nothing": (".jpg", lambda: b""),
        "noise": (".png", lambda: np.random.default_rng(len(byte)).bytes(3000)),
        "blank": (".png", lambda: pillow(np.full_like(byte, 9), "PNG")),
        "with strips": (".fits", lambda: fits_file(fits.PrimaryHDU(with_strips(counts)))),
        "not finite": (
            ".fits",
            lambda: fits_file(
                fits.PrimaryHDU(
                    np.where(np.arange(counts.size).reshape(counts.shape) % 97, counts, np.nan)
                )
            ),
        ),
        "all nan": (".fits", lambda: fits_file(fits.PrimaryHDU(np.full_like(counts, np.nan)))),
        "tiny": (".png", lambda: pillow(byte[:1, :1], "PNG")),
        "a line": (".png", lambda: pillow(byte[:1], "PNG")),
    }


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def with_strips(counts: np.ndarray) -> np.ndarray:
    counts = counts.copy()
    counts[:9], counts[:, -5:] = 0, 0
    return counts


def zipped(entries: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def big_png(width: int, height: int) -> bytes:
    """A PNG that says it is this large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(min(width * height, 1 << 20)))
    chunks = chunk(b"IHDR", head), chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def big_fits(*sizes: int) -> bytes:
    """A FITS header that says its image is this large, and a little of it."""
    cards = [
        "SIMPLE  =                    T",
        "BITPIX  =                  -32",
        f"NAXIS   = {len(sizes):>20}",
    ]
    cards += [f"NAXIS{i + 1}  = {n:>20}" for i, n in enumerate(sizes)]
    text = "".join(card.ljust(80) for card in [*cards, "END"])
    return text.ljust(-(-len(text) // 2880) * 2880).encode() + bytes(2880)


def big_tiff(width: int, height: int) -> bytes:
    """A TIFF that says it is one strip of so many pixels."""
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (273, 4, 1, 200),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, 500),
    ]
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    content = (b"II*\0" + struct.pack("<I", 8) + ifd + bytes(4)).ljust(200, b"\0")
    return content + zlib.compress(bytes(1 << 18))[:500].ljust(500, b"\0")


def bombs() -> dict[str, tuple[str, Callable[[], bytes]]]:
    """Small files that are large once opened."""
    zeros = bytes(400 << 20)
    return {
        "png of 2^31 pixels": (".png", lambda: big_png(60_000, 40_000)),
        "png under Pillow's limit": (".png", lambda: big_png(13_000, 13_000)),
        "long png": (".png", lambda: big_png(2**31 - 1, 60)),
        "fits of terabytes": (".fits", lambda: big_fits(2**20, 2**20)),
        "fits of an overflow": (".fits", lambda: big_fits(2**40, 2**40, 2**40)),
        "fits of a negative side": (".fits", lambda: big_fits(-5, 7)),
        "tiff of a long side": (".tif", lambda: big_tiff(9_961_532, 60)),
        "tiff of a square": (".tif", lambda: big_tiff(60_000, 60_000)),
        "bz2 of zeros": (".fits.bz2", lambda: bz2.compress(big_fits(9000, 9000) + zeros)),
        "gz of zeros": (".fits.gz", lambda: gzip.compress(big_fits(9000, 9000) + zeros)),
        "zip of zeros": (".zip", lambda: zipped([("a.png", zeros)])),
    }


def damage(case: Case, content: bytes) -> bytes:
    """The content of a file, damaged."""
    data = bytearray(content)
    for _ in range(case.whole(1, 3)):
        if not data:
            break
        kind = case.whole(0, 8)
        place = case.whole(0, len(data) - 1)
        early = case.whole(0, min(len(data) - 1, 400))
        if kind == 0:
            for _ in range(case.whole(1, 40)):
                data[case.whole(0, len(data) - 1)] ^= 1 << case.whole(0, 7)
        elif kind == 1:
            data[early] ^= 1 << case.whole(0, 7)
        elif kind == 2:
            del data[place:]
        elif kind == 3:
            data[place:place] = case.rng.bytes(case.whole(1, 50))
        elif kind == 4:
            data[place : place + case.whole(1, 3000)] = b""
        elif kind == 5:  # a number of a header
            number = case.pick([0, 1, 2**31 - 1, 2**32 - 1, 2**16, 10**6])
            data[early : early + 4] = struct.pack(case.pick("<>") + "I", number)
        elif kind == 6:  # a number in text
            digits = [i for i, b in enumerate(data[:3000]) if 48 <= b <= 57]
            if digits:
                data[case.pick(digits)] = 48 + case.whole(0, 9)
        elif kind == 7:
            data += data[: case.whole(1, len(data))]
        else:
            data[place : place + 512] = bytes(len(data[place : place + 512]))
    return bytes(data)


def write(case: Case, folder: Path) -> tuple[int, set[str]]:
    """Fill a folder; returns how many files there are, and the ids of the good pictures."""
    good = set()
    count = 0
    for i in range(GOOD):
        (folder / f"good{i}.png").write_bytes(
            pillow(np.round(255 * light(case.rng)).astype(np.uint8), "PNG")
        )
        good.add(f"good{i}")
        count += 1
    made = formats(light(case.rng, case.whole(70, 130)))
    for i in range(case.whole(10, 24)):
        kind = case.pick(made)
        suffix, make = made[kind]
        content = make()
        damaged = case.chance(0.75)
        if damaged:
            content = damage(case, content)
        if case.chance(0.15):
            suffix = case.pick([".jpg", ".fits", ".flt", "", ".tif", ".fits.gz", ".h5", ".zip"])
        name = f"{i:02d}{suffix}"
        if case.chance(0.1):
            name = case.pick(
                [
                    f"a b{i}{suffix}",
                    f"\u03bc{i}{suffix}",
                    f"$x_{i}${suffix}",
                    f"line\n{i}{suffix}",
                    f"{'n' * 200}{i}{suffix}",
                ]
            )
        place = folder / case.pick(["", "", "", "deeper", "deeper/still"])
        place.mkdir(parents=True, exist_ok=True)
        case.say(kind, "damaged" if damaged else "whole", "as", place / name)
        (place / name).write_bytes(content)
        count += 1
    return count, good


def special(case: Case, folder: Path) -> None:
    """Things in a folder that are no regular files; none of them may be waited for."""
    kind = case.whole(0, 6)
    if kind == 0:
        os.mkfifo(folder / "pipe.fits")
    elif kind == 1:
        (folder / "loop").symlink_to(folder)
    elif kind == 2:
        (folder / "gone.png").symlink_to(folder / "nowhere.png")
    elif kind == 3:
        with socket.socket(socket.AF_UNIX) as listener:
            here = os.getcwd()
            os.chdir(folder)  # the name of a socket is short
            try:
                listener.bind("s.png")
            finally:
                os.chdir(here)
    elif kind == 4:
        (folder / "zero.png").symlink_to("/dev/zero")
    elif kind == 5:
        with open(os.fsencode(folder) + b"/\xff\xfe.png", "wb") as file:
            file.write(pillow(np.round(255 * light(case.rng)).astype(np.uint8), "PNG"))
    else:
        (folder / "unreadable.fits").write_bytes(b"SIMPLE")
        (folder / "unreadable.fits").chmod(0)
    case.say("special", kind)


def case(case: Case) -> None:
    """One set, prepared."""
    folder = case.folder / "pictures"
    folder.mkdir()
    case.odd = True
    count, good = write(case, folder)
    if case.chance(0.2):
        bomb = case.pick(BOMBS)
        suffix, make = BOMBS[bomb]
        case.say("bomb", bomb)
        (folder / f"bomb{suffix}").write_bytes(make())
    if case.chance(0.4):
        special(case, folder)
    path = folder
    how = case.pick(["folder", "folder", "zip", "each"])
    if how == "each":
        each(case, sorted(p for p in folder.rglob("*") if p.is_file() and "zero" not in p.name))
        return
    if how == "zip":
        path = case.folder / "all.zip"
        entries = [
            (str(p.relative_to(folder)).encode("utf-8", "replace").decode(), p.read_bytes())
            for p in sorted(folder.rglob("*"))
            if p.is_file() and "zero" not in p.name and os.access(p, os.R_OK)
        ]
        path.write_bytes(zipped(entries))
        if case.chance(0.3):
            case.say("the zip is damaged")
            path.write_bytes(damage(case, path.read_bytes()))
            good = set()
    case.say("prepare", how)
    source = galaxy.open_source(path)
    report = galaxy.prepare(source, case.folder / "set.h5")
    check(report.read == len(source), f"{report.read} read of {len(source)}")
    check(report.read == report.kept + sum(report.excluded.values()), "not every picture counted")
    check(not good or report.read >= count, f"{report.read} of {count} files read")
    inspect(galaxy.load(case.folder / "set.h5"), report, good)


def inspect(found: Any, report: Any, good: set[str]) -> None:
    """Check a prepared set."""
    check(len(found) == report.kept, "another number of galaxies than were kept")
    everything = [*found.ids, *found.excluded]
    check(len(set(everything)) == len(everything) == report.read, "ids are not unique")
    check(
        good <= set(found.ids),
        f"good pictures left out: {good - set(found.ids)}, "
        f"{ {k: v for k, v in found.excluded.items() if k in good} }",
    )
    check(np.isfinite(found.images).all(), "images that are not finite were kept")
    check(found.images.min(initial=0) >= 0 and found.images.max(initial=0) <= 1, "beyond 0..1")
    check(np.ptp(found.images, axis=(1, 2)).min(initial=1) > 0, "a blank image was kept")


def each(case: Case, paths: list[Path]) -> None:
    """Each file as a source by itself."""
    for i, path in enumerate(paths):
        case.say("alone", path)
        try:
            source = galaxy.open_source(path)
            report = galaxy.prepare(source, case.folder / f"set{i}.h5")
            inspect(galaxy.load(case.folder / f"set{i}.h5"), report, set())
        except LayerkitError as error:
            check("\n" not in str(error), f"a message of several lines: {error!s:.200}")
            check(not path.name.startswith("good"), f"a good picture is refused: {error}")


BOMBS = bombs()
