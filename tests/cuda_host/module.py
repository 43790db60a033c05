"""The module `cupy`, as far as layerkit uses it; a name that is not here is an AttributeError."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from cuda_host import array, compiler, device
from cuda_host.device import SHARED, SHARED_OPT_IN, state

# Functions of NumPy that CuPy has too.
ELEMENTWISE = """
    abs absolute add arccos arcsin arctan arctan2 bitwise_and bitwise_or bitwise_xor cbrt ceil clip
    copysign cos cosh divide equal exp exp2 expm1 fabs floor floor_divide fmax fmin fmod greater
    greater_equal hypot invert isfinite isinf isnan left_shift less less_equal log log10 log1p log2
    logaddexp logical_and logical_not logical_or logical_xor maximum minimum mod multiply negative
    not_equal power reciprocal remainder right_shift rint sign signbit sin sinh sqrt square subtract
    tan tanh true_divide trunc where
"""
OTHERS = """
    all amax amin any argmax argmin broadcast_to concatenate cumsum diag diff expand_dims eye flip
    hstack max mean min moveaxis pad prod ravel repeat reshape roll squeeze stack std sum swapaxes
    take take_along_axis tile transpose var vstack
"""
WAITING = (
    "argsort argwhere bincount flatnonzero lexsort median nonzero searchsorted sort unique"
)
PRODUCTS = "dot einsum inner matmul tensordot vdot"
SAME = """
    bool_ complex128 complex64 dtype e finfo float16 float32 float64 floating iinfo inf int16 int32
    int64 int8 integer issubdtype nan ndim newaxis pi promote_types result_type uint16 uint32 uint64
    uint8
