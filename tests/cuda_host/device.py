"""The device: memory, streams, capture into graphs, and kernel launches.

Work is done at once, in the order in which it is handed over, except on a stream that is being
captured: there it is only recorded, with its arguments by value, and what CUDA forbids fails.
Fresh memory holds NaN (or -1).

A GPU may do the work of two streams in any order, so order must be made: by an event that one
records and the other waits for, or by the host, which waits.  Each stream has a vector clock, which
says up to where it comes after the work of every stream, and memory knows who used which of its
bytes.  Work that uses what other work writes, without coming after it, is a KernelError.
"""

from __future__ import annotations

import ctypes
import re
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from cuda_host import compiler

ALIGNMENT = 512
TOTAL = 80 * 2**30
MOST_THREADS, MOST_GRID = 1024, (2**31 - 1, 65535, 65535)
ERRORS = {
    101: "cudaErrorInvalidDevice: invalid device ordinal",
    401: "cudaErrorIllegalState: the operation cannot be performed in the present state",
    900: "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing",
    901: "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error during "
         "capture",
    905: "cudaErrorStreamCaptureIsolation: dependency created on uncaptured work in another stream",
    906: "cudaErrorStreamCaptureImplicit: operation would make the legacy stream depend on a "
         "capturing blocking stream",
}


class CUDARuntimeError(RuntimeError):
    """An error of the CUDA runtime, by its number."""

    def __init__(self, status: int, what: str = ""):
        super().__init__(f"{ERRORS[status]} {what}")
        self.status = status


class CUDADriverError(RuntimeError):
    """An error of the CUDA driver."""


class KernelError(AssertionError):
    """Something is done that a GPU might not forgive: where, and what."""


Clock = dict[int, int]  # a stream's address -> up to which of its works


class State:
    """What the process has one of; `reset` begins anew."""

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
        self.created: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
        self.clock: Clock = {}  # what the host has waited for
        # Copies from pinned memory that the host has not waited for, and what checks them then.
        self.pending: list[tuple[int, int, Callable[[], None]]] = []
        self.serial = 0  # the number of stretches of memory
        self.pool = MemoryPool()
        self.allocator: Callable[[int], MemoryPointer] = self.pool.malloc
        self.streams: list[Stream] = [Stream(null=True)]  # the last is the current one

    @property
    def stream(self) -> Stream:
        """The current stream."""
        return self.streams[-1]


def _join(clock: Clock, other: Clock) -> None:
    clock.update({key: max(n, clock.get(key, 0)) for key, n in other.items()})


def host_waits(clock: Clock) -> None:
    """Makes all that is done from now on come after what a clock says."""
    _join(state.clock, clock)
    kept, state.pending = state.pending, []
    for entry in kept:
        stream, number, check = entry
        if number > state.clock.get(stream, 0):
            state.pending.append(entry)
        else:
            check()


# Memory.


class Use(NamedTuple):
    """Addresses of device memory that some work reads or writes."""

    begin: int
    end: int
    write: bool
    stream: int = 0
    number: int = 0  # of the work on its stream
    what: str = ""


class Memory:
    """A stretch of device memory: the bytes, the pool that they came from, and who used them."""

    def __init__(self, size: int, pool: MemoryPool):
        space = np.full(size + 2 * ALIGNMENT, 0xFF, np.uint8)
        start = -space.ctypes.data % ALIGNMENT
        self.bytes = space[start : start + size]
        self.ptr, self.size, self.pool = self.bytes.ctypes.data, size, pool
        self.uses: list[Use] = []
        state.serial += 1
        self.serial = state.serial
        state.memory[self.ptr] = self

    def holds(self, address: int, size: int = 1) -> bool:
        """Tell whether these bytes are part of it."""
        return self.ptr <= address and address + size <= self.ptr + self.size

    def use(self, new: Use, clock: Clock) -> None:
        """Complains if a use does not come after earlier ones that it would disturb."""
        kept = []
        for old in self.uses:
            is_after = clock.get(old.stream, 0) >= old.number
            if (old.write or new.write) and old.begin < new.end and new.begin < old.end and (
                not is_after
            ):
                raise KernelError(
                    f"{new.what} {'writes' if new.write else 'reads'} what {old.what} "
                    f"{'writes' if old.write else 'reads'} on another stream, without waiting for "
                    "it: let it wait for an event recorded there"
                )
            # What is known to all, or comes before the new use anyway, needs no mention.
            is_inside = new.begin <= old.begin and old.end <= new.end and new.write >= old.write
            is_known = old.number <= state.clock.get(old.stream, 0)
            if not is_known and not (is_inside and old.stream == new.stream):
                kept.append(old)
        self.uses = [*kept, new]


