"""Products of matrices of few rows, as those of small batches are.

BLAS copies both matrices before it multiplies them, in an order that suits its inner loop; with few
rows that takes longer than the product.  Here tiles of the result stay in registers, and the
matrices are read where they lie.  The code is written in LLVM's vectors, as a compiler is not sure
to keep a dozen totals of a loop over plain numbers in registers.
"""
# mypy: ignore-errors

from __future__ import annotations

import functools
from typing import Any

import numba
from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

I32, I64 = ir.IntType(32), ir.IntType(64)

# Where it is faster than BLAS, by measurement on processors with AVX2.
FEW_ROWS = 20  # of a, if rows of b are of neighbouring elements
FEW_TERMS = 32  # of each sum; or rows, if columns of b are of neighbouring elements

NEAR = 9600  # elements of b that stay in cache while all rows of a are multiplied by them
WIDE = 600  # columns of those; with up to three rows as many as there are


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
    builder.branch(test)
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
                row = v.address(b, builder.mul(k, b_down))
                left = [v.spread(v.address(a, builder.mul(k, across), r)) for r in of_row]
                right = [v.load(v.address(row, n)) for n in of_vector]
                pairs = [(x, y) for x in left for y in right]
                return [v.add_product(t, *p) for t, p in zip(totals, pairs, strict=True)]

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


_tile43, _tile41, _tile13, _tile11 = _tile(4, 3), _tile(4, 1), _tile(1, 3), _tile(1, 1)
_single4, _single1 = _tile(4, 1, lambda size: 1), _tile(1, 1, lambda size: 1)
_dots43, _dots41, _dots13, _dots11 = _dots(4, 3), _dots(4, 1), _dots(1, 3), _dots(1, 1)


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
                    y = b + (k * b_down + j) * size
                    z = out + (row * out_down + j) * size
                    if right - j >= 3 * lanes:
                        if four:
                            _tile43(kind, n, x, down, across, y, b_down, z, out_down, more)
                        else:
                            _tile13(kind, n, x, down, across, y, b_down, z, out_down, more)
                        j += 3 * lanes
                    elif right - j >= lanes:
                        if four:
                            _tile41(kind, n, x, down, across, y, b_down, z, out_down, more)
                        else:
                            _tile11(kind, n, x, down, across, y, b_down, z, out_down, more)
                        j += lanes
                    else:
                        if four:
                            _single4(kind, n, x, down, across, y, b_down, z, out_down, more)
                        else:
                            _single1(kind, n, x, down, across, y, b_down, z, out_down, more)
                        j += 1
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


def multiply(
    kind, rows, columns, terms, a, down, across, b, b_down, b_across, out, out_down, add
):
    """out = a @ b, or out += a @ b, where that is faster than by BLAS; whether it was done.

    Compiled to a C function, once for each type, as it is long.

    Args:
        kind: any number of the type.
        a, b, out: addresses; the next row is `down`, and the next column `across` numbers away.
            Rows of `out` are of neighbouring numbers.
    """
    sizes = (rows, columns, terms)
    if b_across == 1 and columns >= lanes_of(kind):
        if rows <= FEW_ROWS or terms <= FEW_TERMS:
            _by_rows(kind, sizes, a, down, across, b, b_down, out, out_down, add)
            return True
    elif rows <= FEW_TERMS and across == 1 and b_down == 1:
        _by_dots(kind, sizes, a, down, b, b_across, out, out_down, add)
        return True
    return False
