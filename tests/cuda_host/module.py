"""The module `cupy`, as far as layerkit uses it; a name that is not here is an AttributeError."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from cuda_host import array, compiler, device
from cuda_host.device import state

# Functions of NumPy that CuPy has too.
PLAIN = """
    abs add all any arange arctan2 argmax argmin broadcast_to ceil clip concatenate cos cumsum divide
    equal exp expm1 flip floor greater hypot isfinite isnan less log log1p logical_and max maximum
    mean min minimum multiply negative pad prod repeat rint roll sign sin sqrt square stack std
    subtract sum take take_along_axis tanh tile transpose where
"""
WAITING = "argsort bincount flatnonzero median nonzero sort unique"
PRODUCTS = "dot einsum matmul tensordot"
SAME = """
    bool_ complex64 complex128 dtype finfo float16 float32 float64 inf int8 int16 int32 int64 integer
    nan newaxis pi uint8 uint16 uint32 uint64
"""


class RawModule:
    """The kernels of a source."""

    def __init__(self, *, code: str, options: tuple[str, ...] = ()):
        if type(options) is not tuple:
            raise TypeError(f"options must be a tuple, got {type(options)}")
        self.code, self.options = code, options

    def get_function(self, name: str) -> Callable[..., None]:
        """A kernel by name."""
        try:
            kernels = compiler.module(self.code, self.options).kernels
        except compiler.CompileError as error:
            raise CompileException(str(error)) from None
        if name not in kernels:
            raise device.CUDADriverError(
                f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}; is it extern \"C\"?"
            )
        return lambda grid, block, args: device.launch(kernels[name], grid, block, args)


class CompileException(Exception):  # noqa: N818  # CuPy's name
    """A source that does not compile."""


class Device:
    """The only device, number 0."""

    def __init__(self, device_id: int = 0):
        if device_id:
            raise device.CUDARuntimeError(101)
        self.id = 0

    def synchronize(self) -> None:
        """Waits for all streams."""
        for stream in list(state.created.values()):
            stream.synchronize("Device.synchronize")


@contextlib.contextmanager
def using_allocator(allocator: Callable[[int], Any] | None = None) -> Iterator[None]:
    """New arrays come from `allocator` within the context."""
    before, state.allocator = state.allocator, allocator or state.pool.malloc
    try:
        yield
    finally:
        state.allocator = before


def _memory_info() -> tuple[int, int]:
    return device.TOTAL - sum(m.size for m in list(state.memory.values())), device.TOTAL


def make() -> dict[str, ModuleType]:
    """Name -> module, of a device that has just been reset."""
    cupy, cuda, runtime = map(ModuleType, ("cupy", "cupy.cuda", "cupy.cuda.runtime"))
    vars(runtime).update(
        CUDARuntimeError=device.CUDARuntimeError, getDeviceCount=lambda: 1, getDevice=lambda: 0,
        deviceSynchronize=lambda: Device().synchronize(), memGetInfo=_memory_info,
        runtimeGetVersion=lambda: 12040,
    )
    vars(cuda).update(
        runtime=runtime, Stream=device.Stream, Event=device.Event, Device=Device,
        MemoryPool=device.MemoryPool, get_current_stream=lambda: state.stream,
        alloc_pinned_memory=device.alloc_pinned_memory, using_allocator=using_allocator,
        cublas=SimpleNamespace(), compiler=SimpleNamespace(CompileException=CompileException),
        driver=SimpleNamespace(CUDADriverError=device.CUDADriverError),
    )
    for names, wrap in (
        (PLAIN, array.wrapped), (WAITING, lambda function: array.wrapped(function, waits=True)),
        (PRODUCTS, array.product), (SAME, lambda same: same),
    ):
        vars(cupy).update({name: wrap(getattr(np, name)) for name in names.split()})
    tricks = np.lib.stride_tricks
    vars(cupy).update(
        __version__="14.0.0 on the host", cuda=cuda, RawModule=RawModule, ndarray=array.ndarray,
        empty=array.ndarray, full=array.full, zeros=array.zeros, ones=array.ones,
        array=array.array, asarray=array.asarray,
        zeros_like=lambda a: array.zeros(a.shape, a.dtype),
        ones_like=lambda a: array.ones(a.shape, a.dtype),
        asnumpy=lambda a: a.get() if isinstance(a, array.ndarray) else np.asarray(a),
        copyto=lambda target, source: operator.setitem(target, ..., source),
        may_share_memory=lambda a, b: np.may_share_memory(a._host, b._host),
        lib=SimpleNamespace(stride_tricks=SimpleNamespace(
            as_strided=array.strided(tricks.as_strided),
            sliding_window_view=_without_capture(array.strided(tricks.sliding_window_view)),
        )),
    )
    return {"cupy": cupy, "cupy.cuda": cuda, "cupy.cuda.runtime": runtime}


def _without_capture(windows: Any) -> Any:
    """CuPy looks at the shape on the device, so it cannot be captured."""

    def call(*args: Any, **kwargs: Any) -> Any:
        state.stream.forbid_capture("cupy.lib.stride_tricks.sliding_window_view")
        return windows(*args, **kwargs)

    return call
