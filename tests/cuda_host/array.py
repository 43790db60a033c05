"""cupy.ndarray on the host: a NumPy array that cannot be mixed up with the host's own."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cuda_host import device
from cuda_host.device import Memory, MemoryPointer, forbid_capture, is_pinned, state, submit


def _size(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return math.prod(shape) * dtype.itemsize


class ndarray:  # noqa: N801  # CuPy's name
    """An array in device memory.

    Attributes:
        _host: the elements, as a NumPy array; only this package may look.
        _memory: what it is a part of.
    """

    __array_priority__ = 100
    __array_ufunc__ = None  # NumPy leaves arithmetic with its scalars to this class
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: MemoryPointer | None = None,
        strides: Any = None, order: str = "C",
    ):
        shape = (shape,) if isinstance(shape, int | np.integer) else tuple(map(int, shape))
        dtype = np.dtype(dtype)
        if dtype.kind not in "biufc":
            raise ValueError(f"Unsupported dtype {dtype}")
        memptr = memptr or state.allocator(_size(shape, dtype))
        start = memptr.ptr - memptr.mem.ptr
        space = memptr.mem.bytes[start : start + _size(shape, dtype)].view(dtype)
        self._host = space.reshape(shape, order=order)
        if strides is not None:
            self._host = np.lib.stride_tricks.as_strided(space, shape, strides)
        self._memory = memptr.mem

    @classmethod
    def _of(cls, host: np.ndarray, memory: Memory) -> ndarray:
        array = cls.__new__(cls)
        array._host, array._memory = host, memory
        return array

    def _view(self, host: np.ndarray) -> ndarray:
        return self._of(host, self._memory)

    # What it is.

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)
    T = property(lambda self: self._view(self._host.T))
    device = property(lambda self: Device())

    @property
    def data(self) -> MemoryPointer:
        """Where it begins."""
        return MemoryPointer(self._memory, self._host.ctypes.data - self._memory.ptr)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    # What the host may know of the elements, once it has waited.

    def get(
        self, stream: Any = None, order: str = "C", out: np.ndarray | None = None,
        blocking: bool = True,
    ) -> np.ndarray:
        """A copy on the host."""
        stream = stream or state.stream
        if out is None:
            stream.wait("ndarray.get")
            return np.array(self._host, order="C")
        if blocking or not is_pinned(out):
            stream.wait("ndarray.get")
            out[...] = self._host
            return out
        target = out

        def copy() -> None:
            found = self._host.copy()
            target.view(np.uint8).fill(0xFF)  # it has not arrived before somebody waits
            device.later(lambda: np.copyto(target, found))

        submit(copy, [self._memory], "ndarray.get", stream)
        return out

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        """Copies an array of the host, of the same shape and dtype, into this one."""
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if self.shape != arr.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not (self.flags.c_contiguous or self.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        stream = stream or state.stream
        if not is_pinned(arr):
            stream.wait("ndarray.set from memory that is not pinned")
            submit(lambda: np.copyto(self._host, arr), [self._memory], "ndarray.set", stream)
            return

        def copy() -> None:
            sent = arr.copy()
            np.copyto(self._host, sent)

            def check() -> None:
                if sent.tobytes() != arr.tobytes():
                    raise device.KernelError(
                        "pinned memory was changed after ndarray.set from it, before anything "
                        "waited for the copy"
                    )

            device.later(check)

        submit(copy, [self._memory], "ndarray.set", stream)

    def item(self, *args: Any) -> Any:
        """An element as a Python number."""
        return self.get().item(*args)

    def tolist(self) -> Any:
        """Elements as Python numbers."""
        return self.get().tolist()

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __index__(self) -> int:
        return operator.index(self.get())

    def __bool__(self) -> bool:
        return bool(self.get())

    def __complex__(self) -> complex:
        return complex(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __format__(self, spec: str) -> str:
        return format(self.get(), spec)

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct "
            "a NumPy array explicitly."
        )

    # Parts and forms.

    def __getitem__(self, index: Any) -> ndarray:
        if _is_advanced(index):
            _no_masks(index)
            plain = _plain(index)
            return compute(lambda a: a[plain], self, memories=_memories(index))
        parts = index if isinstance(index, tuple) else (index,)
        if not any(part is Ellipsis for part in parts):
            parts = (*parts, ...)  # or one element would come as a number, not as an array
        return self._view(self._host[parts])

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            raise TypeError(f"Unsupported type {type(value)}: use ndarray.set or cupy.asarray")
        if isinstance(value, list | tuple):
            value = asarray(value)
        if _is_advanced(index):
            _no_masks(index)
        plain, given = _plain(index), _plain(value)
        # Shapes that do not fit fail at once, also where nothing is done yet.
        if isinstance(value, ndarray) and not _is_advanced(index):
            np.broadcast_to(given, self._host[plain].shape)

        def run() -> None:
            self._host[plain] = given

        submit(run, [self._memory, *_memories((index, value))], "ndarray.__setitem__")

    def reshape(self, *shape: Any, order: str = "C") -> ndarray:
        """A view where that is possible."""
        shape = shape[0] if len(shape) == 1 else shape
        made = self._host.reshape(shape, order=order)
        if self.size == 0 or np.may_share_memory(made, self._host):
            return self._view(made)
        return compute(lambda a: a.reshape(shape, order=order), self)

    def ravel(self, order: str = "C") -> ndarray:
        """One axis."""
        return self.reshape(-1, order=order)

    def flatten(self, order: str = "C") -> ndarray:
        """A copy of one axis."""
        return compute(lambda a: a.flatten(order), self)

    def transpose(self, *axes: Any) -> ndarray:
        """Axes in another order."""
        return self._view(self._host.transpose(*axes))

    def swapaxes(self, a: int, b: int) -> ndarray:
        """Two axes in each other's place."""
        return self._view(self._host.swapaxes(a, b))

    def squeeze(self, axis: Any = None) -> ndarray:
        """Without axes of length one."""
        return self._view(self._host.squeeze(axis))

    def view(self, dtype: Any = None) -> ndarray:
        """The same bytes, as another dtype."""
        return self._view(self._host.view(dtype) if dtype is not None else self._host)

    def astype(self, dtype: Any, order: str = "K", copy: bool = True) -> ndarray:
        """A copy of another dtype."""
        if not copy and self.dtype == dtype:
            return self
        return compute(lambda a: a.astype(dtype), self)

    def copy(self, order: str = "C") -> ndarray:
        """A copy."""
        return compute(lambda a: a.copy(), self)

    def fill(self, value: Any) -> None:
        """All elements the same."""
        if isinstance(value, ndarray):
            value = value.get()
        if np.ndim(value):
            raise ValueError("fill takes one number")
        submit(lambda: self._host.fill(value), [self._memory], "ndarray.fill")

    def sort(self, axis: int = -1, kind: Any = None) -> None:
        """In place; by Thrust, which cannot be captured."""
        forbid_capture("ndarray.sort")
        if kind not in (None, "stable"):
            raise ValueError(f"unsupported kind {kind!r}")
        self._host.sort(axis=axis)

    def argsort(self, axis: int = -1, kind: Any = None) -> ndarray:
        """The order of the elements."""
        forbid_capture("ndarray.argsort")
        return compute(lambda a: a.argsort(axis=axis, kind="stable"), self)


