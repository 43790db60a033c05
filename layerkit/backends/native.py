"""What kernels are made of: with tiles.py and cache.py, the only module that builds on Numba.

Plain versions of the functions here, with their documentation, are in kernels.py.
"""
# mypy: ignore-errors

from __future__ import annotations

import functools
import math
import os
import platform
import zlib
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, sigutils
from numba.core.ccallback import CFunc
from numba.extending import intrinsic, overload

from layerkit.backends import kernels, tiles
from layerkit.backends.cache import keep_on_disk
from layerkit.backends.threads import (
    ARGUMENTS,
    AWAKENINGS,
    BUSY,
    CONDITION,
    DONE,
    FAILED,
    FUNCTION,
    MULTIPLY_DOUBLE,
    MULTIPLY_SINGLE,
    MUTEX,
    SLEEPING,
    TICKET,
)

I8, I32, I64 = (ir.IntType(bits) for bits in (8, 32, 64))
ROUNDING = {"contract", "nsz", "arcp"}  # liberties that keep NaN and the order of sums
BYTES = ir.IntType(8).as_pointer()


def njit(function: Any, options: dict[str, Any]) -> Any:
    """Compiles a kernel when it is first called."""
    return _cached(numba.njit(error_model="numpy", **options)(function), function)


def _cached(compiled: Any, function: Any) -> Any:
    """Keeps the code on disk until what kernels are made of changes.

    By itself Numba looks at the file of the function only, not at those of the functions that it
    calls and of the constants that it holds, which are in this folder.
    """
    source = function.__code__.co_filename
    files = [source, *sorted(map(str, Path(__file__).parent.glob("*.py")))]
    keep_on_disk(compiled, source, (numba.__version__, *map(_checksum, files)))
    return compiled


def _c_function(function: Any, signature: Any, options: dict[str, Any]) -> int:
    """Compiles, or finds in the cache, a function that C could call; its address."""
    made = CFunc(
        function, sigutils.normalize_signature(signature), locals={},
        options={"error_model": "numpy", **options},
    )
    _cached(made, function).compile()
    _kept.append(made)
    return made.address


_kept: list[Any] = []  # the code lives as long as these


@functools.cache
def _checksum(file: str) -> int:
    return zlib.crc32(Path(file).read_bytes())


# Threads: atomic operations on the team's board, and calling a function by its address.


def _word(builder: Any, address: Any, index: Any) -> Any:
    return builder.gep(builder.inttoptr(address, I64.as_pointer()), [index])


