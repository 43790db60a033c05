"""The device: memory, streams, capture into graphs, and kernel launches.

Work is done at once, in the order in which it is handed over, except on a stream that is being
captured: there it is only recorded, with its arguments by value, and what CUDA forbids fails.
Fresh memory holds NaN (or -1).

A GPU may do the work of two streams in any order, so order must be made: by an event that one
records and the other waits for, or by the host, which waits.  Each stream has a vector clock, which
says up to where it comes after the work of every stream, and memory knows who used which of its
bytes.  Work that uses what other work writes, without coming after it, is a KernelError.
"""

import ctypes
import re
import weakref
from typing import NamedTuple

import numpy as np

from cuda_host import compiler

ALIGNMENT = 512
TOTAL = 80 * 2**30
MOST = (1024, 64, 2**31 - 1, 65535, 65535)  # threads, along z too, and blocks
ERRORS = {
    101: "cudaErrorInvalidDevice: invalid device ordinal",
    401: "cudaErrorIllegalState: the operation cannot be performed in the present state",
    900: "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing",
    901: "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error",
    905: "cudaErrorStreamCaptureIsolation: dependency created on uncaptured work in another stream",
}


class CUDARuntimeError(RuntimeError):
    """An error of the CUDA runtime, by its number."""

    def __init__(self, status, what=""):
        super().__init__(f"{ERRORS[status]} {what}")
        self.status = status


class CUDADriverError(RuntimeError):
    """An error of the CUDA driver."""


class KernelError(AssertionError):
    """Something is done that a GPU might not forgive: where, and what."""


class State:
    """All that the process has one of; `reset` begins anew, see `cuda_host.installed`."""

    cells = np.zeros(0, np.uint64)  # who touched which bytes: see runtime.cpp

    def reset(self, seed=0, races=True):
        self.seed, self.races = seed, races
        self.launches = []  # names of the kernels that ran
        self.memory, self.created, self.pinned = (weakref.WeakValueDictionary() for _ in range(3))
        self.clock = {}  # what the host has waited for
        # Copies from pinned memory that the host has not waited for, and what checks them then.
        self.pending = []
        self.serial = 0  # the number of stretches of memory
        self.pool = MemoryPool()
        self.allocator = self.pool.malloc
        self.streams = [Stream(null=True)]  # the last is the current one

    stream = property(lambda self: self.streams[-1])


def _join(clock, other):
    """Make a clock, {a stream's address: up to which of its works}, come after another, too."""
    clock.update({key: max(n, clock.get(key, 0)) for key, n in other.items()})


def host_waits(clock):
    """Make all that is done from now on come after what a clock says."""
    _join(state.clock, clock)
    pending, state.pending = state.pending, []
    for stream, number, check in pending:
        if number > state.clock.get(stream, 0):
            state.pending.append((stream, number, check))
        else:
            check()


# Memory.


class Use(NamedTuple):
    """Addresses of device memory that some work reads or writes; the work's number on a stream."""

    begin: int
    end: int
    write: bool
    stream: int = 0
    number: int = 0
    what: str = ""


class Memory:
    """A stretch of device memory: the bytes, the pool that they came from, and who used them."""

    def __init__(self, size, pool):
        space = np.full(size + 2 * ALIGNMENT, 0xFF, np.uint8)
        start = -space.ctypes.data % ALIGNMENT
        self.bytes = space[start : start + size]
        self.ptr, self.size, self.pool, self.uses = self.bytes.ctypes.data, size, pool, []
        state.serial += 1
        self.serial = state.serial
        state.memory[self.ptr] = self

    def holds(self, address, size=1):
        return self.ptr <= address and address + size <= self.ptr + self.size

    def use(self, new, clock):
        """Complain if a use does not come after earlier ones that it would disturb."""
        for old in self.uses:
            overlaps = old.begin < new.end and new.begin < old.end and (old.write or new.write)
            if overlaps and clock.get(old.stream, 0) < old.number:
                raise KernelError(
                    f"{new.what} {'writes' if new.write else 'reads'} what {old.what} "
                    f"{'writes' if old.write else 'reads'} on another stream, without waiting for "
                    "it: let it wait for an event recorded there"
                )
        # Uses that the host has waited for, or that the new one hides, can be forgotten.
        self.uses = [new] + [
            old
            for old in self.uses
            if old.number > state.clock.get(old.stream, 0)
            and not (
                old.stream == new.stream
                and new.begin <= old.begin
                and old.end <= new.end
                and new.write >= old.write
            )
        ]