class MemoryPointer:
    """An address in device memory."""

    def __init__(self, mem: Memory, offset: int):
        self.mem, self.ptr = mem, mem.ptr + offset


class MemoryPool:
    """Memory that arrays come from, by way of `malloc`."""

    def __init__(self) -> None:
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
    first, size = array.ctypes.data, array.nbytes
    return any(a <= first and first + size <= a + m.nbytes for a, m in state.pinned.items())


# Streams.

Needs = tuple[Memory, Use]


class Work:
    """Something to be done, and the memory that it needs, which it does not keep.

    Args:
        run: does it; may return uses of that memory that were not known beforehand.
    """

    def __init__(
        self, run: Callable[[Stream], list[Use] | None], what: str, needs: Iterable[Needs]
    ):
        self.run, self.what = run, what
        self.needs = [(weakref.ref(m), weakref.ref(m.pool), m.size, use) for m, use in needs]

    def do(self, stream: Stream) -> None:
        """Does it now."""
        live = [(memory(), use) for memory, _, _, use in self.needs]
        used = [use for _, use in live]
        with np.errstate(all="ignore"):  # a GPU does not warn
            used += self.run(stream) or []
        for begin, end, write, *_ in used:
            for memory in {m for m, _ in live if m and begin < end and m.holds(begin)}:
                use = Use(begin, end, write, stream.ptr, stream.clock[stream.ptr], self.what)
                memory.use(use, stream.clock)


class Stream:
    """A stream, and a context in which it is the current one."""

    _next = 0x5000

    def __init__(self, null: bool = False, non_blocking: bool = False):
        self.non_blocking = non_blocking
        self.capture: list[Work] | None = None
        self.error = ""  # what spoilt the capture
        Stream._next += 0x10
        self.ptr = 0 if null else Stream._next
        self.clock: Clock = {self.ptr: 0}
        state.created[self.ptr] = self

    def __enter__(self) -> Stream:
        state.streams.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        state.streams.pop()

    def forbid_capture(self, what: str, status: int = 900) -> None:
        """For what cannot be done while capturing."""
        if self.capture is not None:
            self.error = what
            raise CUDARuntimeError(status, f"({what})")

    def synchronize(self, what: str = "Stream.synchronize") -> None:
        """Waits; not while capturing."""
        self.forbid_capture(what)
        host_waits(self.clock)

    def advance(self) -> None:
        """Begins the next work."""
        _join(self.clock, state.clock)
        if not self.non_blocking:  # the default stream and blocking ones wait for each other
            for other in list(state.created.values()):
                if not other.non_blocking and 0 in (self.ptr, other.ptr):
                    _join(self.clock, other.clock)
        self.clock[self.ptr] += 1

    def begin_capture(self) -> None:
        """From now on work is recorded."""
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.capture is not None:
            raise CUDARuntimeError(401)
        self.capture, self.error = [], ""

    def end_capture(self) -> Graph:
        """The graph of what was recorded."""
        work, self.capture = self.capture, None
        if work is None:
            raise CUDARuntimeError(401)
        if self.error:
            raise CUDARuntimeError(901, f"({self.error})")
        return Graph(work)

    def wait_event(self, event: Event) -> None:
        """Later work comes after the event."""
        if event.captured or self.capture is not None:
            if event.captured is not self:
                self.forbid_capture("Stream.wait_event", 905)
                raise NotImplementedError("other streams in a capture are not known here")
            return
        _join(self.clock, event.clock)


