"""Products of matrices, for kernels.

Tiles of the result, four rows and three vectors of columns, stay in registers while the terms are
added up.  With few rows, or few terms, both matrices are read where they lie: copying them takes
longer than multiplying.  Else a panel of the second matrix, as wide as a tile, is copied to the
nearest cache, where all rows of the first are multiplied by it; meanwhile what is needed next is
fetched into the second.  The code is written in LLVM's vectors, as a compiler is not sure to keep a
dozen totals of a loop over plain numbers in registers.

Not BLAS, because products here are pieces of kernels: each of the team's threads (threads.py)
multiplies matrices of some hundred rows, many of which come from memory, and uses the result at
once.  OpenBLAS on one thread, called here before, is as fast or slower for these (benchmarks/),
knows nothing of what is needed next, and is a library more to find, load and keep from spinning.
"""
# mypy: ignore-errors

from __future__ import annotations

import functools
from typing import Any

import numba
from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)

# Where copying does not pay, by measurement on processors with AVX2.
FEW = 20  # rows of a, or terms of each sum, if rows of b are of neighbouring elements
FEW_DOTS, LONG_DOTS = 16, 64  # rows of a at most, and terms at least, if columns of b are

NEAR = 9600  # elements of b that stay in cache while all rows of a are multiplied by them
WIDE = 600  # columns of those; with up to three rows as many as there are

PANEL = 24_576  # bytes of b copied at a time, which stay in the nearest cache
DEEP = 256  # terms of a panel, at most
HIGH = 192  # rows of a that stay in the next cache, while they are multiplied by a panel
STRIP = 4  # rows of a that are copied together where their elements do not lie in a row
AHEAD = 8  # rows of a after which those of the result will be needed that are fetched now
LINE = 64  # bytes of a cache line


@functools.cache
def _lanes(itemsize: int) -> int:
    """Numbers in the processor's vectors."""
    features = llvm.get_host_cpu_features()
    size = 64 if features.get("avx512f") else 32 if features.get("avx2") else 16
    return size // itemsize


class _Vectors:
    """Instructions for vectors of a type, or for single numbers if `lanes` is 1."""

    def __init__(self, context: Any, builder: Any, number: Any, lanes: int):
        self.builder, self.lanes = builder, lanes
        self.scalar = context.get_value_type(number)
        self.type = self.scalar if lanes == 1 else ir.VectorType(self.scalar, lanes)
        self.itemsize = number.bitwidth // 8
        self.zero = ir.Constant(self.type, None if lanes > 1 else 0.0)

    def address(self, base: Any, *offsets: Any) -> Any:
        """Pointer to what lies the sum of some offsets, in numbers, after a pointer to one."""
        for offset in offsets:
            base = self.builder.gep(base, [offset])
        return base

    def load(self, address: Any) -> Any:
        address = self.builder.bitcast(address, self.type.as_pointer())
        return self.builder.load(address, align=self.itemsize)

    def store(self, value: Any, address: Any) -> None:
        address = self.builder.bitcast(address, self.type.as_pointer())
        self.builder.store(value, address, align=self.itemsize)

    def spread(self, address: Any) -> Any:
        """The number at an address in every lane."""
        value = self.builder.load(address, align=self.itemsize)
        if self.lanes == 1:
            return value
        one = self.builder.insert_element(ir.Constant(self.type, ir.Undefined), value, I32(0))
        nowhere = ir.Constant(ir.VectorType(I32, self.lanes), None)
        return self.builder.shuffle_vector(one, ir.Constant(self.type, ir.Undefined), nowhere)

    def add_product(self, total: Any, a: Any, b: Any) -> Any:
        product = self.builder.fmul(a, b, flags=["contract"])
        return self.builder.fadd(total, product, flags=["contract"])

    def exchange(self, a: Any, b: Any, step: int) -> tuple[Any, Any]:
        """Two vectors, cut into parts of `step` lanes, with b's even parts for a's odd ones."""
        lanes = range(self.lanes)
        masks = (
            [n if n & step == 0 else self.lanes + n - step for n in lanes],
            [n + step if n & step == 0 else self.lanes + n for n in lanes],
        )
        first, second = (
            self.builder.shuffle_vector(a, b, ir.Constant(
                ir.VectorType(I32, self.lanes), [I32(n) for n in mask]
            )) for mask in masks
        )
        return first, second

    def sum(self, value: Any) -> Any:
        """Of all lanes."""
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            parts = [
                self.builder.shuffle_vector(value, value, ir.Constant(
                    ir.VectorType(I32, lanes), [I32(first + k) for k in range(lanes)]
                )) for first in (0, lanes)
            ]
            value = self.builder.fadd(*parts)
        return self.builder.extract_element(value, I32(0)) if self.lanes > 1 else value