class MemoryPointer:
    """An address in device memory."""

    def __init__(self, mem, offset):
        self.mem, self.ptr = mem, mem.ptr + offset


class MemoryPool:
    """Memory that arrays come from, by way of `malloc`."""

    def __init__(self):
        self.blocks, self.kept = weakref.WeakSet(), []

    def malloc(self, size):
        memory = Memory(size, self)
        self.blocks.add(memory)
        if self is not state.pool:  # whose graph may use what arrays have freed
            self.kept.append(memory.bytes)
        return MemoryPointer(memory, 0)


def memory_at(address, size, what):
    """Find the live memory that holds these bytes."""
    first = state.memory.get(address)  # most arrays begin where their memory does
    for memory in [first] if first else list(state.memory.values()):
        if memory.holds(address, size):
            return memory
    raise KernelError(
        f"{what}: {size} bytes at {address:#x} are not inside of one array in device memory "
        "(freed, of the host, or cut off to 32 bits?)"
    )


def alloc_pinned_memory(size):
    """Make page-locked memory of the host: a buffer of bytes, as `numpy.frombuffer` takes it."""
    memory = np.full(size, 0xFF, np.uint8)
    state.pinned[memory.ctypes.data] = memory
    return memory


def is_pinned(array):
    first, size = array.ctypes.data, array.nbytes
    return any(a <= first and first + size <= a + m.nbytes for a, m in state.pinned.items())


# Streams.


class Work:
    """Something to be done, and the memory that it needs, which it does not keep.

    Args:
        run: does it on a stream; may return uses of that memory that were not known beforehand.
        needs: (Memory, Use) of each array.
    """

    def __init__(self, run, what, needs):
        self.run, self.what = run, what
        self.needs = [(weakref.ref(m), weakref.ref(m.pool), m.size, use) for m, use in needs]

    def do(self, stream):
        memories = {memory() for memory, *_ in self.needs} - {None}
        uses = [use for *_, use in self.needs]
        with np.errstate(all="ignore"):  # a GPU does not warn
            uses += self.run(stream) or []
        for begin, end, write, *_ in uses:
            use = Use(begin, end, write, stream.ptr, stream.clock[stream.ptr], self.what)
            for memory in memories:
                if begin < end and memory.holds(begin):
                    memory.use(use, stream.clock)


class Stream:
    """A stream, and a context in which it is the current one."""

    _next = 0x5000

    def __init__(self, null=False, non_blocking=False):
        if not null and not non_blocking:
            raise NotImplementedError("streams that wait for the default one are not known here")
        self.capture = None  # a list of Work
        self.error = ""  # what spoilt the capture
        Stream._next += 0x10
        self.ptr = 0 if null else Stream._next
        self.clock = {self.ptr: 0}
        state.created[self.ptr] = self

    def __enter__(self):
        state.streams.append(self)
        return self

    def __exit__(self, *error):
        state.streams.pop()

    def forbid_capture(self, what, status=900):
        """Complain while capturing."""
        if self.capture is not None:
            self.error = what
            raise CUDARuntimeError(status, f"({what})")

    def synchronize(self, what="Stream.synchronize"):
        self.forbid_capture(what)
        host_waits(self.clock)

    def begin_capture(self):
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.capture is not None:
            raise CUDARuntimeError(401)
        self.capture, self.error = [], ""

    def end_capture(self):
        work, self.capture = self.capture, None
        if work is None:
            raise CUDARuntimeError(401)
        if self.error:
            raise CUDARuntimeError(901, f"({self.error})")
        return Graph(work)

    def wait_event(self, event):
        if event.captured is not self:
            self.forbid_capture("Stream.wait_event", 905)
            if event.captured:
                raise NotImplementedError("other streams in a capture are not known here")
            _join(self.clock, event.clock)