"""


class RawKernel:
    """A kernel of a source."""

    def __init__(
        self, code: str, name: str, options: tuple[str, ...] = (), backend: str = "nvrtc", *,
        _module: RawModule | None = None, **settings: Any,
    ):
        self.code, self.name, self.options = code, name, options
        self._module = _module or RawModule(code=code, options=options, backend=backend)
        self._most_shared = SHARED

    @property
    def _kernel(self) -> compiler.Kernel:
        return self._module.find(self.name)

    def __call__(
        self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0, stream: Any = None
    ) -> None:
        """Launches it."""
        device.launch(self._kernel, grid, block, args, shared_mem, self._most_shared, stream)

    def compile(self, log_stream: Any = None) -> None:
        """Compiles the source."""
        self._kernel  # noqa: B018

    @property
    def max_threads_per_block(self) -> int:
        """By its launch bounds."""
        return min(self._kernel.most_threads, device.MOST_THREADS)

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        """Most bytes of dynamic shared memory; can be set."""
        return self._most_shared

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        if not 0 <= size <= SHARED_OPT_IN:
            raise device.CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self._most_shared = size


class RawModule:
    """The kernels of a source."""

    def __init__(
        self, *, code: str | None = None, path: str | None = None, options: tuple[str, ...] = (),
        backend: str = "nvrtc", translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False, name_expressions: Any = None, jitify: bool = False,
    ):
        if type(options) is not tuple:
            raise TypeError(f"options must be a tuple, got {type(options)}")
        if type(code) is not str:
            raise TypeError("here a RawModule is made of a source, code=str")
        if any((translate_cucomplex, enable_cooperative_groups, jitify, backend != "nvrtc")):
            raise NotImplementedError("a setting of RawModule that is not known here")
        self.code, self.options = code, options
        self.name_expressions = tuple(name_expressions or ())

    def get_function(self, name: str) -> RawKernel:
        """A kernel by name."""
        self.find(name)
        return RawKernel(self.code, name, self.options, _module=self)

    def find(self, name: str) -> compiler.Kernel:
        """A kernel of the compiled source."""
        try:
            module = compiler.module(self.code, self.options, self.name_expressions)
        except compiler.CompileError as error:
            raise CompileException(str(error)) from None
        if name not in module.kernels:
            why = " (it is not extern \"C\")" if name in module.hidden else ""
            raise device.CUDADriverError(
                f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}{why}"
            )
        return module.kernels[name]

    def compile(self, log_stream: Any = None) -> None:
        """Compiles the source."""
        compiler.module(self.code, self.options, self.name_expressions)


class CompileException(Exception):  # noqa: N818  # CuPy's name
    """A source that does not compile."""


@contextlib.contextmanager
def using_allocator(allocator: Callable[[int], Any] | None = None) -> Iterator[None]:
    """New arrays come from `allocator` within the context."""
    before = state.allocator
    state.allocator = allocator or state.pool.malloc
    try:
        yield
    finally:
        state.allocator = before


def set_allocator(allocator: Callable[[int], Any] | None = None) -> None:
    """New arrays come from `allocator`."""
    state.allocator = allocator or state.pool.malloc


def _is_capturing(pointer: int) -> bool:
    return any(stream.ptr == pointer for stream in state.capturing())


def _stream_synchronize(pointer: int) -> None:
    for stream in state.capturing():
        if stream.ptr == pointer:
            stream.wait("streamSynchronize")
    device.settle()


def _runtime() -> ModuleType:
    runtime = ModuleType("cupy.cuda.runtime")
    vars(runtime).update(
        CUDARuntimeError=device.CUDARuntimeError,
        getDeviceCount=lambda: 1,
        getDevice=lambda: 0,
        setDevice=lambda number: array.Device(number) and None,
        deviceSynchronize=lambda: device.synchronize_all("deviceSynchronize"),
        streamSynchronize=_stream_synchronize,
        streamIsCapturing=_is_capturing,
        memGetInfo=lambda: (array.device_free(), array.device_total()),
        runtimeGetVersion=lambda: 12040,
        driverGetVersion=lambda: 12040,
        getDeviceProperties=lambda number: {
            "name": b"CUDA on the host", "major": 8, "minor": 0, "multiProcessorCount": 4,
            "warpSize": 32, "maxThreadsPerBlock": device.MOST_THREADS,
            "maxThreadsDim": device.MOST_BLOCK, "maxGridSize": device.MOST_GRID,
            "sharedMemPerBlock": SHARED, "sharedMemPerBlockOptin": SHARED_OPT_IN,
            "totalGlobalMem": device.TOTAL, "l2CacheSize": 4 << 20,
        },
        streamCaptureModeGlobal=0, streamCaptureModeThreadLocal=1, streamCaptureModeRelaxed=2,
    )
    return runtime


def _cuda() -> ModuleType:
    cuda = ModuleType("cupy.cuda")
    null = state.streams[0]

    class Stream(device.Stream):
        """As in device.py, with the default stream."""

    Stream.null = null  # type: ignore[attr-defined]
    vars(cuda).update(
        runtime=_runtime(), Stream=Stream, Event=device.Event, Device=array.Device,
        Graph=device.Graph, MemoryPool=device.MemoryPool, MemoryPointer=device.MemoryPointer,
        get_current_stream=lambda device_id=-1: state.stream,
        alloc_pinned_memory=device.alloc_pinned_memory,
        alloc=lambda size: state.allocator(size),
        using_allocator=using_allocator, set_allocator=set_allocator,
        get_allocator=lambda: state.allocator,
        is_available=lambda: True,
        cublas=SimpleNamespace(),
        driver=SimpleNamespace(CUDADriverError=device.CUDADriverError),
        compiler=SimpleNamespace(CompileException=CompileException),
        graph=SimpleNamespace(Graph=device.Graph),
    )
    return cuda


def make() -> dict[str, ModuleType]:
    """Name -> module, of a device that has just been reset."""
    cupy, cuda = ModuleType("cupy"), _cuda()
    for names, wrap in (
        (ELEMENTWISE + OTHERS, array.wrapped), (WAITING, array.waiting), (PRODUCTS, array.product),
        (SAME, lambda same: same),
    ):
        vars(cupy).update({name: wrap(getattr(np, name)) for name in names.split()})
    for name in (
        "ndarray", "empty", "full", "zeros", "ones", "arange", "array", "asarray",
        "ascontiguousarray", "asnumpy", "copyto",
    ):
        setattr(cupy, name, getattr(array, name))
    for name in ("empty", "full", "zeros", "ones"):
        setattr(cupy, f"{name}_like", array.like(getattr(array, name)))
    vars(cupy).update(
        __version__="14.0.0 on the host", cuda=cuda, RawKernel=RawKernel, RawModule=RawModule,
        get_array_module=lambda *args: (
            cupy if any(isinstance(a, array.ndarray) for a in args) else np
        ),
        lib=SimpleNamespace(
            stride_tricks=SimpleNamespace(sliding_window_view=array.sliding_window_view)
        ),
        get_default_memory_pool=lambda: state.pool,
        shares_memory=lambda a, b: np.shares_memory(a._host, b._host),
        may_share_memory=lambda a, b: np.may_share_memory(a._host, b._host),
    )
    return {"cupy": cupy, "cupy.cuda": cuda, "cupy.cuda.runtime": cuda.runtime}
