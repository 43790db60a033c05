"""The device: memory, streams, capture into graphs, and kernel launches.

Work is done at once, in the order in which it is handed over, except on a stream that is being
captured: there it is only recorded, with its arguments by value, and what CUDA forbids fails.
Fresh memory holds NaN (or -1).
"""

from __future__ import annotations

import ctypes
import re
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from cuda_host import compiler

ALIGNMENT = 512
MOST_THREADS, MOST_BLOCK, MOST_GRID = 1024, (1024, 1024, 64), (2**31 - 1, 65535, 65535)
SHARED, SHARED_OPT_IN = 48 * 1024, 227 * 1024  # bytes for a block: always, and on request
TOTAL = 80 * 2**30
POINTED = 1000  # added to an argument's number: what it holds addresses of; see runtime.cpp


class CUDARuntimeError(RuntimeError):
    """An error of the CUDA runtime."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


class CUDADriverError(RuntimeError):
    """An error of the CUDA driver."""


class KernelError(AssertionError):
    """A kernel does what a GPU might not forgive: which one, where, and what."""


UNSUPPORTED = (900, "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is "
                    "capturing")
INVALIDATED = (901, "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error "
                    "during capture")
UNJOINED = (904, "cudaErrorStreamCaptureUnjoined: capturing stream has unjoined work")
ISOLATION = (905, "cudaErrorStreamCaptureIsolation: dependency created on uncaptured work in "
                  "another stream")
IMPLICIT = (906, "cudaErrorStreamCaptureImplicit: operation would make the legacy stream depend on "
                 "a capturing blocking stream")
ILLEGAL_STATE = (401, "cudaErrorIllegalState: the operation cannot be performed in the present "
                      "state")


class State:
    """What the process has one of; `reset` begins anew."""

    def __init__(self) -> None:
        self.reset()

    def reset(self, seed: int = 0, races: bool = True) -> None:
        """Forgets streams and memory.

        Args:
            seed: of the order in which blocks and threads run; 0 runs them by number.
            races: whether kernels are watched for races.
        """
        self.seed, self.races = seed, races
        self.launches: list[str] = []  # names of the kernels that ran
        self.memory: weakref.WeakValueDictionary[int, Memory] = weakref.WeakValueDictionary()
        self.pinned: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()
        # Copies to and from pinned memory: when they were handed over, and what finishes them.
        self.pending: list[tuple[int, Callable[[], None]]] = []
        self.time = 0  # the number of such copies
        self.serial = 0  # the number of stretches of memory
        self.pool = MemoryPool()
        self.allocator: Callable[[int], MemoryPointer] = self.pool.malloc
        self.streams: list[Stream] = [Stream(null=True)]
        self.created: list[weakref.ref[Stream]] = []

    @property
    def stream(self) -> Stream:
        """The current stream."""
        return self.streams[-1]

    def capturing(self) -> list[Stream]:
        """The streams that are being captured."""
        alive = (reference() for reference in self.created)
        return [stream for stream in alive if stream is not None and stream.capture is not None]


# Memory.


class Memory:
    """A stretch of device memory: the bytes, and the pool that they came from."""

    def __init__(self, size: int, pool: MemoryPool | None):
        space = np.full(size + 2 * ALIGNMENT, 0xFF, np.uint8)
        start = -space.ctypes.data % ALIGNMENT
        self.bytes = space[start : start + size]
        self.ptr = self.bytes.ctypes.data
        self.size = size
        self.pool = pool
        self.device_id = 0
        state.serial += 1
        self.serial = state.serial
        state.memory[self.ptr] = self

    def holds(self, address: int, size: int = 1) -> bool:
        """Tell whether these bytes are part of it."""
        return self.ptr <= address and address + size <= self.ptr + self.size


class MemoryPointer:
    """An address in device memory."""

    def __init__(self, mem: Memory, offset: int):
        self.mem, self.ptr, self.device_id = mem, mem.ptr + offset, 0

    def __int__(self) -> int:
        return self.ptr

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)


class MemoryPool:
    """Memory that arrays come from, by way of `malloc`."""

    def __init__(self, allocator: Any = None):
        self.blocks: weakref.WeakSet[Memory] = weakref.WeakSet()

    def malloc(self, size: int) -> MemoryPointer:
        """Fresh memory, which holds no zeros."""
        memory = Memory(size, self)
        self.blocks.add(memory)
        return MemoryPointer(memory, 0)


def memory_at(address: int, size: int, what: str) -> Memory:
    """The live memory that holds these bytes."""
    for memory in list(state.memory.values()):
        if memory.holds(address, size):
            return memory
    raise KernelError(
        f"{what}: {size} bytes at {address:#x} are not inside of one array in device memory "
        "(freed, of the host, or cut off to 32 bits?)"
    )


def alloc_pinned_memory(size: int) -> np.ndarray:
    """Page-locked memory of the host: a buffer of bytes, as `numpy.frombuffer` takes it."""
    memory = np.full(size, 0xFF, np.uint8)
    state.pinned[memory.ctypes.data] = memory
    return memory


def is_pinned(array: np.ndarray) -> bool:
    """Tell whether an array of the host is in page-locked memory."""
    first = array.ctypes.data
    return any(
        start <= first and first + array.nbytes <= start + memory.nbytes
        for start, memory in list(state.pinned.items())
    )


# Streams.


class Work:
    """Something recorded, and the memory that it needs."""

    def __init__(self, run: Callable[[], None], memories: Iterable[Memory], what: str):
        self.run, self.what = run, what
        self.memories = [
            (weakref.ref(m), weakref.ref(m.pool) if m.pool else None, m.size) for m in memories
        ]


class Capture:
    """What has been recorded on a stream, and on others that joined it."""

    def __init__(self, origin: Stream):
        self.origin = origin
        self.work: list[Work] = []
        self.error: str | None = None
        self.unjoined: set[Stream] = set()


class Stream:
    """A stream, and a context in which it is the current one."""

    _next = 0x5000

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False):
        self.non_blocking = non_blocking
        self.capture: Capture | None = None
        if null:
            self.ptr = 0
        else:
            Stream._next += 0x10
            self.ptr = Stream._next
            state.created.append(weakref.ref(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

    def __enter__(self) -> Stream:
        state.streams.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        state.streams.pop()

    def use(self) -> Stream:
        """Makes this the current stream."""
        state.streams[-1] = self
        return self

    @property
    def done(self) -> bool:
        """All work is done at once."""
        self.wait("Stream.done")
        return True

    def synchronize(self) -> None:
        """Waits; not while capturing."""
        self.wait("Stream.synchronize")

    def wait(self, what: str) -> None:
        """What waits for this stream comes here."""
        if self.capture is not None:
            self.capture.error = what
            raise CUDARuntimeError(UNSUPPORTED[0], f"{UNSUPPORTED[1]} ({what})")
        settle()

    def begin_capture(self, mode: int | None = None) -> None:
        """From now on work is recorded."""
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.capture is not None:
            raise CUDARuntimeError(*ILLEGAL_STATE)
        self.capture = Capture(self)

    def end_capture(self) -> Graph:
        """The graph of what was recorded."""
        capture = self.capture
        if capture is None or capture.origin is not self:
            raise CUDARuntimeError(*ILLEGAL_STATE)
        for stream in state.capturing():
            if stream.capture is capture:
                stream.capture = None
        if capture.error:
            raise CUDARuntimeError(INVALIDATED[0], f"{INVALIDATED[1]} ({capture.error})")
        if capture.unjoined:
            raise CUDARuntimeError(*UNJOINED)
        return Graph(capture.work)

    def is_capturing(self) -> bool:
        """Tell whether work is recorded."""
        return self.capture is not None

    def record(self, event: Event | None = None) -> Event:
        """Records an event, a new one if need be."""
        event = event or Event()
        event.capture, event.stream, event.time = self.capture, self, state.time
        return event

    def wait_event(self, event: Event) -> None:
        """Later work comes after the event; joins the capture that the event is part of."""
        if event.capture is None:
            if self.capture is not None and event.stream is not None:
                self.capture.error = "Stream.wait_event"
                raise CUDARuntimeError(*ISOLATION)
            return
        if self.capture is None:
            if self.ptr == 0:
                raise CUDARuntimeError(*IMPLICIT)
            self.capture = event.capture
            self.capture.unjoined.add(self)
        elif event.stream is not None:
            self.capture.unjoined.discard(event.stream)

    def __repr__(self) -> str:
        return f"<Stream {self.ptr} (device 0)>"


class Event:
    """A point in a stream."""

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ):
        self.disable_timing = disable_timing
        self.capture: Capture | None = None
        self.stream: Stream | None = None
        self.time = 0

    def record(self, stream: Stream | None = None) -> None:
        """Records it on a stream, the current one by default."""
        (stream or state.stream).record(self)

    def synchronize(self) -> None:
        """Waits for it; not where it was captured."""
        if self.capture is not None:
            self.capture.error = "Event.synchronize"
            raise CUDARuntimeError(UNSUPPORTED[0], f"{UNSUPPORTED[1]} (Event.synchronize)")
        settle(self.time)

    @property
    def done(self) -> bool:
        """Tell whether what came before it is done: all is done at once."""
        self.synchronize()
        return True


class Graph:
    """Recorded work, to be replayed."""

    def __init__(self, work: list[Work]):
        self.work = work
        self.serial = state.serial

    def launch(self, stream: Stream | None = None) -> None:
        """Replays it on a stream, the current one by default."""
        self._check_memory()

        def run() -> None:
            for work in self.work:
                work.run()

        submit(run, [], "Graph.launch", stream)

    def _check_memory(self) -> None:
        """Memory that was freed since must at least be kept, by a pool that nobody else uses."""
        for work in self.work:
            for memory, pool, size in work.memories:
                if memory() is not None:
                    continue
                kept = pool() if pool else None
                if kept is None or kept is state.pool:
                    raise KernelError(
                        f"Graph.launch: {work.what} uses an array of {size} bytes that has been "
                        "freed since it was recorded; its memory may belong to others. Keep it, or "
                        "record with a memory pool of the graph's own, kept as long as the graph"
                    )
                if any(m.serial > self.serial for m in kept.blocks):
                    raise KernelError(
                        f"Graph.launch: {work.what} uses an array of {size} bytes that was freed "
                        "to a memory pool from which other arrays have been made since"
                    )


def submit(
    run: Callable[[], None], memories: Iterable[Memory], what: str, stream: Stream | None = None
) -> None:
    """Does some work now, or records it where the stream is being captured."""
    stream = stream or state.stream
    if stream.capture is not None:
        stream.capture.work.append(Work(run, memories, what))
        return
    if stream.ptr == 0:
        for other in state.capturing():
            if not other.non_blocking and other.capture is not None:
                other.capture.error = f"{what} on the default stream"
                raise CUDARuntimeError(*IMPLICIT)
    with np.errstate(all="ignore"):  # a GPU does not warn
        run()


def forbid_capture(what: str) -> None:
    """For what cannot be recorded on the current stream."""
    state.stream.wait(what)


def later(finish: Callable[[], None]) -> None:
    """For a copy to or from pinned memory: what is done when somebody has waited for it."""
    state.time += 1
    state.pending.append((state.time, finish))


def settle(time: int | None = None) -> None:
    """Finishes copies to and from pinned memory, all or those handed over up to a time."""
    ready = [p for p in state.pending if time is None or p[0] <= time]
    state.pending = [p for p in state.pending if p not in ready]
    for _, finish in ready:
        finish()


def synchronize_all(what: str) -> None:
    """Waits for every stream."""
    for stream in state.capturing():
        stream.wait(what)
    settle()


# Kernels.


class _Index(ctypes.Structure):
    _fields_ = (("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint))


class _Range(ctypes.Structure):
    _fields_ = (
        ("begin", ctypes.c_size_t), ("end", ctypes.c_size_t), ("grain", ctypes.c_int),
        ("argument", ctypes.c_int), ("constant", ctypes.c_int), ("cells", ctypes.c_void_p),
    )


class _Launch(ctypes.Structure):
    _fields_ = (
        ("kernel", ctypes.c_void_p), ("values", ctypes.c_void_p), ("grid", _Index),
        ("block", _Index), ("seed", ctypes.c_uint64), ("shared_begin", ctypes.c_void_p),
        ("shared_end", ctypes.c_void_p), ("dynamic", ctypes.c_size_t), ("ranges", ctypes.c_void_p),
        ("count", ctypes.c_int), ("races", ctypes.c_int),
    )


class Argument:
    """A kernel's argument as CuPy passes it: bytes, and the memory that a pointer may reach."""

    def __init__(self, value: Any):
        self.memory: Memory | None = None
        self.span: tuple[int, int] | None = None  # addresses that may be used
        self.dtype: np.dtype
        self.shape: tuple[int, ...] | None = None  # of an array in device memory
        if hasattr(value, "_host"):
            self.memory = value.data.mem
            self.dtype, self.shape = value.dtype, value.shape
            self.span = np.lib.array_utils.byte_bounds(value._host) if value.size else None
            self.bytes = np.int64(value.data.ptr).tobytes()
            self.text = f"a {value.dtype} array of shape {value.shape}"
            return
        if isinstance(value, MemoryPointer):
            self._take_pointer(value.ptr)
            self.bytes, self.dtype = np.int64(value.ptr).tobytes(), np.dtype("uint64")
            self.text = "a MemoryPointer"
            return
        kind = type(value)
        if kind in (int, bool):  # bool is an int, to CuPy as to Python
            number: Any = np.int64(value)
        elif kind is float:
            number = np.float64(value)
        elif kind is complex:
            number = np.complex128(value)
        elif isinstance(value, np.ndarray) and value.size == 1:
            number = value.reshape(())[()]  # by value, as CuPy does
        elif isinstance(value, np.generic):
            number = value
        elif value is None:
            raise TypeError("None is not an array: pass numpy.uint64(0) for a null pointer")
        else:
            raise TypeError(f"Unsupported type {kind}")
        self.bytes, self.dtype = number.tobytes(), number.dtype
        python = f"a Python {kind.__name__}, which CuPy passes as " if kind.__module__ == (
            "builtins") else ""
        self.text = f"{python}{self.dtype.name} {number}"
        self.number = number

    def _take_pointer(self, address: int) -> None:
        self.memory = memory_at(address, 1, "a kernel's argument")
        self.span = self.memory.ptr, self.memory.ptr + self.memory.size

    def pointed(self) -> list[Memory]:
        """The memory that a table of addresses points to."""
        if self.shape is None or self.dtype != np.uint64 or not self.span or self.memory is None:
            return []
        start, stop = (address - self.memory.ptr for address in self.span)
        addresses = {int(n) for n in self.memory.bytes[start:stop].view(np.uint64)}
        return [m for m in list(state.memory.values()) if any(map(m.holds, addresses))]

    def fit(self, parameter: compiler.Parameter, where: str) -> None:
        """Complains where the kernel would read something else than was meant."""
        wrong = f"{where} is {self.text}, but the kernel takes {parameter}"
        size, kind = self.dtype.itemsize, self.dtype.kind
        if parameter.element:
            if self.shape is None and self.span is None:
                if kind not in "iu" or size != 8:
                    raise TypeError(f"{wrong}; pass an array")
                if int(self.number):
                    self._take_pointer(int(self.number))
            elif self.shape is not None and parameter.kind not in "vV":
                vector = parameter.kind.isupper()
                fits = kind == parameter.kind.lower() and (
                    size in (parameter.element // 2, parameter.element // 4) if vector
                    else size == parameter.element
                )
                if not fits:
                    raise TypeError(wrong)
            return
        if self.shape is not None:
            raise TypeError(f"{wrong}; an array is passed as the address of its memory")
        whole = kind in "iub" and parameter.kind in "iub"
        if size != parameter.size or not (kind == parameter.kind or whole or
                                          parameter.kind in "VIUF" or kind == "V"):
            raise TypeError(f"{wrong}; pass a NumPy scalar of its type")
        if whole and kind != parameter.kind and int(self.number) != int(
            np.array(self.number).view(f"{parameter.kind}{size}" if parameter.kind in "iu" else "?")
        ):
            raise TypeError(f"{wrong}, which cannot hold it")


def launch(
    kernel: compiler.Kernel, grid: Any, block: Any, args: Any, shared_mem: int, most_shared: int,
    stream: Stream | None,
) -> None:
    """Runs or records a kernel as cupy.RawKernel does."""
    for name, value in (("grid", grid), ("block", block)):
        if type(value) is not tuple:
            raise TypeError(f"kernel {kernel.name}: {name} must be a tuple, got {value!r}")
        for n in value:
            if not isinstance(n, int | np.integer):
                raise TypeError(f"kernel {kernel.name}: {name} must hold whole numbers: {value!r}")
    # CuPy makes at least one of each, so a kernel must itself see that there is nothing to do.
    grid, block = (tuple(max(1, int(n)) for n in (*t, 1, 1)[:3]) for t in (grid, block))
    threads = int(np.prod(block))
    _check_limits(kernel, grid, block, threads, shared_mem, most_shared)
    if len(args) != len(kernel.parameters):
        raise TypeError(
            f"kernel {kernel.name} takes {len(kernel.parameters)} arguments, got {len(args)}"
        )
    arguments = []
    for i, (value, parameter) in enumerate(zip(args, kernel.parameters, strict=True)):
        where = f"kernel {kernel.name}: argument {i}"
        try:
            arguments.append(Argument(value))
        except TypeError as error:
            raise TypeError(f"{where}: {error}") from None
        arguments[-1].fit(parameter, where)
    memories = [a.memory for a in arguments if a.memory is not None]

    def run() -> None:
        _run(kernel, grid, block, shared_mem, arguments)

    submit(run, memories, f"kernel {kernel.name}", stream)


def _check_limits(
    kernel: compiler.Kernel, grid: tuple[int, ...], block: tuple[int, ...], threads: int,
    shared_mem: int, most_shared: int,
) -> None:
    over = [n > most for n, most in zip((*block, *grid), (*MOST_BLOCK, *MOST_GRID), strict=True)]
    most = min(kernel.most_threads, MOST_THREADS)
    if threads > most or any(over):
        raise CUDADriverError(
            f"CUDA_ERROR_INVALID_VALUE: invalid argument (kernel {kernel.name}: grid {grid}, "
            f"block {block}; at most {most} threads in a block, blocks of {MOST_BLOCK} and grids "
            f"of {MOST_GRID})"
        )
    if not 0 <= shared_mem <= most_shared:
        raise CUDADriverError(
            f"CUDA_ERROR_INVALID_VALUE: invalid argument (kernel {kernel.name}: {shared_mem} bytes "
            f"of shared memory, of {most_shared}; see max_dynamic_shared_size_bytes)"
        )


def _run(
    kernel: compiler.Kernel, grid: tuple[int, ...], block: tuple[int, ...], shared_mem: int,
    arguments: list[Argument],
) -> None:
    values = [ctypes.create_string_buffer(a.bytes, max(len(a.bytes), 1)) for a in arguments]
    pointers = (ctypes.c_void_p * max(len(values), 1))(*map(ctypes.addressof, values))
    spans = sorted(
        [
            (*a.span, a.dtype.itemsize if a.shape is not None else p.element, i, int(p.constant))
            for i, (a, p) in enumerate(zip(arguments, kernel.parameters, strict=True)) if a.span
        ] + [
            (m.ptr, m.ptr + m.size, 4, POINTED + i, 0)
            for i, a in enumerate(arguments) for m in a.pointed()
        ]
    )
    merged: list[list[int]] = []  # as one array may be several arguments
    for span in spans:
        if merged and span[0] < merged[-1][1]:
            merged[-1][1] = max(span[1], merged[-1][1])
            merged[-1][2] = min(span[2], merged[-1][2])
            merged[-1][4] &= span[4]
        else:
            merged.append(list(span))
    ranges = (_Range * max(len(merged), 1))(*(_Range(*span) for span in merged))
    begin, size = kernel.module.shared
    seed = 0
    if state.seed:
        state.seed = (state.seed * 6364136223846793005 + 1442695040888963407) % 2**64 or 1
        seed = state.seed
    launching = _Launch(
        kernel.address, ctypes.addressof(pointers), _Index(*grid), _Index(*block), seed, begin,
        begin + size, shared_mem, ctypes.addressof(ranges), len(merged), int(state.races),
    )
    instruction = ctypes.c_int64(-1)
    library = compiler.runtime()
    state.launches.append(kernel.name)
    if library.cuda_host_launch(ctypes.byref(launching), ctypes.byref(instruction)):
        message = library.cuda_host_message().decode()

        def describe(match: re.Match[str]) -> str:
            return f"{match[0]} ({arguments[int(match[1])].text})"

        message = re.sub(r"argument (\d+)", describe, message)
        raise KernelError(f"kernel {kernel.name}{kernel.module.line(instruction.value)}: {message}")


state = State()