class Event:
    """A point in a stream, which may be one that is being captured."""

    def __init__(self):
        self.captured, self.clock = None, {}

    def record(self, stream=None):
        stream = stream or state.stream
        self.captured = None if stream.capture is None else stream
        self.clock = {**stream.clock}

    def synchronize(self):
        if self.captured:
            self.captured.forbid_capture("Event.synchronize")
        host_waits(self.clock)


class Graph:
    """Recorded work, to be replayed."""

    def __init__(self, work):
        self.work, self.serial = work, state.serial

    def launch(self, stream=None):
        for work in self.work:
            for memory, pool, size, _ in work.needs:
                if memory() is None:
                    self._check_freed(pool(), f"{work.what} uses an array of {size} bytes that")
            submit(work, stream)

    def _check_freed(self, pool, what):
        """Complain unless a pool that nobody else uses keeps memory that was freed."""
        if pool is None or pool is state.pool:
            raise KernelError(
                f"Graph.launch: {what} has been freed since it was recorded; its memory may belong "
                "to others. Keep it, or record with a memory pool of the graph's own, kept as long "
                "as the graph"
            )
        if any(memory.serial > self.serial for memory in pool.blocks):
            raise KernelError(
                f"Graph.launch: {what} was freed to a memory pool from which other arrays have "
                "been made since"
            )


def submit(work, stream=None):
    """Do some work now, or records it where the stream is being captured."""
    stream = stream or state.stream
    if stream.capture is None:
        _join(stream.clock, state.clock)
        stream.clock[stream.ptr] += 1
        work.do(stream)
    else:
        stream.capture.append(work)


# Kernels.


class _Range(ctypes.Structure):
    _fields_ = (
        ("begin", ctypes.c_size_t),
        ("end", ctypes.c_size_t),
        ("grain", ctypes.c_int),
        ("argument", ctypes.c_int),
        ("constant", ctypes.c_int),
        ("cells", ctypes.c_void_p),
        ("touched", ctypes.c_size_t * 2 * 2),
    )


class Argument:
    """A kernel's argument as CuPy passes it: bytes, and the addresses that a pointer may reach."""

    def __init__(self, value, parameter):
        kind, element = parameter.kind.decode(), parameter.element
        self.needs, self.span = [], (0, 0)
        if hasattr(value, "_host"):
            self.needs, self.span = [value.need()], value.span
            self.text = f"a {value.dtype} array of shape {value.shape}"
            number = np.uint64(value.data.ptr)
            fits = value.dtype.kind == kind and value.dtype.itemsize == element
        elif isinstance(value, int | float | np.generic):
            wide = np.float64 if isinstance(value, float) else np.int64  # as CuPy passes Python's
            number = value if isinstance(value, np.generic) else wide(value)
            self.text = f"{number.dtype} {value}"
            fits = number.dtype.kind == kind and not element
            if number.dtype.kind in "iu" and (element or kind in "iu"):  # of an address, too
                fits |= 0 <= number < 2 ** (8 * parameter.size - 1)
            fits &= number.dtype.itemsize == parameter.size
            if fits and element and number:
                memory = memory_at(int(number), 1, "an address")
                self.span = memory.ptr, memory.ptr + memory.size
                self.needs = [(memory, Use(*self.span, False))]
        else:
            raise TypeError(f"Unsupported type {type(value)}")
        # A table of structs is an array of uint64, some of which are addresses.
        self.table = kind == "V" and getattr(value, "dtype", None) == np.uint64
        fits |= self.table and value.nbytes % element == 0
        if not fits:
            raise TypeError(f"{self.text}, but the kernel takes {parameter}")
        if element and int(number) % element:
            raise KernelError(f"{self.text} at {int(number):#x} is not aligned for {parameter}")
        self.bytes = number.tobytes()


