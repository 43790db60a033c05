"""Draft: a file in memory, into which HDF5 writes what is sealed afterwards."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

PAGE = 1 << 16


class Draft(io.RawIOBase):
    """A file in memory that has pages only where something was written, and zeros elsewhere."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}
        self.place = 0
        self.length = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def writable(self) -> bool:
        """Say that it can be written."""
        return True

    def seekable(self) -> bool:
        """Say that any place in it can be reached."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place; return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.length}[whence]
        self.place = start + offset
        return self.place

    def tell(self) -> int:
        """Return the place at which the next byte is read or written."""
        return self.place

    def truncate(self, size: int | None = None) -> int:
        """Set the length; return it."""
        self.length = self.place if size is None else size
        return self.length

    def write(self, data: Any) -> int:
        """Write bytes at the present place; return how many."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            number, inside = divmod(self.place, PAGE)
            piece = view[done : done + PAGE - inside]
            page = self.pages.setdefault(number, bytearray(PAGE))
            page[inside : inside + len(piece)] = piece
            done += len(piece)
            self.place += len(piece)
        if done:
            self.length = max(self.length, self.place)
        return done

    def readinto(self, target: Any) -> int:
        """Fill a buffer from the present place; return how many bytes there were."""
        view = memoryview(target).cast("B")
        stop = min(self.place + len(view), max(self.length, self.place))
        done = 0
        for piece in self.content(self.place, stop):
            view[done : done + len(piece)] = piece
            done += len(piece)
        self.place += done
        return done

    def content(self, start: int, stop: int) -> Iterator[bytes | bytearray]:
        """Yield the bytes from `start` to `stop`, in pieces."""
        while start < stop:
            number, inside = divmod(start, PAGE)
            end = min(inside + stop - start, PAGE)
            yield self.pages.get(number, bytes(PAGE))[inside:end]
            start += end - inside