def _keep_rolled(module: Any, back: Any) -> None:
    """Keeps LLVM from unrolling a loop, given its branch back; registers would not suffice."""
    never = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    loop = module.add_metadata([I64(len(module.metadata)), never])  # of its own, not shared
    loop.operands = (loop, never)
    back.set_metadata("llvm.loop", loop)


def _loop(builder: Any, count: Any, step: int, totals: Any, body: Any) -> Any:
    """for k in range(0, count, step): totals = body(k, totals), in registers; the last totals."""
    before = builder.basic_block
    test, inside, after = (builder.append_basic_block(n) for n in ("test", "inside", "after"))
    builder.branch(test)
    builder.position_at_end(test)
    k = builder.phi(I64)
    sums = [builder.phi(t.type) for t in totals]
    builder.cbranch(builder.icmp_signed("<", k, count), inside, after)
    builder.position_at_end(inside)
    new = body(k, sums)
    new = [builder.add(k, I64(step)), *new]
    for phi, first, later in zip([k, *sums], [I64(0), *totals], new, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, builder.basic_block)
    _keep_rolled(builder.module, builder.branch(test))
    builder.position_at_end(after)
    return sums


def _before(v: Any, places: list[Any], add: Any) -> Any:
    """What is in these places if `add` is true, a loop of one turn, else zeros."""
    zeros, once = [v.zero] * len(places), v.builder.zext(add, I64)
    return _loop(v.builder, once, 1, zeros, lambda k, totals: [v.load(p) for p in places])


