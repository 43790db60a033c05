"""Limits on the size of files and pictures, and the one error that decoding raises."""

from __future__ import annotations

import io
import math
import os
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 2**25  # in one picture, about 5,800 x 5,800
MAX_BYTES = 8 * MAX_PIXELS  # in a file that has to be held in memory, after decompression
MAX_PICTURES = 100_000  # in one file
MAX_DIRECTORIES = 10_000  # pages or extensions in one file; each takes a millisecond to parse
TOO_LARGE = "too large"
UNREADABLE = "unreadable"
NO_IMAGE = "not an image"


class UnusableImageError(Exception):
    """A picture that cannot be used; `str(error)` is the reason, under which it is counted."""


def check_pixels(shape: Iterable[int]) -> None:
    """Refuse a picture with more than MAX_PIXELS pixels, or with more than four such colours.

    Raises:
        UnusableImageError: the picture is too large.
    """
    sides = sorted((int(n) for n in shape), reverse=True)
    if math.prod(sides[:2]) > MAX_PIXELS or math.prod(sides) > 4 * MAX_PIXELS:
        raise UnusableImageError(TOO_LARGE)


def read_bounded(stream: Any) -> io.BytesIO:
    """Read a whole stream into memory.

    Raises:
        UnusableImageError: the stream is longer than MAX_BYTES.
    """
    content = io.BytesIO()
    while part := stream.read(2**20):
        content.write(part)
        if content.tell() > MAX_BYTES:
            raise UnusableImageError(TOO_LARGE)
    content.seek(0)
    return content


def check_inflated(content: bytes, limit: int, gzipped: bool = False) -> None:
    """Refuse deflated data that inflate to more than `limit` bytes.

    Args:
        content: a zlib stream; anything after it is ignored.
        limit: bytes after inflating.
        gzipped: whether `content` may also be a sequence of gzip members; all are inflated.

    Raises:
        UnusableImageError: the data are too large.
    """
    wbits = zlib.MAX_WBITS | 32 if gzipped else zlib.MAX_WBITS
    decoder = zlib.decompressobj(wbits)
    size = 0
    while content and not decoder.eof:
        size += len(decoder.decompress(content, 2**20))
        if size > limit:
            raise UnusableImageError(TOO_LARGE)
        content = decoder.unconsumed_tail
        if decoder.eof and gzipped:
            content, decoder = decoder.unused_data.lstrip(b"\0"), zlib.decompressobj(wbits)


_locks: dict[int, threading.RLock] = {}  # by process


@contextmanager
def only_unusable() -> Iterator[None]:
    """Turn any exception of a decoder into `UnusableImageError`, and silence its warnings.

    One thread of a process at a time is inside, as an open file has one position, its reader one
    state, and the process one list of filters for warnings.
    """
    # A process that is forked while a thread decodes would find the lock taken for ever, so each
    # has its own.
    with _locks.setdefault(os.getpid(), threading.RLock()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except UnusableImageError:
            raise
        except UnidentifiedImageError as error:
            raise UnusableImageError(NO_IMAGE) from error
        except (MemoryError, Image.DecompressionBombError) as error:
            raise UnusableImageError(TOO_LARGE) from error
        except Exception as error:
            raise UnusableImageError(UNREADABLE) from error
