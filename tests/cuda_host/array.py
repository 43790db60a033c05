"""cupy.ndarray on the host: a NumPy array that cannot be mixed up with the host's own."""

import math
import operator

import numpy as np

from cuda_host.device import KernelError, MemoryPointer, Use, Work, is_pinned, state, submit


class ndarray:  # noqa: N801  # CuPy's name
    """An array in device memory.

    Attributes:
        _host: the elements, as a NumPy array; only this package may look.
        _memory: what it is a part of.
    """

    __array_priority__ = 100
    __array_ufunc__ = None  # NumPy leaves arithmetic with its scalars to this class
    __hash__ = None

    def __init__(self, shape, dtype=float, memptr=None):
        shape = (shape,) if isinstance(shape, int | np.integer) else tuple(map(int, shape))
        dtype = np.dtype(dtype)
        if dtype.kind not in "biufc":
            raise ValueError(f"Unsupported dtype {dtype}")
        size = math.prod(shape) * dtype.itemsize
        memptr = memptr or state.allocator(size)
        self._memory, start = memptr.mem, memptr.ptr - memptr.mem.ptr
        self._host = self._memory.bytes[start : start + size].view(dtype).reshape(shape)

    def _view(self, host):
        array = ndarray.__new__(ndarray)
        array._host, array._memory = host, self._memory
        return array

    T = property(lambda self: self._view(self._host.T))
    data = property(
        lambda self: MemoryPointer(self._memory, self._host.ctypes.data - self._memory.ptr)
    )

    @property
    def span(self):
        """Return the addresses that it spans."""
        return np.lib.array_utils.byte_bounds(self._host) if self._host.size else (0, 0)

    def need(self, write=False):
        """Return the needs of work that reads or writes this array."""
        return self._memory, Use(*self.span, write)

    def change(self, run, what, *others):
        """Hand over what changes the array behind this one, by arrays found in `others`."""
        host, needs = self._host, [self.need(write=True), *_needs(others)]
        submit(Work(lambda stream: run(host), what, needs))

    # Copies, which are all that the host may know of the elements.

    def get(self):
        submit(Work(lambda stream: None, "ndarray.get", [self.need()]))
        state.stream.synchronize("ndarray.get")
        return np.array(self._host, order="C")

    def set(self, arr, stream=None):
        if not isinstance(arr, np.ndarray) or self.dtype != arr.dtype:
            raise TypeError(f"{getattr(arr, 'dtype', type(arr))} cannot be set to {self.dtype}")
        if self.shape != arr.shape or not self.flags.forc:
            raise ValueError(f"{self.shape}, contiguous? {self.flags.forc}; set to {arr.shape}")
        stream, host, pinned = stream or state.stream, self._host, is_pinned(arr)
        if not pinned:
            stream.forbid_capture("ndarray.set from memory that is not pinned")

        def run(stream):
            sent = arr.copy()
            np.copyto(host, sent)

            def check():
                if sent.tobytes() != arr.tobytes():
                    raise KernelError(
                        "pinned memory was changed after ndarray.set from it, before anything "
                        "waited for the copy"
                    )

            if pinned:
                state.pending.append((stream.ptr, stream.clock[stream.ptr], check))

        submit(Work(run, "ndarray.set", [self.need(write=True)]), stream)

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    # Parts and forms.

    def __getitem__(self, index):
        plain = _plain(index)
        if _is_advanced(index):
            return compute(lambda a, _: a[plain], self, index)
        parts = plain if isinstance(plain, tuple) else (plain,)
        # With an ellipsis one element comes as an array, not as a number.
        return self._view(self._host[parts if Ellipsis in parts else (*parts, ...)])

    def __setitem__(self, index, value):
        value = array(value) if isinstance(value, list | tuple) else value
        plain, given = _plain(index), _plain(value)
        if _is_advanced(index):
            return self.change(
                lambda host: operator.setitem(host, plain, given),
                "ndarray.__setitem__",
                index,
                value,
            )
        part = self[index]
        np.broadcast_to(given, part.shape)  # fails at once, also while capturing
        return part.change(
            lambda host: np.copyto(host, given, "unsafe"), "ndarray.__setitem__", value
        )

    def reshape(self, *shape):
        made = self._host.reshape(*shape)
        if self.size == 0 or np.may_share_memory(made, self._host):
            return self._view(made)
        return compute(lambda a: a.reshape(*shape), self)

    def astype(self, dtype, copy=True):
        return compute(lambda a: a.astype(dtype), self) if copy or self.dtype != dtype else self

    def __len__(self):
        return len(self._host)

    def ravel(self):
        return self.reshape(-1)

    def copy(self):
        return compute(np.copy, self)

    def fill(self, value):
        self.change(lambda host: host.fill(value), "ndarray.fill")

    def sort(self):
        state.stream.forbid_capture("ndarray.sort, which is Thrust's")
        self.change(np.ndarray.sort, "ndarray.sort")