def _tile(rows: int, vectors: int, lanes: Any = _lanes) -> Any:
    """An intrinsic: c = a b, or c += a b, of `rows` rows and `vectors` vectors of columns.

    Addresses are of the first elements; `down` and `across` lead to the next row and column.
    """
    @intrinsic
    def tile(typingctx, kind, terms, a, down, across, b, b_down, c, c_down, add):
        def codegen(context, builder, signature, args):
            terms, a, down, across, b, b_down, c, c_down, add = args[1:]
            v = _Vectors(context, builder, kind, lanes(kind.bitwidth // 8))
            pointer = v.scalar.as_pointer()
            a, b, c = (builder.inttoptr(p, pointer) for p in (a, b, c))
            of_row = [builder.mul(down, I64(r)) for r in range(rows)]
            of_vector = [I64(n * v.lanes) for n in range(vectors)]
            places = [
                v.address(c, builder.mul(c_down, I64(r)), n) for r in range(rows) for n in of_vector
            ]

            def body(k, totals):
                row, column = v.address(b, builder.mul(k, b_down)), builder.mul(k, across)
                right, new = [v.load(v.address(row, n)) for n in of_vector], []
                for r, offset in enumerate(of_row):  # with one register for elements of a
                    left = v.spread(v.address(a, column, offset))
                    of_this = totals[r * vectors : (r + 1) * vectors]
                    new += [v.add_product(*t, left) for t in zip(of_this, right, strict=True)]
                return new

            totals = _loop(builder, terms, 1, _before(v, places, add), body)
            for total, place in zip(totals, places, strict=True):
                v.store(total, place)
            return context.get_dummy_value()

        whole = types.int64
        return types.void(
            kind, whole, whole, whole, whole, whole, whole, whole, whole, types.boolean
        ), codegen

    return tile


def _dots(rows: int, others: int) -> Any:
    """An intrinsic: c = a b^T, or c += a b^T, of `rows` rows of a and `others` of b."""
    @intrinsic
    def dots(typingctx, kind, terms, a, a_down, b, b_down, c, c_down, add):
        def codegen(context, builder, signature, args):
            terms, a, a_down, b, b_down, c, c_down, add = args[1:]
            v = _Vectors(context, builder, kind, _lanes(kind.bitwidth // 8))
            one = _Vectors(context, builder, kind, 1)
            pointer = v.scalar.as_pointer()
            a, b, c = (builder.inttoptr(p, pointer) for p in (a, b, c))
            starts = [v.address(a, builder.mul(a_down, I64(r))) for r in range(rows)]
            starts_b = [v.address(b, builder.mul(b_down, I64(r))) for r in range(others)]

            def step(v, first):
                def body(k, totals):
                    left = [v.load(v.address(p, first, k)) for p in starts]
                    right = [v.load(v.address(p, first, k)) for p in starts_b]
                    pairs = [(x, y) for x in left for y in right]
                    return [v.add_product(t, *p) for t, p in zip(totals, pairs, strict=True)]

                return body

            whole = builder.and_(terms, I64(-v.lanes))
            totals = _loop(builder, whole, v.lanes, [v.zero] * (rows * others), step(v, I64(0)))
            sums = [v.sum(t) for t in totals]
            sums = _loop(builder, builder.sub(terms, whole), 1, sums, step(one, whole))
            places = [
                v.address(c, builder.mul(c_down, I64(r)), I64(n))
                for r in range(rows) for n in range(others)
            ]
            before = _before(one, places, add)
            for total, old, place in zip(sums, before, places, strict=True):
                one.store(builder.fadd(total, old), place)
            return context.get_dummy_value()

        whole = types.int64
        return types.void(
            kind, whole, whole, whole, whole, whole, whole, whole, types.boolean
        ), codegen

    return dots


def _copy(vectors: int, lanes: Any = _lanes) -> Any:
    """An intrinsic: copies rows of so many vectors.

    Addresses are of the first elements; `down` and `to_down` lead to the next row, `apart` to where
    the next vector is to be.
    """
    @intrinsic
    def copy(typingctx, kind, rows, b, down, to, to_down, apart):
        def codegen(context, builder, signature, args):
            rows, b, down, to, to_down, apart = args[1:]
            v = _Vectors(context, builder, kind, lanes(kind.bitwidth // 8))
            b, to = (builder.inttoptr(p, v.scalar.as_pointer()) for p in (b, to))

            def body(k, totals):
                row = v.address(b, builder.mul(k, down))
                place = v.address(to, builder.mul(k, to_down))
                for n in range(vectors):
                    value = v.load(v.address(row, I64(n * v.lanes)))
                    v.store(value, v.address(place, builder.mul(apart, I64(n))))
                return []

            _loop(builder, rows, 1, [], body)
            return context.get_dummy_value()

        whole = types.int64
        return types.void(kind, whole, whole, whole, whole, whole, whole), codegen

    return copy


@intrinsic
def _turn(typingctx, kind, rows, b, across, to, to_down):
    """Copies rows of one vector of a matrix whose columns are of neighbouring elements.

    `rows` is a multiple of the lanes; `across` leads to the next column.
    """
    def codegen(context, builder, signature, args):
        rows, b, across, to, to_down = args[1:]
        v = _Vectors(context, builder, kind, _lanes(kind.bitwidth // 8))
        b, to = (builder.inttoptr(p, v.scalar.as_pointer()) for p in (b, to))
        lanes = range(v.lanes)

        def body(k, totals):
            columns = [v.load(v.address(b, builder.mul(across, I64(n)), k)) for n in lanes]
            step = 1
            while step < v.lanes:  # squares of this size are transposed, in squares of twice that
                for n in lanes:
                    if n & step == 0:
                        columns[n], columns[n + step] = v.exchange(
                            columns[n], columns[n + step], step
                        )
                step *= 2
            for n in lanes:
                place = builder.mul(builder.add(k, I64(n)), to_down)
                v.store(columns[n], v.address(to, place))
            return []

        _loop(builder, rows, v.lanes, [], body)
        return context.get_dummy_value()

    whole = types.int64
    return types.void(kind, whole, whole, whole, whole, whole), codegen


@intrinsic
def _pour(typingctx, kind, count, b, down, to, to_down, add):
    """Copies single numbers, or adds them to what is there."""
    def codegen(context, builder, signature, args):
        count, b, down, to, to_down, add = args[1:]
        v = _Vectors(context, builder, kind, 1)
        b, to = (builder.inttoptr(p, v.scalar.as_pointer()) for p in (b, to))

        def body(k, totals):
            value, place = v.load(v.address(b, builder.mul(k, down))), builder.mul(k, to_down)
            place = v.address(to, place)
            (before,) = _before(v, [place], add)
            v.store(builder.fadd(before, value), place)
            return []

        _loop(builder, count, 1, [], body)
        return context.get_dummy_value()

    whole = types.int64
    return types.void(kind, whole, whole, whole, whole, whole, types.boolean), codegen


def _space(size: int) -> Any:
    """An intrinsic: the address of so many bytes of work space."""
    @intrinsic
    def space(typingctx):
        def codegen(context, builder, signature, args):
            place = cgutils.alloca_once(builder, I8, size)
            place.align = LINE
            return builder.ptrtoint(place, I64)

        return types.int64(), codegen

    return space


def _prefetch(for_writing: int, cache: int) -> Any:
    """An intrinsic: asks for the cache line at an address, 3 being the nearest cache."""
    @intrinsic
    def prefetch(typingctx, address):
        def codegen(context, builder, signature, args):
            pointer = builder.inttoptr(args[0], I8.as_pointer())
            kind = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
            call = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
            builder.call(call, [pointer, I32(for_writing), I32(cache), I32(1)])
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    return prefetch


_tile43, _tile42, _tile41 = _tile(4, 3), _tile(4, 2), _tile(4, 1)
_tile13, _tile12, _tile11 = _tile(1, 3), _tile(1, 2), _tile(1, 1)
_single4, _single1 = _tile(4, 1, lambda size: 1), _tile(1, 1, lambda size: 1)
_dots43, _dots41, _dots13, _dots11 = _dots(4, 3), _dots(4, 1), _dots(1, 3), _dots(1, 1)
_copy3, _copy2, _copy1 = _copy(3), _copy(2), _copy(1)
_copy_strips, _copy_strip = _copy(4, lambda size: STRIP), _copy(1, lambda size: STRIP)
_panel, _strips, _corner = _space(PANEL), _space(HIGH * DEEP * 8), _space(4 * 3 * 64)
_fetch, _claim = _prefetch(0, 2), _prefetch(1, 3)


def size_of(number: Any) -> int:
    """Bytes of a number of this type."""
    return number.itemsize


def lanes_of(number: Any) -> int:
    """Numbers of this type in a vector."""
    return _lanes(number.itemsize)


@overload(size_of)
def _size_of(number):
    size = number.bitwidth // 8
    return lambda number: size


@overload(lanes_of)
def _lanes_of(number):
    lanes = _lanes(number.bitwidth // 8)
    return lambda number: lanes


@numba.njit(forceinline=True)
def _fill_tile(kind, four, vectors, n, a, down, across, b, b_down, out, out_down, add):
    """Four rows, or one, of so many vectors, or of one column if there are none."""
    if vectors == 3:
        if four:
            _tile43(kind, n, a, down, across, b, b_down, out, out_down, add)
        else:
            _tile13(kind, n, a, down, across, b, b_down, out, out_down, add)
    elif vectors == 2:
        if four:
            _tile42(kind, n, a, down, across, b, b_down, out, out_down, add)
        else:
            _tile12(kind, n, a, down, across, b, b_down, out, out_down, add)
    elif vectors == 1:
        if four:
            _tile41(kind, n, a, down, across, b, b_down, out, out_down, add)
        else:
            _tile11(kind, n, a, down, across, b, b_down, out, out_down, add)
    elif four:
        _single4(kind, n, a, down, across, b, b_down, out, out_down, add)
    else:
        _single1(kind, n, a, down, across, b, b_down, out, out_down, add)


@numba.njit(forceinline=True)
def _next_vectors(left):
    """Of how many vectors the next tile is; not so that one is left over, which is slow."""
    return 3 if left == 3 or left > 4 else min(left, 2)


@numba.njit
def _by_rows(kind, sizes, a, down, across, b, b_down, out, out_down, add):
    rows, columns, terms = sizes
    size, lanes = size_of(kind), lanes_of(kind)
    wide = WIDE if rows > 3 else NEAR
    deep = max(NEAR // max(min(wide, columns), 1), 4)
    for left in range(0, columns, wide):
        right = min(left + wide, columns)
        for k in range(0, max(terms, 1), deep):
            n, more = min(deep, terms - k), add or k > 0
            row = 0
            while row < rows:
                four = rows - row >= 4
                x = a + (row * down + k * across) * size
                j = left
                while j < right:
                    vectors = _next_vectors((right - j) // lanes)
                    y = b + (k * b_down + j) * size
                    z = out + (row * out_down + j) * size
                    _fill_tile(
                        kind, four, vectors, n, x, down, across, y, b_down, z, out_down, more
                    )
                    j += max(vectors * lanes, 1)
                row += 4 if four else 1


@numba.njit
def _by_dots(kind, sizes, a, down, b, b_across, out, out_down, add):
    rows, columns, terms = sizes
    size = size_of(kind)
    wide = WIDE if rows > 3 else NEAR
    for k in range(0, max(terms, 1), wide):
        n, more = min(wide, terms - k), add or k > 0
        j = 0
        while j < columns:
            three = columns - j >= 3
            y = b + (j * b_across + k) * size
            row = 0
            while row < rows:
                four = rows - row >= 4
                x = a + (row * down + k) * size
                z = out + (row * out_down + j) * size
                if three:
                    if four:
                        _dots43(kind, n, x, down, y, b_across, z, out_down, more)
                    else:
                        _dots13(kind, n, x, down, y, b_across, z, out_down, more)
                elif four:
                    _dots41(kind, n, x, down, y, b_across, z, out_down, more)
                else:
                    _dots11(kind, n, x, down, y, b_across, z, out_down, more)
                row += 4 if four else 1
            j += 3 if three else 1


@numba.njit
def _make_panel(kind, n, width, vectors, b, b_down, b_across, panel):
    """Copies n rows of `width` columns; what is left of so many vectors gets the last of these."""
    size, lanes = size_of(kind), lanes_of(kind)
    full, wide = width // lanes, vectors * lanes
    copied = 0
    if b_across == 1:
        copied = full * lanes
        if full == 3:
            _copy3(kind, n, b, b_down, panel, wide, lanes)
        elif full == 2:
            _copy2(kind, n, b, b_down, panel, wide, lanes)
        elif full == 1:
            _copy1(kind, n, b, b_down, panel, wide, lanes)
    elif b_down == 1:
        copied, whole = full * lanes, n // lanes * lanes
        for j in range(0, copied, lanes):
            _turn(kind, whole, b + j * b_across * size, b_across, panel + j * size, wide)
        for k in range(whole, n):
            row = b + k * size
            _pour(kind, copied, row, b_across, panel + k * wide * size, 1, False)
    for j in range(copied, wide):
        column = b + min(j, width - 1) * b_across * size
        _pour(kind, n, column, b_down, panel + j * size, wide, False)


@numba.njit
def _make_strips(kind, n, rows, a, across, strips):
    """Copies n columns of a transposed matrix, STRIP rows together."""
    size, row = size_of(kind), 0
    while row <= rows - STRIP:
        x, to = a + row * size, strips + row * n * size
        if row <= rows - 4 * STRIP:
            _copy_strips(kind, n, x, across, to, STRIP, STRIP * n)
            row += 4 * STRIP
        else:
            _copy_strip(kind, n, x, across, to, STRIP, STRIP * n)
            row += STRIP


@numba.njit
def _fetch_lines(first, last, start, down, length):
    """Some rows, of so many bytes."""
    for row in range(first, last):
        place = start + row * down
        for p in range(place, place + length, LINE):
            _fetch(p)
        _fetch(place + length - 1)


@numba.njit
def _by_panels(kind, sizes, a, down, across, b, b_down, b_across, out, out_down, add):
    rows, columns, terms = sizes
    size, lanes = size_of(kind), lanes_of(kind)
    panel, strips, corner = _panel(), _strips(), _corner()
    deep = min(PANEL // (3 * lanes * size), DEEP)
    parts = max(-(-terms // deep), 1)
    deep = min(-(-terms // parts // lanes) * lanes + lanes, deep)  # of about one size, never 0
    for k in range(0, max(terms, 1), deep):
        n, more = min(deep, terms - k), add or k > 0
        for top in range(0, rows, HIGH):
            high = min(HIGH, rows - top)
            block = a + (top * down + k * across) * size
            if down == 1:
                _make_strips(kind, n, high, block, across, strips)
            j = 0
            while j < columns:
                vectors = _next_vectors(-(-(columns - j) // lanes))
                wide = vectors * lanes
                width = min(wide, columns - j)
                here = b + (k * b_down + j * b_across) * size
                _make_panel(kind, n, width, vectors, here, b_down, b_across, panel)
                # What is copied next: lines so far apart and so long, some of them with each tile.
                following = here + width * b_across * size
                lines, apart, length = n, b_down * size, wide * size
                if b_across != 1:
                    lines, apart, length = wide, b_across * size, n * size
                if columns - j < 2 * wide:
                    lines = 0
                each, fetched = -(-lines * 4 // high), 0
                row = 0
                while row < high:
                    four = high - row >= 4
                    last = min(fetched + each, lines)
                    _fetch_lines(fetched, last, following, apart, length)
                    fetched = last
                    x, x_across = block + row * down * size, across
                    if four and down == 1:
                        x, x_across = strips + row * n * size, STRIP
                    place = out + ((top + row) * out_down + j) * size
                    if row + AHEAD + 4 <= high:
                        for r in range(AHEAD, AHEAD + 4):
                            _claim(place + r * out_down * size)
                            _claim(place + (r * out_down + width) * size - 1)
                    z, z_down, adds = place, out_down, more
                    if width < wide:
                        z, z_down, adds = corner, wide, False
                    _fill_tile(
                        kind, four, vectors, n, x, down, x_across, panel, wide, z, z_down, adds
                    )
                    if width < wide:
                        for r in range(4 if four else 1):
                            to = place + r * out_down * size
                            _pour(kind, width, corner + r * wide * size, 1, to, 1, more)
                    row += 4 if four else 1
                j += width


def multiply(
    kind, rows, columns, terms, a, down, across, b, b_down, b_across, out, out_down, add
):
    """out = a @ b, or out += a @ b.

    Compiled to a C function, once for each type, as it is long.

    Args:
        kind: any number of the type.
        a, b, out: addresses; the next row is `down`, and the next column `across` numbers away.
            Rows of `out` are of neighbouring numbers.
    """
    sizes, lanes = (rows, columns, terms), lanes_of(kind)
    left_over = columns % lanes if columns < 8 * lanes else 0  # each takes as long as a vector
    if b_across == 1 and columns >= lanes and left_over == 0 and min(rows, terms) <= FEW:
        _by_rows(kind, sizes, a, down, across, b, b_down, out, out_down, add)
    elif across == 1 and b_down == 1 and (
        columns < lanes or (rows <= FEW_DOTS and terms >= LONG_DOTS)
    ):
        _by_dots(kind, sizes, a, down, b, b_across, out, out_down, add)
    else:
        _by_panels(kind, sizes, a, down, across, b, b_down, b_across, out, out_down, add)