def _method(name: str) -> Callable[..., ndarray]:
    def method(self: ndarray, *args: Any, **kwargs: Any) -> ndarray:
        return compute(getattr(np, name), self, *args, **kwargs)

    return method


for _name in (
    "sum", "mean", "max", "min", "prod", "std", "var", "all", "any", "argmax", "argmin", "cumsum",
    "cumprod", "clip", "round", "take", "repeat",
):
    setattr(ndarray, _name, _method(_name))


def _operator(function: Any, swapped: bool = False) -> Callable[[ndarray, Any], Any]:
    def method(self: ndarray, other: Any) -> Any:
        return compute(function, *((other, self) if swapped else (self, other)))

    return method


def _in_place(function: Any) -> Callable[[ndarray, Any], Any]:
    def method(self: ndarray, other: Any) -> Any:
        return compute(function, self, other, out=self)

    return method


for _name, _function in {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide,
    "floordiv": np.floor_divide, "mod": np.remainder, "pow": np.power, "and": np.bitwise_and,
    "or": np.bitwise_or, "xor": np.bitwise_xor, "lshift": np.left_shift, "rshift": np.right_shift,
}.items():
    setattr(ndarray, f"__{_name}__", _operator(_function))
    setattr(ndarray, f"__r{_name}__", _operator(_function, swapped=True))
    setattr(ndarray, f"__i{_name}__", _in_place(_function))