class Event:
    """A point in a stream."""

    def __init__(self) -> None:
        self.captured: Stream | None = None
        self.clock: Clock = {}

    def record(self, stream: Stream | None = None) -> None:
        """Records it on a stream, the current one by default."""
        stream = stream or state.stream
        self.captured = None if stream.capture is None else stream
        self.clock = {**stream.clock}
        _join(self.clock, state.clock)

    def synchronize(self) -> None:
        """Waits for it; not where it was captured."""
        if self.captured:
            self.captured.forbid_capture("Event.synchronize")
        host_waits(self.clock)


class Graph:
    """Recorded work, to be replayed."""

    def __init__(self, work: list[Work]):
        self.work = work
        self.serial = state.serial

    def launch(self, stream: Stream | None = None) -> None:
        """Replays it on a stream, the current one by default."""
        self._check_memory()
        for work in self.work:
            submit(work, stream)

    def _check_memory(self) -> None:
        """Memory that was freed since must at least be kept, by a pool that nobody else uses."""
        for work in self.work:
            for memory, pool, size, _ in work.needs:
                if memory() is not None:
                    continue
                kept = pool()
                uses = f"Graph.launch: {work.what} uses an array of {size} bytes that "
                if kept is None or kept is state.pool:
                    raise KernelError(
                        f"{uses} has been freed since it was recorded; its memory may belong to "
                        "others. Keep it, or record with a memory pool of the graph's own, kept "
                        "as long as the graph"
                    )
                if any(m.serial > self.serial for m in kept.blocks):
                    raise KernelError(
                        f"{uses} was freed to a memory pool from which other arrays have been made "
                        "since"
                    )


def submit(work: Work, stream: Stream | None = None) -> None:
    """Does some work now, or records it where the stream is being captured."""
    stream = stream or state.stream
    if stream.capture is not None:
        stream.capture.append(work)
        return
    for other in list(state.created.values()) if stream.ptr == 0 else ():
        if not other.non_blocking:
            other.forbid_capture(f"{work.what} on the default stream", 906)
    stream.advance()
    work.do(stream)


# Kernels.