@intrinsic
def _load(typingctx, board, index):
    def codegen(context, builder, signature, args):
        return builder.load_atomic(_word(builder, *args), "acquire", 8)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def _store(typingctx, board, index, value):
    def codegen(context, builder, signature, args):
        builder.store_atomic(args[2], _word(builder, *args[:2]), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def _add(typingctx, board, index, value):
    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", _word(builder, *args[:2]), args[2], "acq_rel")

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def _swap_if(typingctx, board, index, old, new):
    """Stores `new` where `old` was; whether it did."""
    def codegen(context, builder, signature, args):
        pair = builder.cmpxchg(_word(builder, *args[:2]), args[2], args[3], "acq_rel", "acquire")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def _pause(typingctx):
    """Tells the processor that this is a waiting loop."""
    def codegen(context, builder, signature, args):
        if platform.machine().lower() in ("x86_64", "amd64"):
            builder.call(builder.module.declare_intrinsic(
                "llvm.x86.sse2.pause", (), ir.FunctionType(ir.VoidType(), ())), ())
        return context.get_dummy_value()

    return types.void(), codegen


SPINS = 1000  # turns of a waiting loop before others may have the core


@intrinsic
def _yield(typingctx):
    """Lets another thread have the core, if one wants it."""
    def codegen(context, builder, signature, args):
        if os.name == "posix":
            kind = ir.FunctionType(I32, [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@numba.njit
def _wait(turn):
    """One turn of a waiting loop: at first spins, as work comes or ends within microseconds, and
    later lets others run, who may be what is waited for.
    """
    _pause()
    if turn > SPINS:
        _yield()


def _pthread(function: str) -> Any:
    """An intrinsic: calls a function of the C library for threads, given addresses."""
    @intrinsic
    def call(typingctx, addresses):
        def codegen(context, builder, signature, args):
            if os.name == "posix":
                values = cgutils.unpack_tuple(builder, args[0], len(addresses))
                kind = ir.FunctionType(I32, [BYTES] * len(addresses))
                code = cgutils.get_or_insert_function(builder.module, kind, function)
                builder.call(code, [builder.inttoptr(value, BYTES) for value in values])
            return context.get_dummy_value()

        return types.void(addresses), codegen

    return call


_lock, _unlock = _pthread("pthread_mutex_lock"), _pthread("pthread_mutex_unlock")
_sleep, _wake_all = _pthread("pthread_cond_wait"), _pthread("pthread_cond_broadcast")


@numba.njit
def _wake(board):
    """Wakes the helpers that sleep, if any do."""
    if _load(board, SLEEPING) != 0:
        _lock((board + 8 * MUTEX,))
        _store(board, SLEEPING, 0)
        _add(board, AWAKENINGS, 1)
        _wake_all((board + 8 * CONDITION,))
        _unlock((board + 8 * MUTEX,))


# The state of the floating-point unit, of which each thread has its own.


X86, ARM = ("x86_64", "amd64"), ("aarch64", "arm64")
FLUSH = 0x8040 if platform.machine().lower() in X86 else 1 << 24  # MXCSR's FTZ and DAZ; FPCR's FZ


@intrinsic
def _float_state(typingctx):
    """The control register: MXCSR on x86, FPCR on ARM; 0 on other processors."""
    def codegen(context, builder, signature, args):
        machine = platform.machine().lower()
        if machine in X86:
            slot = cgutils.alloca_once(builder, I32)
            kind = ir.FunctionType(ir.VoidType(), [BYTES])
            code = builder.module.declare_intrinsic("llvm.x86.sse.stmxcsr", (), kind)
            builder.call(code, [builder.bitcast(slot, BYTES)])
            return builder.zext(builder.load(slot), I64)
        if machine in ARM:
            return builder.asm(ir.FunctionType(I64, []), "mrs $0, fpcr", "=r", [], True)
        return ir.Constant(I64, 0)

    return types.int64(), codegen


@intrinsic
def _set_float_state(typingctx, state):
    def codegen(context, builder, signature, args):
        machine = platform.machine().lower()
        if machine in X86:
            slot = cgutils.alloca_once(builder, I32)
            builder.store(builder.trunc(args[0], I32), slot)
            kind = ir.FunctionType(ir.VoidType(), [BYTES])
            code = builder.module.declare_intrinsic("llvm.x86.sse.ldmxcsr", (), kind)
            builder.call(code, [builder.bitcast(slot, BYTES)])
        elif machine in ARM:
            kind = ir.FunctionType(ir.VoidType(), [I64])
            builder.asm(kind, "msr fpcr, $0", "r", [args[0]], True)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def _state() -> int:
    """This thread's floating-point state, for `set_float_state`."""
    return _float_state()


def _set_state(state):
    """Puts a state back."""
    _set_float_state(state)


float_state, set_float_state = njit(_state, {}), njit(_set_state, {})


# A trampoline is what a thread calls: int f(result, error, arguments, i).  The first two are what
# Numba's calling convention wants of any function that calls a compiled one.


@intrinsic
def _call_trampoline(typingctx, function, arguments, i):
    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(I32, [BYTES.as_pointer(), BYTES.as_pointer(), I64, I64])
        slots = [cgutils.alloca_once(builder, BYTES) for _ in range(2)]
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), [*slots, *args[1:]])

    return types.int32(types.int64, types.int64, types.int64), codegen


def _unowned(context, builder, kind, value):
    """An array without its owner, whose count of references all threads would fight over."""
    if not isinstance(kind, types.Array):
        return value
    array = context.make_array(kind)(context, builder, value)
    array.meminfo = cgutils.get_null_value(array.meminfo.type)
    array.parent = cgutils.get_null_value(array.parent.type)
    return array._getvalue()


@intrinsic
def _trampoline(typingctx, function, arguments):
    """The address of code that unpacks a tuple and calls function(i, *tuple)."""
    inner = function.get_call_type(typingctx, (types.int64, *arguments.types), {})

    def codegen(context, builder, signature, args):
        tuple_type = context.get_value_type(arguments)
        error = context.call_conv.get_function_type(types.none, ()).args[1]
        kind = ir.FunctionType(I32, [BYTES.as_pointer(), error, I64, I64])
        code = ir.Function(builder.module, kind, builder.module.get_unique_name("trampoline"))
        code.linkage = "internal"
        body = ir.IRBuilder(code.append_basic_block("entry"))
        packed = body.load(body.inttoptr(code.args[2], tuple_type.as_pointer()))
        values = cgutils.unpack_tuple(body, packed, len(arguments.types))
        pairs = zip(arguments.types, values, strict=True)
        values = [_unowned(context, body, *pair) for pair in pairs]
        call = context.get_function(function, inner)
        call(body, [code.args[3], *values])
        context.add_linking_libs(getattr(call, "libs", ()))
        body.ret(ir.Constant(I32, 0))
        return builder.ptrtoint(code, I64)

    return types.int64(function, arguments), codegen


@intrinsic
def _address_of(typingctx, arguments):
    def codegen(context, builder, signature, args):
        return builder.ptrtoint(cgutils.alloca_once_value(builder, args[0]), I64)

    return types.int64(arguments), codegen


@numba.njit
def _take(board):
    """Claims one piece of the present job and does it; False when none is left.

    The ticket counts down in its low 32 bits; the job's number is in the high ones, so a thread
    that was late cannot claim a piece of a later job by mistake.
    """
    while True:
        ticket = _load(board, TICKET)
        left = ticket & 0xFFFFFFFF
        if left == 0:
            return False
        if _swap_if(board, TICKET, ticket, ticket - 1):
            if _call_trampoline(_load(board, FUNCTION), _load(board, ARGUMENTS), left - 1) != 0:
                _store(board, FAILED, 1)
            _add(board, DONE, 1)
            return True


@numba.njit
def _share(team, function, arguments, count):
    board = team.ctypes.data
    if count > 1 and _swap_if(board, BUSY, 0, 1):
        _store(board, FUNCTION, function)
        _store(board, ARGUMENTS, arguments)
        _store(board, DONE, 0)
        job = (_load(board, TICKET) >> 32) + 1
        _store(board, TICKET, ((job & 0x7FFFFFFF) << 32) | count)
        _wake(board)
        while _take(board):
            pass
        turn = 0
        while _load(board, DONE) < count:
            _wait(turn)
            turn += 1
        failed = _swap_if(board, FAILED, 1, 0)
        _store(board, BUSY, 0)
        if failed:
            raise RuntimeError("a piece of a kernel failed")
    else:  # another thread of the program is in a kernel just now
        for i in range(count):
            if _call_trampoline(function, arguments, i) != 0:
                raise RuntimeError("a piece of a kernel failed")


@numba.njit
def parallel_for(team, function, count, arguments):
    """See kernels.py."""
    _share(team, _trampoline(function, arguments), _address_of(arguments), count)


def _help_out(board, patience):
    """What a helping thread does, for ever: takes pieces of jobs, and sleeps where none come."""
    _set_float_state(_float_state() | FLUSH)
    while True:
        idle = 0
        while idle < patience:
            if _take(board):
                idle = 0
            else:
                _wait(idle)
                if idle <= SPINS or _load(board, BUSY) == 0:  # else the next job may be near
                    idle += 1
        _lock((board + 8 * MUTEX,))
        _store(board, SLEEPING, 1)
        awakenings = _load(board, AWAKENINGS)
        while _load(board, AWAKENINGS) == awakenings:
            _sleep((board + 8 * CONDITION, board + 8 * MUTEX))
        _unlock((board + 8 * MUTEX,))


help_out = njit(_help_out, {"nogil": True})


# Products of matrices.


def multiply_addresses() -> list[int]:
    """Where tiles.multiply for float32 and for float64 are."""
    whole = [types.int64] * 11
    return [
        _c_function(tiles.multiply, types.void(number, *whole, types.boolean), {})
        for number in (types.float32, types.float64)
    ]


@intrinsic
def _call_multiply(
    typingctx, address, kind, rows, columns, terms, a, down, across, b, b_down, b_across, out,
    out_down, add,
):
    whole = [types.int64] * 11

    def codegen(context, builder, signature, args):
        values = [*args[1:-1], builder.zext(args[-1], I8)]
        called = ir.FunctionType(ir.VoidType(), [v.type for v in values])
        builder.call(builder.inttoptr(args[0], called.as_pointer()), values)
        return context.get_dummy_value()

    return types.void(types.int64, kind, *whole, types.boolean), codegen


@numba.njit
def gemm(team, a, b, out, add):
    """See kernels.py."""
    one, size, (rows, columns) = out.dtype.type(1), out.itemsize, out.shape
    address = team[MULTIPLY_SINGLE if size == 4 else MULTIPLY_DOUBLE]
    _call_multiply(
        address, one, rows, columns, a.shape[1],
        a.ctypes.data, a.strides[0] // size, a.strides[1] // size,
        b.ctypes.data, b.strides[0] // size, b.strides[1] // size,
        out.ctypes.data, out.strides[0] // size, add,
    )


# Solvers' updates, by address.

view = numba.carray


def update(function: Any, options: dict[str, Any]) -> Any:
    """A function of a dtype that compiles the update for it and returns the address."""
    @functools.cache
    def address(dtype: Any) -> int:
        array = types.CPointer(getattr(types, np.dtype(dtype).name))
        signature = types.void(
            types.intp, array, array, array, array, types.CPointer(types.float64)
        )
        return _c_function(function, signature, {"fastmath": ROUNDING})

    return address


@intrinsic
def _call_update(typingctx, address, size, w, g, first, second, constants):
    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [I64] * 6)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), codegen


