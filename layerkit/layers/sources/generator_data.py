"""GeneratorData: examples that a function of the caller's makes one after the other."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple, NoReturn

import numpy as np

from layerkit.data.arrays import narrowed, numbers
from layerkit.errors import DataError, LayerkitError, brief
from layerkit.layer import Shape
from layerkit.layers.sources.data import Augmentation, Crop, Data, Depth, Deviation, Mean, Scale
from layerkit.settings import Flag, Optional, Rule, Tops, Whole

ENDLESS = 2**62


class Maker(Rule):
    """Rule for a function that makes an iterator of examples."""

    expected = (
        "a function that returns a new iterator of examples each time it is called, such as "
        "`lambda start: examples(start)`"
    )

    def accept(self, value: Any) -> Any:
        """Return the function."""
        if not callable(value):
            raise ValueError
        return value


class EpochLength(Whole):
    """Rule for the number of examples in an epoch; the attribute of that name is never None."""

    kept = False


class _Running(NamedTuple):
    """An iterator, and where it is.

    Attributes:
        number: of the example that comes next, in the endless run.
        peeked: examples that have been taken from it already.
        process: that it was made in; a fork must not share it.
    """

    number: int
    iterator: Iterator[Any]
    peeked: list[Any]
    process: int


class GeneratorData(Data):
    """Source of examples from a function that makes an iterator of them, such as a generator.

    `make(start)` returns an iterator of the examples from number `start` of an endless run on.  A
    function without arguments returns one of an epoch instead, from its first example; to go on in
    the middle, examples are made and dropped.  An iterator that ends is followed by another:
    `make(n)` with the number n that it has got to, or, after a whole epoch, `make()`.

    An example is an array, or a tuple of arrays, one for each top; shapes and types of number are
    those of the first, which is made when a net is built.

    **Promise.**  A resumed run, and one with `prefetch=`, continue bit for bit, provided that what
    `make` returns depends on its argument alone: let randomness come from a generator seeded by
    `start`.  The layer calls `make` only where the run begins or jumps, so an unbroken run uses one
    iterator for each epoch, or for all.

    Shapes: no bottom; a top (n, ...) for each array, cropped if that is asked for.

    Args:
        make: the function.
        count: number of examples in an epoch.  None, the default: as many as `make()` makes before
            it ends, counted in a pass of its own when a net is built; or no end, for `make(start)`,
            so that there is no evaluating it.
        tops: names of the tops, by default the layer's name.
        augment, scale, mean, deviation, crop, mirror: for the first array; see Data.  Means and
            deviations are given, not measured.
        integers: names of tops that hold integers as they are, by default none; see Data.
        prefetch: batches made ahead by a thread, default 0; see Data.  The function then runs in
            that thread, and must not use the net that it feeds, which waits for it.
        integers: a top, or a list of tops, that hold integers; see Data.  None is the default.

    Raises:
        NetError: tops that do not fit the first example.
        DataError: the function fails, makes no examples, those of `make()` are fewer than `count`,
            or examples have different shapes.

    Source: PyTorch's IterableDataset, with a number to start from.
    """

    decided = (*Data.decided, "make")

    def __init__(
        self,
        name: str,
        *,
        make: Annotated[Callable[..., Any], Maker()],
        count: Annotated[int | None, Optional(EpochLength(1))] = None,
        tops: Tops | None = None,
        augment: Augmentation = None,
        scale: Scale = 1.0,
        mean: Mean = None,
        deviation: Deviation = None,
        crop: Crop = None,
        mirror: Flag = False,
        prefetch: Depth = 0,
        integers: Tops | None = None,
    ):
        super().__init__(
            name, tops, False, augment, scale, mean, deviation, crop, mirror, prefetch, integers
        )
        self.make = make
        self.examples = count
        self.from_start = self._takes_start()
        self._running: _Running | None = None

    def _takes_start(self) -> bool:
        """Tell whether the function is called with a number."""
        try:
            signature = inspect.signature(self.make)
        except (TypeError, ValueError):  # code that is not Python's, which does not say
            return False
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        needed = [p for p in signature.parameters.values() if p.default is p.empty]
        needed = [p for p in needed if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if len(needed) > 1 or any(p.kind not in kinds for p in needed):
            self.fail(f"make must take the argument start, or none, but it is make{signature}")
        return bool(needed)

    def example_shapes(self) -> list[Shape]:
        """Make the first example; return the shapes of its arrays."""
        self.kinds: list[tuple[Shape, np.dtype]] = []
        iterator = self._new(0)
        first = self._next(iterator, 0)
        if first is None:
            raise self.wrong("make has made an iterator without examples")
        arrays = self._arrays(first, 0)
        self.kinds = [(a.shape, a.dtype) for a in arrays]
        self._running = _Running(0, iterator, [arrays], os.getpid())
        self.endless = self.examples is None and self.from_start
        self.count = ENDLESS if self.endless else self.examples or self._counted()
        return [shape for shape, _ in self.kinds]

    def _counted(self) -> int:
        """Count the examples of an epoch."""
        iterator, count = self._new(0), 0
        while self._next(iterator, count) is not None:
            count += 1
        return count

    def host(self, epoch: int, start: int, stop: int) -> list[np.ndarray]:
        """Return the next examples, as arrays."""
        first = epoch * self.count + start
        running, self._running = self._running, None  # which an error leaves behind nowhere
        if running is None or running.number != first or running.process != os.getpid():
            running = self._at(first)
        _, iterator, peeked, process = running
        found = []
        for number in range(first, first + stop - start):
            if not self.from_start and number and number % self.count == 0 and not peeked:
                iterator = self._new(number)  # the next epoch begins, whether this has ended or not
            arrays = peeked.pop() if peeked else None
            if arrays is None:
                example = self._next(iterator, number)
                if example is None and not self.from_start:
                    raise self._short(number % self.count)
                if example is None:
                    iterator = self._new(number)
                    example = self._next(iterator, number)
                if example is None:
                    raise self.wrong(f"make has made no example {number}: its iterator is empty")
                arrays = self._arrays(example, number)
            found.append(arrays)
        self._running = _Running(first + stop - start, iterator, peeked, process)
        return [np.stack(arrays) for arrays in zip(*found, strict=True)]

    def dtypes(self) -> list[np.dtype]:
        """Return the dtypes of the first example's arrays."""
        return [dtype for _, dtype in self.kinds]

    def _at(self, number: int) -> _Running:
        """Return an iterator that goes on with an example of the run."""
        iterator = self._new(number)
        if not self.from_start:
            for i in range(number % self.count):
                if self._next(iterator, i) is None:
                    raise self._short(i)
        return _Running(number, iterator, [], os.getpid())

    def _short(self, made: int) -> LayerkitError:
        """Return the error of an iterator that ends within an epoch."""
        if self.examples is None:
            return self.wrong(
                f"make has made {made} examples this time, but {self.count} before; it must make "
                "equal ones each time it is called"
            )
        return self.wrong(
            f"make has made {made} examples, but count= says {self.count}; leave count= out, give "
            "that of one call, or take make(start)"
        )

    def _new(self, number: int) -> Iterator[Any]:
        """Call the caller's function."""
        try:
            return iter(self.make(number) if self.from_start else self.make())
        except Exception as error:
            self._failed(number, error)

    def _next(self, iterator: Iterator[Any], number: int) -> Any:
        """Return the next example, or None at the end."""
        try:
            return next(iterator, None)
        except Exception as error:
            self._failed(number, error)

    def _failed(self, number: int, error: Exception) -> NoReturn:
        if isinstance(error, LayerkitError):
            raise error
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
        raise self.wrong(f"make failed at example {number}: {reason}") from error

    def _arrays(self, example: Any, number: int) -> list[np.ndarray]:
        """Return the arrays of an example, which must be like those of the first."""
        several = list(example) if isinstance(example, tuple) else [example]
        if len(several) != len(self.tops):
            raise self.wrong(
                f"example {number} has {len(several)} arrays for {len(self.tops)} tops "
                f"{self.tops}; an example is an array, or a tuple of arrays, one for each top, got "
                f"{brief(example)}"
            )
        arrays = []
        for i, given in enumerate(several):
            what = f"{self.label()}: example {number}, top {self.tops[i]!r}"
            array = numbers(given, what)
            if self.kinds:
                shape, dtype = self.kinds[i]
                if array.shape != shape:
                    raise self.wrong(
                        f"example {number} has shape {array.shape} for top {self.tops[i]!r}, but "
                        f"the first has {shape}"
                    )
                if not np.can_cast(array.dtype, dtype, "same_kind"):
                    raise self.wrong(
                        f"example {number} holds {array.dtype} for top {self.tops[i]!r}, but the "
                        f"first holds {dtype}"
                    )
                array = self._in_kind(array, dtype, number, what)
            arrays.append(np.array(array))  # the function may fill one array again and again
        return arrays

    def _in_kind(self, array: np.ndarray, dtype: np.dtype, number: int, what: str) -> np.ndarray:
        """Return an array in the type of the first, which must hold its numbers."""
        found = narrowed(array, dtype, what, DataError).astype(dtype, copy=False)
        if dtype.kind in "iu" and not np.array_equal(found, array):
            lost = array[found != array].flat[0]
            raise self.wrong(
                f"example {number} holds {lost} for top {what.rpartition(' ')[2]}, which the "
                f"{dtype} of the first example cannot; make all of one type, such as int64"
            )
        return found