for _name, _function in {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal,
    "ne": np.not_equal,
}.items():
    setattr(ndarray, f"__{_name}__", _operator(_function))
ndarray.__neg__ = lambda self: compute(np.negative, self)  # type: ignore[attr-defined]
ndarray.__pos__ = lambda self: compute(np.positive, self)  # type: ignore[attr-defined]
ndarray.__abs__ = lambda self: compute(np.absolute, self)  # type: ignore[attr-defined]
ndarray.__invert__ = lambda self: compute(np.invert, self)  # type: ignore[attr-defined]
ndarray.__matmul__ = lambda self, other: product(np.matmul)(self, other)  # type: ignore[attr-defined]


class Device:
    """The only device, number 0."""

    def __init__(self, device: int = 0):
        if device:
            raise device_error("cudaErrorInvalidDevice: invalid device ordinal", 101)
        self.id = 0
        self.compute_capability = "80"
        self.mem_info = (device_free(), device_total())

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def use(self) -> Device:
        """It is the current one."""
        return self

    def synchronize(self) -> None:
        """Waits for all streams."""
        device.synchronize_all("Device.synchronize")


def device_error(text: str, status: int) -> Exception:
    """An error of the runtime."""
    return device.CUDARuntimeError(status, text)


def device_total() -> int:
    """Bytes of device memory."""
    return device.TOTAL


def device_free() -> int:
    """Bytes that no array has."""
    return device.TOTAL - sum(m.size for m in list(state.memory.values()))


# Doing what NumPy does.


def _plain(value: Any) -> Any:
    """Arrays of the device as those behind them; arrays of the host are refused."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    return value


def _memories(value: Any) -> list[Memory]:
    if isinstance(value, ndarray):
        return [value._memory]
    if isinstance(value, tuple | list):
        return [m for v in value for m in _memories(v)]
    return []


def _is_advanced(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, ndarray | list | np.ndarray) for part in parts)


def _no_masks(index: Any) -> None:
    """How many elements a mask selects must be known to the host."""
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(part, ndarray) and part.dtype == bool for part in parts):
        forbid_capture("indexing by a mask")


def compute(
    function: Callable[..., Any], *args: Any, out: ndarray | None = None,
    memories: list[Memory] | None = None, **kwargs: Any,
) -> Any:
    """A NumPy function's result in device memory, now or when what is recorded is replayed."""
    plain, options = [_plain(a) for a in args], {k: _plain(v) for k, v in kwargs.items()}
    used = [*_memories(list(args)), *_memories(list(kwargs.values())), *(memories or [])]
    what = f"cupy.{getattr(function, '__name__', '?')}"
    if out is not None:
        if not isinstance(out, ndarray):
            raise TypeError(f"out must be a cupy.ndarray, got {type(out)}")
        target = out._host
        if state.stream.capture is not None:  # so that errors come when it is recorded
            with np.errstate(all="ignore"):
                function(*plain, out=target.copy(), **options)

        submit(lambda: function(*plain, out=target, **options), [*used, out._memory], what)
        return out
    with np.errstate(all="ignore"):
        preview = np.asarray(function(*plain, **options))
    made = ndarray(preview.shape, preview.dtype)
    if state.stream.capture is None:
        submit(lambda: np.copyto(made._host, preview), [*used, made._memory], what)
        return made
    result = made._host
    submit(
        lambda: np.copyto(result, function(*plain, **options)), [*used, made._memory], what
    )
    return made


