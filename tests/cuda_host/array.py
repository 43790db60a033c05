"""cupy.ndarray on the host: a NumPy array that cannot be mixed up with the host's own."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from cuda_host.device import (
    KernelError, Memory, MemoryPointer, Needs, Stream, Use, Work, is_pinned, state, submit,
)


class ndarray:  # noqa: N801  # CuPy's name
    """An array in device memory.

    Attributes:
        _host: the elements, as a NumPy array; only this package may look.
        _memory: what it is a part of.
    """

    __array_priority__ = 100
    __array_ufunc__ = None  # NumPy leaves arithmetic with its scalars to this class
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, shape: Any, dtype: Any = float, memptr: MemoryPointer | None = None):
        shape = (shape,) if isinstance(shape, int | np.integer) else tuple(map(int, shape))
        dtype = np.dtype(dtype)
        if dtype.kind not in "biufc":
            raise ValueError(f"Unsupported dtype {dtype}")
        size = math.prod(shape) * dtype.itemsize
        memptr = memptr or state.allocator(size)
        self._memory, start = memptr.mem, memptr.ptr - memptr.mem.ptr
        self._host = self._memory.bytes[start : start + size].view(dtype).reshape(shape)

    def _view(self, host: np.ndarray) -> ndarray:
        array = ndarray.__new__(ndarray)
        array._host, array._memory = host, self._memory
        return array

    def need(self, write: bool = False) -> Needs:
        """What work that reads or writes this array needs."""
        return self._memory, Use(*self.span, write)

    T = property(lambda self: self._view(self._host.T))

    @property
    def data(self) -> MemoryPointer:
        """Where it begins."""
        return MemoryPointer(self._memory, self._host.ctypes.data - self._memory.ptr)

    @property
    def span(self) -> tuple[int, int]:
        """The addresses that it spans."""
        return np.lib.array_utils.byte_bounds(self._host) if self._host.size else (0, 0)

    def __len__(self) -> int:
        return len(self._host)

    # What the host may know of the elements, once it has waited.

    def get(self, stream: Stream | None = None) -> np.ndarray:
        """A copy on the host."""
        stream = stream or state.stream
        stream.forbid_capture("ndarray.get")
        submit(Work(lambda stream: None, "ndarray.get", [self.need()]), stream)
        stream.synchronize()
        return np.array(self._host, order="C")

    def set(self, arr: np.ndarray, stream: Stream | None = None) -> None:
        """Copies an array of the host, of the same shape and dtype, into this one."""
        if not isinstance(arr, np.ndarray) or self.dtype != arr.dtype:
            raise TypeError(f"{getattr(arr, 'dtype', type(arr))} cannot be set to {self.dtype}")
        if self.shape != arr.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not (self.flags.c_contiguous or self.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        stream, host, pinned = stream or state.stream, self._host, is_pinned(arr)
        if not pinned:
            stream.forbid_capture("ndarray.set from memory that is not pinned")

        def run(stream: Stream) -> None:
            sent = arr.copy()
            np.copyto(host, sent)

            def check() -> None:
                if sent.tobytes() != arr.tobytes():
                    raise KernelError(
                        "pinned memory was changed after ndarray.set from it, before anything "
                        "waited for the copy"
                    )

            if pinned:
                state.pending.append((stream.ptr, stream.clock[stream.ptr], check))

        submit(Work(run, "ndarray.set", [self.need(write=True)]), stream)

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct "
            "a NumPy array explicitly."
        )

    # Parts and forms.

    def __getitem__(self, index: Any) -> ndarray:
        plain = _plain(index)
        if _is_advanced(index):
            return compute(lambda a: a[plain], self, needs=_needs(index))
        parts = plain if isinstance(plain, tuple) else (plain,)
        if not any(part is Ellipsis for part in parts):
            parts = (*parts, ...)  # or one element would come as a number, not as an array
        return self._view(self._host[parts])

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, list | tuple):
            value = array(value)
        plain, given, host = _plain(index), _plain(value), self._host
        if not _is_advanced(index):  # shapes that do not fit fail at once, also while capturing
            np.broadcast_to(given, host[plain].shape)

        def run(stream: Stream) -> None:
            host[plain] = given

        target = self if _is_advanced(index) else self[index]
        needs = [target.need(write=True), *_needs([index, value])]
        submit(Work(run, "ndarray.__setitem__", needs))

    def reshape(self, *shape: Any) -> ndarray:
        """A view where that is possible."""
        shape = shape[0] if len(shape) == 1 else shape
        made = self._host.reshape(shape)
        if self.size == 0 or np.may_share_memory(made, self._host):
            return self._view(made)
        return compute(lambda a: a.reshape(shape), self)

    def ravel(self) -> ndarray:
        """One axis."""
        return self.reshape(-1)

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        """A copy of another dtype."""
        return compute(lambda a: a.astype(dtype), self) if copy or self.dtype != dtype else self

    def copy(self) -> ndarray:
        """A copy."""
        return compute(np.copy, self)

    def fill(self, value: Any) -> None:
        """Makes all elements a number."""
        host = self._host
        submit(Work(lambda stream: host.fill(value), "ndarray.fill", [self.need(write=True)]))

    def sort(self) -> None:
        """In place; by Thrust, which cannot be captured."""
        state.stream.forbid_capture("ndarray.sort")
        host = self._host
        submit(Work(lambda stream: host.sort(), "ndarray.sort", [self.need(write=True)]))


def _plain(value: Any) -> Any:
    """Arrays of the device as those behind them; arrays of the host are refused."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    return value


def _needs(value: Any) -> list[Needs]:
    if isinstance(value, ndarray):
        return [value.need()]
    return [n for v in value for n in _needs(v)] if isinstance(value, tuple | list) else []