class _Index(ctypes.Structure):
    _fields_ = (("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint))


class _Range(ctypes.Structure):
    _fields_ = (
        ("begin", ctypes.c_size_t), ("end", ctypes.c_size_t), ("grain", ctypes.c_int),
        ("argument", ctypes.c_int), ("constant", ctypes.c_int), ("cells", ctypes.c_void_p),
        ("touched", ctypes.c_size_t * 2 * 2),
    )


class _Launch(ctypes.Structure):
    _fields_ = (
        ("kernel", ctypes.c_void_p), ("values", ctypes.c_void_p), ("grid", _Index),
        ("block", _Index), ("seed", ctypes.c_uint64), ("ranges", ctypes.c_void_p),
        ("count", ctypes.c_int), ("races", ctypes.c_int),
    )


class Argument:
    """A kernel's argument as CuPy passes it: bytes, and the addresses that a pointer may reach."""

    def __init__(self, value: Any, parameter: compiler.Parameter):
        self.memory: Memory | None = None
        self.span = 0, 0
        kind = parameter.kind.decode()
        if hasattr(value, "_host"):
            self.memory, self.span = value.data.mem, value.span
            self.text = f"a {value.dtype} array of shape {value.shape}"
            number: Any = np.uint64(value.data.ptr)
            fits = value.dtype.kind == kind and value.dtype.itemsize == parameter.element
        else:
            if not isinstance(value, int | float | np.generic):
                raise TypeError(f"Unsupported type {type(value)}")
            # CuPy passes Python's numbers in 64 bits.
            wide: type = np.float64 if isinstance(value, float) else np.int64
            number = value if isinstance(value, np.generic) else wide(value)
            self.text = f"{number.dtype} {value}"
            is_whole = number.dtype.kind in "iu"
            if parameter.element:  # an address, or null
                fits = is_whole
                if fits and number:
                    self.memory = memory_at(int(number), 1, "a kernel's argument")
                    self.span = self.memory.ptr, self.memory.ptr + self.memory.size
            else:
                fits = number.dtype.kind == kind or (
                    is_whole and kind in "iu" and 0 <= number < 2 ** (8 * parameter.size - 1)
                )
            fits = fits and number.dtype.itemsize == parameter.size
        if not fits:
            raise TypeError(
                f"{self.text} is given, but the kernel takes {parameter}; pass an array, or a "
                "NumPy scalar, of its type"
            )
        if parameter.element and int(number) % parameter.element:
            raise KernelError(f"{self.text} at {int(number):#x} is not aligned for {parameter}")
        self.bytes = number.tobytes()


def launch(kernel: compiler.Kernel, grid: Any, block: Any, args: Any) -> None:
    """Runs or records a kernel as cupy.RawKernel does."""
    what = f"kernel {kernel.name}"
    for size in (grid, block):
        if type(size) is not tuple or not all(isinstance(n, int | np.integer) for n in size):
            raise TypeError(f"{what}: grid and block are tuples of whole numbers, got {size!r}")
    # CuPy makes at least one of each, so a kernel must itself see that there is nothing to do.
    grid, block = (tuple(max(1, int(n)) for n in (*t, 1, 1)[:3]) for t in (grid, block))
    most = zip((int(np.prod(block)), block[2], *grid), (MOST_THREADS, 64, *MOST_GRID), strict=True)
    if any(n > limit for n, limit in most):
        raise CUDADriverError(
            f"CUDA_ERROR_INVALID_VALUE: invalid argument ({what}: grid {grid}, block {block})"
        )
    if len(args) != len(kernel.parameters):
        raise TypeError(f"{what} takes {len(kernel.parameters)} arguments, got {len(args)}")
    arguments = []
    for i, (value, parameter) in enumerate(zip(args, kernel.parameters, strict=True)):
        try:
            arguments.append(Argument(value, parameter))
        except (TypeError, KernelError) as error:
            raise type(error)(f"{what}: argument {i}: {error}") from None
    needs = [(a.memory, Use(a.span[0], a.span[0], False)) for a in arguments if a.memory]
    for a in arguments:
        a.memory = None  # which a graph does not keep
    submit(Work(lambda stream: _run(kernel, grid, block, arguments), what, needs))


def _run(
    kernel: compiler.Kernel, grid: tuple[int, ...], block: tuple[int, ...],
    arguments: list[Argument],
) -> list[Use]:
    """Returns what the kernel used."""
    values = [ctypes.create_string_buffer(a.bytes, len(a.bytes)) for a in arguments]
    pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
    merged: list[list[int]] = []  # as one array may be several arguments
    for span in sorted(
        [*a.span, p.element, i, p.constant]
        for i, (a, p) in enumerate(zip(arguments, kernel.parameters, strict=True)) if any(a.span)
    ):
        if merged and span[0] < merged[-1][1]:
            merged[-1][1] = max(span[1], merged[-1][1])
            merged[-1][2] = min(span[2], merged[-1][2])
            merged[-1][4] &= span[4]
        else:
            merged.append(span)
    merged.append([*kernel.module.shared, 4, -1, 0])
    ranges = (_Range * len(merged))(*(_Range(*span) for span in merged))
    if state.seed:
        state.seed = (state.seed * 6364136223846793005 + 1442695040888963407) % 2**64 or 1
    launching = _Launch(
        kernel.address, ctypes.addressof(pointers), _Index(*grid), _Index(*block), state.seed,
        ctypes.addressof(ranges), len(merged), int(state.races),
    )
    instruction = ctypes.c_int64(-1)
    state.launches.append(kernel.name)
    reason = compiler.library_of_runtime().cuda_host_launch(
        ctypes.byref(launching), ctypes.byref(instruction)
    )
    if reason:
        message = re.sub(
            r"argument (\d+)", lambda m: f"{m[0]} ({arguments[int(m[1])].text})", reason.decode()
        )
        raise KernelError(f"kernel {kernel.name}{kernel.module.line(instruction.value)}: {message}")
    return [
        Use(begin, end, bool(write)) for r in ranges[:-1]
        for write, (begin, end) in enumerate(r.touched) if end
    ]


state = State()
state.reset()
