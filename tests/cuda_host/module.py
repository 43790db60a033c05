"""The module `cupy`, as far as layerkit uses it; a name that is not here is an AttributeError."""

import contextlib
import operator
from types import ModuleType, SimpleNamespace

import numpy as np
import scipy.special

from cuda_host import array, compiler, device
from cuda_host.device import state

# Functions of NumPy that CuPy has too, and those that a capture does not take, by CUDA's error.
PLAIN = """
    abs add all any arange arctan2 argmax argmin broadcast_to ceil clip concatenate conj cos cumsum
    divide equal exp expm1 flip floor greater hypot isfinite isnan less log log1p logical_and max
    maximum mean min minimum multiply negative pad prod repeat rint roll sign sin sqrt square stack
    std subtract sum take take_along_axis tanh tile transpose where
"""
WAITING = "argsort bincount flatnonzero median nonzero sort unique"
PRODUCTS = "dot einsum matmul tensordot"
SAME = """
    bool_ complex64 complex128 dtype finfo float16 float32 float64 inf int8 int16 int32 int64 nan
    newaxis pi uint8 uint16 uint32 uint64
"""


class RawModule:
    """The kernels of a source."""

    def __init__(self, *, code, options=()):
        if type(options) is not tuple:
            raise TypeError(f"options must be a tuple, got {type(options)}")
        self.code, self.options = code, options

    def get_function(self, name):
        kernels = compiler.module(self.code, self.options).kernels
        if name not in kernels:
            raise device.CUDADriverError(
                f'CUDA_ERROR_NOT_FOUND: named symbol not found: {name}; is it extern "C"?'
            )
        return lambda grid, block, args: device.launch(kernels[name], grid, block, args)


class Device:
    """The only device, number 0."""

    def __init__(self, device_id=0):
        if device_id:
            raise device.CUDARuntimeError(101)
        self.id = 0

    def use(self):
        return self

    def synchronize(self):
        for stream in list(state.created.values()):
            stream.synchronize("Device.synchronize")


@contextlib.contextmanager
def using_allocator(allocator=None):
    """Take the memory of new arrays from `allocator` within the context."""
    before, state.allocator = state.allocator, allocator or state.pool.malloc
    try:
        yield
    finally:
        state.allocator = before


def sliding_window_view(*args, **kwargs):
    state.stream.forbid_capture("sliding_window_view, which looks at the shape on the device")
    return array.strided(np.lib.stride_tricks.sliding_window_view)(*args, **kwargs)


def make():
    """Make the modules, by name, of a device that has just been reset."""
    special = ModuleType("cupyx.scipy.special")
    vars(special).update(
        {name: array.wrapped(getattr(scipy.special, name)) for name in ("erfc", "gammaln")}
    )
    cupy, cuda, runtime = map(ModuleType, ("cupy", "cupy.cuda", "cupy.cuda.runtime"))
    vars(runtime).update(
        CUDARuntimeError=device.CUDARuntimeError,
        getDeviceCount=lambda: 1,
        getDevice=lambda: 0,
        deviceSynchronize=lambda: Device().synchronize(),
        runtimeGetVersion=lambda: 12040,
        driverGetVersion=lambda: 12040,
        getDeviceProperties=lambda number: {
            "name": b"CUDA on the host",
            "major": 8,
            "minor": 0,
            "multiProcessorCount": 4,
            "totalGlobalMem": device.TOTAL,
        },
        memGetInfo=lambda: (
            device.TOTAL - sum(m.size for m in list(state.memory.values())),
            device.TOTAL,
        ),
    )
    vars(cuda).update(
        runtime=runtime,
        Stream=device.Stream,
        Event=device.Event,
        Device=Device,
        MemoryPool=device.MemoryPool,
        get_current_stream=lambda: state.stream,
        alloc_pinned_memory=device.alloc_pinned_memory,
        using_allocator=using_allocator,
        cublas=SimpleNamespace(),
        compiler=SimpleNamespace(CompileException=compiler.CompileException),
        driver=SimpleNamespace(CUDADriverError=device.CUDADriverError),
    )
    for names, status in ((PLAIN, None), (WAITING, 900), (PRODUCTS, NotImplementedError)):
        vars(cupy).update(
            {name: array.wrapped(getattr(np, name), status) for name in names.split()}
        )
    vars(cupy).update({name: getattr(np, name) for name in SAME.split()})
    vars(cupy).update(
        __version__="14.0.0 on the host",
        cuda=cuda,
        RawModule=RawModule,
        ndarray=array.ndarray,
        empty=array.ndarray,
        full=array.full,
        array=array.array,
        asarray=array.asarray,
        zeros=lambda shape, dtype=float: array.full(shape, 0, dtype),
        ones=lambda shape, dtype=float: array.full(shape, 1, dtype),
        zeros_like=lambda a: array.full(a.shape, 0, a.dtype),
        ones_like=lambda a: array.full(a.shape, 1, a.dtype),
        asnumpy=lambda a: a.get() if isinstance(a, array.ndarray) else np.asarray(a),
        copyto=lambda target, source: operator.setitem(target, ..., source),
        may_share_memory=lambda a, b: np.may_share_memory(a._host, b._host),
        fft=SimpleNamespace(
            **{n: array.wrapped(getattr(np.fft, n), 900) for n in ("rfft2", "irfft2")}
        ),
        lib=SimpleNamespace(
            stride_tricks=SimpleNamespace(
                as_strided=array.strided(np.lib.stride_tricks.as_strided),
                sliding_window_view=sliding_window_view,
            )
        ),
    )
    return {
        "cupy": cupy,
        "cupy.cuda": cuda,
        "cupy.cuda.runtime": runtime,
        "cupyx.scipy.special": special,
    }