def _plain(value):
    """Put the arrays behind those of the device in their place; refuse arrays of the host."""
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    return value._host if isinstance(value, ndarray) else value


def _needs(value):
    if isinstance(value, ndarray):
        return [value.need()]
    return [n for v in value for n in _needs(v)] if isinstance(value, tuple | list) else []


def _is_advanced(index):
    arrays = [
        part
        for part in (index if isinstance(index, tuple) else (index,))
        if isinstance(part, ndarray | list)
    ]
    if any(isinstance(part, ndarray) and part.dtype == bool for part in arrays):
        state.stream.forbid_capture("indexing by a mask, whose count the host must know")
    return bool(arrays)


def compute(function, *args, out=None, **kwargs):
    """Put a NumPy function's result in device memory, now or when a recording is replayed."""
    plain, options = _plain(args), {name: _plain(value) for name, value in kwargs.items()}
    if not isinstance(out, ndarray | None):
        raise TypeError(f"out must be a cupy.ndarray, got {type(out)}")
    capturing, found, made = state.stream.capture is not None, [], out
    if out is None or capturing:  # for its shape, and so that errors come at once
        scratch = {} if out is None else {"out": out._host.copy()}
        with np.errstate(all="ignore"):
            found = [np.asarray(function(*plain, **scratch, **options))]
        made = ndarray(found[0].shape, found[0].dtype) if out is None else out
    if capturing:
        found = []
    is_given = out is not None

    def run(target):
        if is_given:
            function(*plain, out=target, **options)
        else:
            np.copyto(target, found.pop() if found else function(*plain, **options))

    made.change(run, f"cupy.{getattr(function, '__name__', '?')}", args, [*kwargs.values()])
    return made


def wrapped(function, status=None):
    """Make a function of CuPy from NumPy's; those that cannot be captured have a status."""

    def call(*args, **kwargs):
        if status is NotImplementedError and state.stream.capture is not None:
            raise status("calling cuBLAS API during stream capture is currently unsupported")
        if status:
            state.stream.forbid_capture(f"cupy.{function.__name__}", status)
        return compute(function, *args, **kwargs)

    if function is np.add:  # where elements that the index names several times take part as often

        def at(a, index, value):
            given = _plain(index), _plain(value)
            a.change(lambda host: np.add.at(host, *given), "cupy.add.at", index, value)

        call.at = at
    return call


def _define_methods():
    def method(function, swapped=False, in_place=False):
        def call(self, *args, **kwargs):
            args = (*args, self) if swapped else (self, *args)
            return function(*args, **({"out": self} if in_place else {}), **kwargs)

        return call

    for name in ("shape", "dtype", "ndim", "size", "itemsize", "nbytes", "strides", "flags"):
        setattr(ndarray, name, property(operator.attrgetter(f"_host.{name}")))
    for name in ("transpose", "swapaxes", "squeeze", "view"):
        setattr(
            ndarray,
            name,
            lambda self, *args, name=name: self._view(getattr(self._host, name)(*args)),
        )
    for name, to_host in {
        "item": np.ndarray.item,
        "tolist": np.ndarray.tolist,
        "__float__": float,
        "__int__": int,
        "__index__": operator.index,
        "__bool__": bool,
        "__repr__": repr,
    }.items():
        setattr(ndarray, name, lambda self, to_host=to_host: to_host(self.get()))
    for name in ("sum", "mean", "max", "min", "all", "any", "argmax", "argmin"):
        setattr(ndarray, name, method(wrapped(getattr(np, name))))
    for name, function in {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "truediv": np.true_divide,
        "floordiv": np.floor_divide,
        "mod": np.remainder,
        "pow": np.power,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
        "lshift": np.left_shift,
        "rshift": np.right_shift,
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
        "eq": np.equal,
        "ne": np.not_equal,
        "neg": np.negative,
        "abs": np.absolute,
        "invert": np.invert,
    }.items():
        setattr(ndarray, f"__{name}__", method(wrapped(function)))
        setattr(ndarray, f"__r{name}__", method(wrapped(function), swapped=True))
        setattr(ndarray, f"__i{name}__", method(wrapped(function), in_place=True))
    ndarray.__matmul__ = method(wrapped(np.matmul, NotImplementedError))


_define_methods()


# Creation.


def full(shape, fill_value, dtype=None):
    made = ndarray(shape, np.array(fill_value).dtype if dtype is None else dtype)
    made.fill(fill_value)
    return made


def array(obj, dtype=None):
    if isinstance(obj, ndarray):
        return obj.astype(dtype or obj.dtype)
    host = np.asarray(obj, dtype)
    made = ndarray(host.shape, host.dtype)
    made.set(host)
    return made


def asarray(a, dtype=None):
    """Return `a` where it is one of the device's of this dtype, else a copy."""
    return a if isinstance(a, ndarray) and dtype in (None, a.dtype) else array(a, dtype)


def strided(function):
    """Make a function of views from one of numpy.lib.stride_tricks."""
    return lambda x, *args, **kwargs: x._view(function(x._host, *args, writeable=True, **kwargs))