def wrapped(function: Any) -> Callable[..., Any]:
    """A function of NumPy as one of CuPy."""

    def call(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        return compute(function, *args, out=out, **kwargs)

    def at(a: ndarray, index: Any, value: Any) -> None:
        """Elements that the index names several times take part as often."""
        _no_masks(index)
        given = _plain(index), _plain(value)
        submit(
            lambda: function.at(a._host, *given), [a._memory, *_memories([index, value])],
            f"cupy.{function.__name__}.at",
        )

    call.__name__ = function.__name__
    if function in (np.add, np.subtract, np.maximum, np.minimum):  # the others have no `at`
        call.at = at  # type: ignore[attr-defined]
    return call


def waiting(function: Any) -> Callable[..., Any]:
    """The same, for one that must know values on the host, or uses Thrust."""

    def call(*args: Any, **kwargs: Any) -> Any:
        forbid_capture(f"cupy.{function.__name__}")
        return compute(function, *args, **kwargs)

    return call


def product(function: Any) -> Callable[..., Any]:
    """The same, for one that calls cuBLAS, which CuPy refuses while capturing."""

    def call(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        if state.stream.capture is not None:
            raise NotImplementedError(
                "calling cuBLAS API during stream capture is currently unsupported"
            )
        return compute(function, *args, out=out, **kwargs)

    return call


# Creation.


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    """Memory as it is: NaN here."""
    return ndarray(shape, dtype, order=order)


def full(shape: Any, fill_value: Any, dtype: Any = None) -> ndarray:
    """All elements the same."""
    array = ndarray(shape, dtype if dtype is not None else np.array(fill_value).dtype)
    array.fill(fill_value)
    return array


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    """All elements zero."""
    array = ndarray(shape, dtype, order=order)
    array.fill(0)
    return array


def ones(shape: Any, dtype: Any = float) -> ndarray:
    """All elements one."""
    return full(shape, 1, dtype)


def arange(*args: Any, dtype: Any = None) -> ndarray:
    """Numbers made on the device."""
    return compute(lambda: np.arange(*args, dtype=dtype))


def array(obj: Any, dtype: Any = None, copy: bool = True, order: str = "K") -> ndarray:
    """A copy in device memory."""
    if isinstance(obj, ndarray):
        return obj.astype(dtype or obj.dtype)
    host = np.asarray(obj, dtype)
    made = ndarray(host.shape, host.dtype)
    forbid_capture("cupy.array of the host's data")
    made._host[...] = host
    return made


def asarray(a: Any, dtype: Any = None, order: str | None = None) -> ndarray:
    """`a` itself where it is one of the device's of this dtype, else a copy."""
    if isinstance(a, ndarray):
        return a if dtype is None or a.dtype == dtype else a.astype(dtype)
    return array(a, dtype)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    """The same, with rows in a row."""
    a = asarray(a, dtype)
    return a if a.flags.c_contiguous else a.copy()


def asnumpy(
    a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True
) -> np.ndarray:
    """A copy on the host."""
    return a.get(stream, order, out, blocking) if isinstance(a, ndarray) else np.asarray(a)


def like(function: Callable[..., ndarray]) -> Callable[..., ndarray]:
    """zeros_like of zeros, and so on."""
    def call(a: ndarray, *args: Any, dtype: Any = None) -> ndarray:
        return function(a.shape, *args, dtype=dtype or a.dtype)

    return call


def sliding_window_view(x: ndarray, window_shape: Any, axis: Any = None) -> ndarray:
    """A view; CuPy looks at the shape on the device, so it cannot be captured."""
    forbid_capture("cupy.lib.stride_tricks.sliding_window_view")
    windows = np.lib.stride_tricks.sliding_window_view
    return x._view(windows(x._host, window_shape, axis, writeable=True))


def copyto(dst: ndarray, src: Any) -> None:
    """Copies values."""
    dst[...] = src