def launch(kernel, grid, block, args):
    """Run or record a kernel as cupy.RawKernel does."""
    what = f"kernel {kernel.name}"
    for size in (grid, block):
        if type(size) is not tuple or not all(isinstance(n, int | np.integer) for n in size):
            raise TypeError(f"{what}: grid and block are tuples of whole numbers, got {size!r}")
    # CuPy makes at least one of each, so a kernel must itself see that there is nothing to do.
    grid, block = (tuple(max(1, int(n)) for n in (*t, 1, 1)[:3]) for t in (grid, block))
    if any(n > m for n, m in zip((int(np.prod(block)), block[2], *grid), MOST, strict=True)):
        raise CUDADriverError(
            f"CUDA_ERROR_INVALID_VALUE: invalid argument ({what}: grid {grid}, block {block})"
        )
    if len(args) != len(kernel.parameters):
        raise TypeError(f"{what} takes {len(kernel.parameters)} arguments, got {len(args)}")
    arguments, needs = [], []
    for i, (value, parameter) in enumerate(zip(args, kernel.parameters, strict=True)):
        try:
            argument = Argument(value, parameter)
        except (TypeError, KernelError) as error:
            raise type(error)(f"{what}: argument {i}: {error}") from None
        # Which of it is read or written turns out when the kernel runs.
        needs += [(memory, Use(0, 0, False)) for memory, _ in argument.needs]
        del argument.needs  # as a graph keeps no memory
        arguments.append(argument)
    submit(Work(lambda stream: _run(kernel, grid, block, arguments), what, needs))


def _addressed(begin, end):
    """The arrays whose addresses are among the numbers of a table."""
    memory = memory_at(begin, end - begin, "a table")
    numbers = memory.bytes[begin - memory.ptr : end - memory.ptr].view(np.uint64).tolist()
    return {
        (m.ptr, m.ptr + m.size)
        for m in list(state.memory.values())
        for n in numbers
        if m.ptr <= n < m.ptr + m.size and m is not memory
    }


def _run(kernel, grid, block, arguments):
    """Run a kernel; return what it used."""
    values = [ctypes.create_string_buffer(a.bytes, len(a.bytes)) for a in arguments]
    pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
    spans = [
        [*a.span, 8 if a.table else p.element, i, p.constant]
        for i, (a, p) in enumerate(zip(arguments, kernel.parameters, strict=True))
        if any(a.span)
    ]
    for i, argument in enumerate(arguments):
        if argument.table:
            spans += [[*span, 4, i, 0] for span in _addressed(*argument.span)]
    merged = []  # as one array may be several arguments
    for span in sorted(spans):
        last = merged[-1] if merged else None
        if last and span[0] < last[1]:
            last[1:] = max(span[1], last[1]), min(span[2], last[2]), last[3], span[4] & last[4]
        else:
            merged.append(span)
    merged.append([*kernel.module.shared, 4, -1, 0])
    places = np.cumsum([0, *((end - begin) // grain + 1 for begin, end, grain, *_ in merged)]) * 4
    if len(state.cells) < places[-1]:
        State.cells = np.zeros(places[-1], np.uint64)
    first, nowhere = state.cells.ctypes.data, ((2**64 - 1, 0), (2**64 - 1, 0))
    ranges = (_Range * len(merged))(
        *(
            _Range(*span, first + 8 * int(place) if state.races else None, nowhere)
            for span, place in zip(merged, places, strict=False)
        )
    )
    if state.seed:
        state.seed = (state.seed * 6364136223846793005 + 1442695040888963407) % 2**64 or 1
    instruction, index = ctypes.c_int64(-1), ctypes.c_uint * 3
    state.launches.append(kernel.name)
    reason = compiler.runtime().cuda_host_launch(
        ctypes.c_void_p(kernel.address),
        pointers,
        index(*grid),
        index(*block),
        ctypes.c_uint64(state.seed),
        ranges,
        len(ranges),
        ctypes.byref(instruction),
    )
    if reason:
        message = re.sub(
            r"argument (\d+)", lambda m: f"{m[0]} ({arguments[int(m[1])].text})", reason.decode()
        )
        raise KernelError(f"kernel {kernel.name}{kernel.module.line(instruction.value)}: {message}")
    return [
        Use(begin, end, bool(write))
        for r in ranges[:-1]
        for write, (begin, end) in enumerate(r.touched)
        if end
    ]


state = State()
state.reset()
