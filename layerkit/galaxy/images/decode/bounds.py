"""Bounds on what a file may claim or become, and the one error of a picture that fails."""

from __future__ import annotations

import io
import math
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 2**25  # of one picture, about 5,800 x 5,800
MAX_BYTES = 8 * MAX_PIXELS  # of a file that has to be held in memory, after decompression
MAX_PICTURES = 100_000  # in one file
MAX_DIRECTORIES = 10_000  # pages or extensions of one file, each of which takes a millisecond
TOO_LARGE = "too large"
UNREADABLE = "unreadable"
NO_IMAGE = "not an image"


class UnusableImageError(Exception):
    """One picture that cannot be used; `str(error)` is the reason it is counted under."""


def check_pixels(shape: Iterable[int]) -> None:
    """Refuse a picture of more than MAX_PIXELS pixels, or of 4 colours of so many."""
    sides = sorted((int(n) for n in shape), reverse=True)
    if math.prod(sides[:2]) > MAX_PIXELS or math.prod(sides) > 4 * MAX_PIXELS:
        raise UnusableImageError(TOO_LARGE)


def read_bounded(stream: Any) -> io.BytesIO:
    """All of a stream, in memory, or `UnusableImageError` where that is more than MAX_BYTES."""
    content = io.BytesIO()
    while part := stream.read(2**20):
        content.write(part)
        if content.tell() > MAX_BYTES:
            raise UnusableImageError(TOO_LARGE)
    content.seek(0)
    return content


def check_inflated(content: bytes, limit: int, wbits: int) -> None:
    """Refuse deflated data that become more than `limit` bytes."""
    decoder = zlib.decompressobj(wbits)
    made = 0
    while content and not decoder.eof:
        made += len(decoder.decompress(content, 2**20))
        content = decoder.unconsumed_tail
        if made > limit:
            raise UnusableImageError(TOO_LARGE)


@contextmanager
def only_unusable() -> Iterator[None]:
    """Turn whatever a decoder raises into `UnusableImageError`, and keep its warnings to itself."""
    with warnings.catch_warnings():
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