@numba.njit
def call_update(address, w, g, first, second, constants):
    """See kernels.py."""
    _call_update(
        address, w.size, w.ctypes.data, g.ctypes.data, first.ctypes.data, second.ctypes.data,
        constants.ctypes.data,
    )


# exp and log in float32, of arithmetic that vectorises.


LOG2_E, LN2 = np.float32(1 / math.log(2)), math.log(2)
LN2_HIGH = np.float32(0.693359375)  # nine bits: times an exponent it is exact
LN2_LOW = np.float32(LN2 - 0.693359375)
F2, F3, F4, F5, F6, F7 = (np.float32(1 / math.factorial(k)) for k in range(2, 8))
S3, S5, S7, S9 = (np.float32(2 / k) for k in (3, 5, 7, 9))
HALF, ONE, TWO, ZERO = np.float32(0.5), np.float32(1), np.float32(2), np.float32(0)
TOP, BOTTOM = np.float32(89), np.float32(-104.5)  # beyond these exp is infinite, or zero
TINY, LIFT = np.float32(2.0**-126), np.float32(2.0**24)
ROOT_HALF_BITS = 0x3F3504F3  # of sqrt(1/2)
INFINITY, NAN = np.float32(math.inf), np.float32(math.nan)


@intrinsic
def _as_float(typingctx, bits):
    """The float32 of these bits."""
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@intrinsic
def _as_bits(typingctx, number):
    """The bits of a float32."""
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], I32)

    return types.int32(types.float32), codegen