def _is_advanced(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(part, ndarray) and part.dtype == bool for part in parts):
        state.stream.forbid_capture("indexing by a mask, whose count the host must know")
    return any(isinstance(part, ndarray | list) for part in parts)


def compute(
    function: Callable[..., Any], *args: Any, out: ndarray | None = None, needs: Any = (),
    **kwargs: Any,
) -> Any:
    """A NumPy function's result in device memory, now or when what is recorded is replayed."""
    plain, options = _plain(args), {name: _plain(value) for name, value in kwargs.items()}
    needs = [*needs, *_needs([*args, *kwargs.values()])]
    if not isinstance(out, ndarray | None):
        raise TypeError(f"out must be a cupy.ndarray, got {type(out)}")
    found: list[Any] = []  # where it is needed for its shape, or errors are to come at once
    if out is None or state.stream.capture is not None:
        scratch = {} if out is None else {"out": out._host.copy()}
        with np.errstate(all="ignore"):
            found.append(np.asarray(function(*plain, **scratch, **options)))
    made = ndarray(found[0].shape, found[0].dtype) if out is None else out
    target = made._host
    if state.stream.capture is not None:
        found.clear()

    def run(stream: Stream) -> None:
        if out_is_given:
            function(*plain, out=target, **options)
        else:
            np.copyto(target, found.pop() if found else function(*plain, **options))

    out_is_given = out is not None
    needs.append(made.need(write=True))
    submit(Work(run, f"cupy.{getattr(function, '__name__', '?')}", needs))
    return made


def wrapped(function: Any, error: Exception | None = None, waits: bool = False) -> Any:
    """A function of NumPy as one of CuPy.

    Args:
        error: raised while capturing.
        waits: it must know values on the host, or uses Thrust: it cannot be captured.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        if error and state.stream.capture is not None:
            raise error
        if waits:
            state.stream.forbid_capture(f"cupy.{function.__name__}")
        return compute(function, *args, **kwargs)

    def at(a: ndarray, index: Any, value: Any) -> None:
        """Elements that the index names several times take part as often."""
        given, host = (_plain(index), _plain(value)), a._host
        needs = [a.need(write=True), *_needs([index, value])]
        submit(Work(lambda stream: function.at(host, *given), "cupy.add.at", needs))

    if function is np.add:
        call.at = at  # type: ignore[attr-defined]
    return call


def _define_methods() -> None:
    def method(function: Any, swapped: bool = False, in_place: bool = False) -> Any:
        def call(self: ndarray, *args: Any, **kwargs: Any) -> Any:
            args = (*args, self) if swapped else (self, *args)
            return function(*args, **({"out": self} if in_place else {}), **kwargs)

        return call

    for name in ("shape", "dtype", "ndim", "size", "itemsize", "nbytes", "strides", "flags"):
        setattr(ndarray, name, property(operator.attrgetter(f"_host.{name}")))
    for name in ("transpose", "swapaxes", "squeeze", "view"):
        setattr(ndarray, name, lambda self, *args, name=name: self._view(
            getattr(self._host, name)(*args)
        ))
    for name, to_host in {
        "item": np.ndarray.item, "tolist": np.ndarray.tolist, "__float__": float, "__int__": int,
        "__index__": operator.index, "__bool__": bool, "__repr__": repr,
    }.items():
        setattr(ndarray, name, lambda self, to_host=to_host: to_host(self.get()))
    for name in ("sum", "mean", "max", "min", "all", "any", "argmax", "argmin", "argsort"):
        setattr(ndarray, name, method(wrapped(getattr(np, name), waits=name == "argsort")))
    for name, function in {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide,
        "floordiv": np.floor_divide, "mod": np.remainder, "pow": np.power, "and": np.bitwise_and,
        "or": np.bitwise_or, "lt": np.less, "le": np.less_equal, "gt": np.greater,
        "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal, "neg": np.negative,
        "abs": np.absolute, "invert": np.invert,
    }.items():
        function = wrapped(function)
        setattr(ndarray, f"__{name}__", method(function))
        setattr(ndarray, f"__r{name}__", method(function, swapped=True))
        setattr(ndarray, f"__i{name}__", method(function, in_place=True))
    ndarray.__matmul__ = method(product(np.matmul))  # type: ignore[attr-defined]


def product(function: Any) -> Any:
    """A function that calls cuBLAS, which CuPy refuses while capturing."""
    reason = "calling cuBLAS API during stream capture is currently unsupported"
    return wrapped(function, NotImplementedError(reason))


_define_methods()


# Creation.


def full(shape: Any, fill_value: Any, dtype: Any = None) -> ndarray:
    """An array of one number."""
    made = ndarray(shape, dtype if dtype is not None else np.array(fill_value).dtype)
    made.fill(fill_value)
    return made


def zeros(shape: Any, dtype: Any = float) -> ndarray:
    """An array of zeros."""
    return full(shape, 0, dtype)


def ones(shape: Any, dtype: Any = float) -> ndarray:
    """An array of ones."""
    return full(shape, 1, dtype)


def array(obj: Any, dtype: Any = None) -> ndarray:
    """A copy in device memory."""
    if isinstance(obj, ndarray):
        return obj.astype(dtype or obj.dtype)
    host = np.asarray(obj, dtype)
    made = ndarray(host.shape, host.dtype)
    made.set(host)
    return made


def asarray(a: Any, dtype: Any = None) -> ndarray:
    """`a` itself where it is one of the device's of this dtype, else a copy."""
    return a if isinstance(a, ndarray) and dtype in (None, a.dtype) else array(a, dtype)


def strided(function: Any) -> Any:
    """A function of numpy.lib.stride_tricks, which makes views."""
    return lambda x, *args, **kwargs: x._view(function(x._host, *args, writeable=True, **kwargs))