@overload(kernels.exp, jit_options={"fastmath": ROUNDING})
def _exp(x):
    """2^n e^r with |r| <= log(2) / 2, and e^r by seven terms of its series."""
    if x != types.float32:
        return lambda x: math.exp(x)

    def single(x):
        x = TOP if x > TOP else x  # a NaN passes
        x = BOTTOM if x < BOTTOM else x
        n = np.floor(x * LOG2_E + HALF)
        r = (x - n * LN2_HIGH) - n * LN2_LOW
        p = F2 + r * (F3 + r * (F4 + r * (F5 + r * (F6 + r * F7))))
        y = ONE + (r + r * r * p)
        # In two steps, as 2^n itself may be out of range where 2^n e^r is not.
        n = np.int32(n)
        half = n >> 1
        return y * _as_float((half + 127) << 23) * _as_float((n - half + 127) << 23)

    return single


@overload(kernels.log, jit_options={"fastmath": ROUNDING})
def _log(x):
    """n log(2) + log(m), sqrt(1/2) <= m < sqrt(2), with log(m) = 2 artanh((m - 1) / (m + 1))."""
    if x != types.float32:
        return lambda x: math.log(x)

    def single(x):
        small = x < TINY
        lifted = x * LIFT if small else x
        bits = _as_bits(lifted)
        n = (bits - ROOT_HALF_BITS) >> 23
        m = _as_float(bits - (n << 23))
        f = m - ONE
        s = f / (TWO + f)
        s2 = s * s
        n = np.float32(n - 24 if small else n)
        # 2 artanh(s) = f - s (f - ...): the large term f is exact
        q = s2 * (S3 + s2 * (S5 + s2 * (S7 + s2 * S9)))
        y = n * LN2_HIGH + (f + (n * LN2_LOW - s * (f - q)))
        y = x if x == INFINITY else y
        y = -INFINITY if x == ZERO else y
        return y if x >= ZERO else NAN

    return single


@numba.njit(fastmath=ROUNDING)
def _exponent(x):
    return (_as_bits(x) >> 23) - 127


@numba.njit(fastmath=ROUNDING)
def _mantissa(x):
    """1 <= m < 2 with x = m 2^exponent."""
    return _as_float((_as_bits(x) & 0x7FFFFF) | 0x3F800000)


@overload(kernels.log_product, jit_options={"fastmath": ROUNDING})
def _log_product(a, b, c, d):
    """The exponents add up, and the product of the mantissas has one logarithm."""
    if a != types.float32:
        return lambda a, b, c, d: math.log(a) + math.log(b) + math.log(c) + math.log(d)

    def single(a, b, c, d):
        n = np.float32((_exponent(a) + _exponent(b)) + (_exponent(c) + _exponent(d)))
        m = (_mantissa(a) * _mantissa(b)) * (_mantissa(c) * _mantissa(d))
        y = n * LN2_HIGH + (n * LN2_LOW + kernels.log(m))
        finite = a < INFINITY and b < INFINITY and c < INFINITY and d < INFINITY
        return y if finite else (a + b) + (c + d)

    return single
