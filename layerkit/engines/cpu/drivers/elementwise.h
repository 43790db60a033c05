// Formulas over arrays of any strides, element by element, and sums of them.
#pragma once

#include <algorithm>

#include "../vectors/formulas.h"
#include "../vectors/simd.h"
#include "../vectors/sums.h"
#include "../threads/pool.h"

namespace layerkit {
namespace LAYERKIT_SET {

// to[i] = formula(a[i], b[i], c[i]); the numbers are those of runners/formulas.py.
template <class T> void combine(int kind, T s, i64 size, const T* a, const T* b, const T* c, T* to)
{
    auto each = [&](auto formula) {
#pragma GCC ivdep
        for (i64 i = 0; i < size; ++i) to[i] = formula(a[i], b[i], c[i]);
    };
    switch (kind) {
    case 0: return each(Copy<T>{s});
    case 1: return each(Scale<T>{s});
    case 2: return each(Sum<T>{s});
    case 3: return each(Difference<T>{s});
    case 4: return each(Product<T>{s});
    case 5: return each(ProductOfThree<T>{s});
    case 6: return each(Quotient<T>{s});
    case 7: return each(QuotientSlope<T>{s});
    case 8: return each(Affine<T>{s});
    case 9: return each(Prelu<T>{s});
    case 10: return each(PreluSlope<T>{s});
    case 11: return each(PreluSteepness<T>{s});
    }
}

constexpr int formulas = 12;

// Arrays of one shape, walked in the order of their indices.  Axes of size 1 are left out, and
// neighbouring ones joined where all arrays can walk them as one.
template <class T, int Count> struct Walk {
    int axes = 0;
    i64 shape[Array::most], stride[Count][Array::most];  // elements
    T* data[Count];
    bool dense[Count];

    explicit Walk(const Array (&arrays)[Count])
    {
        const Array& first = arrays[0];
        for (int axis = 0; axis < first.axes; ++axis) {
            if (first.shape[axis] == 1) continue;
            bool joined = axes > 0;
            for (int k = 0; k < Count; ++k) {
                stride[k][axes] = arrays[k].stride[axis] / i64(sizeof(T));
                joined = joined && stride[k][axes - 1] == stride[k][axes] * first.shape[axis];
            }
            shape[axes] = first.shape[axis];
            if (joined) {
                for (int k = 0; k < Count; ++k) stride[k][axes - 1] = stride[k][axes];
                shape[axes - 1] *= shape[axes];
            } else ++axes;
        }
        if (axes == 0) {
            for (int k = 0; k < Count; ++k) stride[k][0] = 1;
            shape[axes++] = 1;
        }
        for (int k = 0; k < Count; ++k) {
            data[k] = elements<T>(arrays[k]);
            i64 apart = 1;
            dense[k] = true;
            for (int axis = axes - 1; axis >= 0; apart *= shape[axis--])
                dense[k] = dense[k] && stride[k][axis] == apart;
        }
    }
    bool same(int k, int other) const  // array
    {
        return data[k] == data[other] && std::equal(stride[k], stride[k] + axes, stride[other]);
    }
    i64 size() const { return row() * shape[0]; }
    i64 row() const  // elements for each index of the first axis
    {
        i64 count = 1;
        for (int axis = 1; axis < axes; ++axis) count *= shape[axis];
        return count;
    }
    // function(at, offset, length) for runs along the last axis that make up `size` elements from
    // number `start` on: run at + i is at data[k] + offset + i * stride[k][axes - 1].
    template <class Function>
    LAYERKIT_INLINE void runs(int k, i64 start, i64 size, Function&& function) const
    {
        i64 index[Array::most], offset = 0, last = axes - 1;
        for (int axis = axes - 1; axis >= 0; start /= shape[axis--]) {
            index[axis] = start % shape[axis];
            offset += index[axis] * stride[k][axis];
        }
        for (i64 at = 0; at < size;) {
            i64 length = std::min(size - at, shape[last] - index[last]);
            function(at, offset, length);
            at += length;
            offset += length * stride[k][last];
            index[last] += length;
            for (i64 axis = last; axis > 0 && index[axis] == shape[axis]; --axis) {
                offset += stride[k][axis - 1] - shape[axis] * stride[k][axis];
                index[axis] = 0;
                ++index[axis - 1];
            }
        }
    }
    // The elements side by side: where they are, or else copied to `space`.
    const T* side_by_side(int k, i64 start, i64 size, T* space) const
    {
        if (dense[k]) return data[k] + start;
        i64 step = stride[k][axes - 1];
        runs(k, start, size, [&](i64 at, i64 offset, i64 length) {
            const T* from = data[k] + offset;
            T* to = space + at;
            if (step == 0) std::fill(to, to + length, T(*from));
            else if (step == 1) for (i64 i = 0; i < length; ++i) to[i] = from[i];
            else for (i64 i = 0; i < length; ++i) to[i] = from[i * step];
        });
        return space;
    }
};

constexpr i64 staged = 512;  // elements that are copied side by side at a time
constexpr i64 most_parts = 64;  // of a sum that are added up in the end

// function(at, size, values) for pieces of the formula's results from `start` to `stop`, which are
// written to `y` if it is not null.
template <class T, class Function>
void combine_pieces(
    const Walk<T, 4>& walk, int kind, T setting, i64 start, i64 stop, T* y, Function&& function)
{
    T spaces[4][staged];
    bool whole = y && walk.dense[0] && walk.dense[1] && walk.dense[2];
    if (kind == 0) whole = y || walk.dense[0];  // a copy is not staged
    for (i64 piece = whole ? stop - start : staged; start < stop; start += piece) {
        i64 size = std::min(piece, stop - start);
        if (kind == 0) {
            T* to = y ? y + start : spaces[3];
            const T* made = walk.side_by_side(0, start, size, to);
            if (y && made != to) std::memcpy(to, made, size_t(size) * sizeof(T));
            function(start, size, made);
            continue;
        }
        const T* from[3];
        for (int k = 0; k < 3; ++k)  // operands that are one array are copied once
            from[k] = k && walk.same(k, 0) ? from[0]
                                           : walk.side_by_side(k, start, size, spaces[k]);
        T* to = y ? y + start : spaces[3];
        combine(kind, setting, size, from[0], from[1], from[2], to);
        function(start, size, to);
    }
}

// The sums over the axes along which y has strides of 0, in double precision.  Parts follow from the
// sizes alone.
template <class T> void combine_sums(const Walk<T, 4>& walk, int kind, T setting)
{
    i64 rows = walk.shape[0], row = walk.row(), step = walk.stride[3][0], last = walk.axes - 1, all = 1;
    for (int axis = last; axis >= 0; --axis) {
        expect(walk.stride[3][axis] == 0 || walk.stride[3][axis] == all);
        if (walk.stride[3][axis]) all *= walk.shape[axis];
    }
    i64 least = step ? 1 : (rows + most_parts - 1) / most_parts;
    i64 width = std::max<i64>(std::max<i64>(16384 / row, 1), least), count = (rows + width - 1) / width;
    i64 own = step ? width * step : all;
    double* sums = work_space<struct OfSums, double>(count * own);
    double factor = kind == 1 ? double(setting) : 1;  // which is that of the sum, too
    if (kind == 1) kind = 0;
    T* y = walk.data[3];
    parallel(count, [&](i64 part) {
        i64 first = part * width, stop = std::min(first + width, rows);
        double* total = sums + part * own;
        std::fill(total, total + own, 0.0);
        auto add = [&](i64 start, i64 size, const T* values) {
            walk.runs(3, start, size, [&](i64 at, i64 offset, i64 length) {
                double* to = total + offset - first * step;
                const T* from = values + at;
                if (walk.stride[3][last]) {
                    for (i64 i = 0; i < length; ++i) to[i] += double(from[i]);
                    return;
                }
                *to += sum_run(from, length);
            });
        };
        combine_pieces<T>(walk, kind, setting, first * row, stop * row, nullptr, add);
        if (step)
            for (i64 i = 0; i < (stop - first) * step; ++i) y[first * step + i] = T(factor * total[i]);
    });
    for (i64 i = 0; !step && i < all; ++i) {
        double total = 0;
        for (i64 part = 0; part < count; ++part) total += sums[part * own + i];
        y[i] = T(factor * total);
    }
}

// y = a, whose neighbours lie along another axis than those of y: squares of both axes at a time.
template <class T> void copy_turned(const Walk<T, 4>& walk, int axis)
{
    constexpr i64 side = 32;
    int last = walk.axes - 1, order[Array::most];
    for (int k = 0, at = 0; k < walk.axes; ++k)
        if (k != axis && k != last) order[at++] = k;
    i64 across = walk.shape[axis], down = walk.shape[last], others = walk.size() / (across * down);
    i64 strips = (across + side - 1) / side;
    const i64 *from_stride = walk.stride[0], *to_stride = walk.stride[3];
    parallel(others * strips, [&](i64 piece) {
        i64 from = 0, to = 0, rest = piece / strips, left = piece % strips * side;
        for (int k = walk.axes - 3; k >= 0; rest /= walk.shape[order[k--]]) {
            from += rest % walk.shape[order[k]] * from_stride[order[k]];
            to += rest % walk.shape[order[k]] * to_stride[order[k]];
        }
        turn(walk.data[0] + from + left, from_stride[last], down, std::min(side, across - left),
             walk.data[3] + to + left * to_stride[axis], to_stride[axis]);
    });
}

template <class T> void elementwise(const Walk<T, 4>& walk, int kind, T setting)
{
    if (kind == 1 && setting == 1) kind = 0;
    if (!walk.dense[3]) return combine_sums(walk, kind, setting);
    if (kind == 0 && walk.stride[0][walk.axes - 1] > 1)
        for (int axis = 0; axis < walk.axes - 1; ++axis)
            if (walk.stride[0][axis] == 1) return copy_turned(walk, axis);
    constexpr i64 piece = 16384;
    i64 size = walk.size();
    parallel((size + piece - 1) / piece, [&](i64 i) {
        combine_pieces<T>(walk, kind, setting, i * piece, std::min((i + 1) * piece, size),
                          walk.data[3], [](i64, i64, const T*) {});
    });
}

// function(start, offset, step, length) for runs of y's elements from number `start` on, whose numbers
// of x begin `step` apart from `offset` on; shared among the threads.
template <class T, class Function>
void each_of_largest(const Walk<T, 2>& kept, i64 numbers, Function&& function)
{
    i64 piece = std::max<i64>(16384 / numbers, staged), size = kept.size();
    parallel((size + piece - 1) / piece, [&](i64 p) {
        i64 start = p * piece, stop = std::min(start + piece, size);
        kept.runs(0, start, stop - start, [&](i64 at, i64 offset, i64 length) {
            i64 step = kept.stride[0][kept.axes - 1];
            for (i64 i = 0; i < length; i += staged)
                function(start + at + i, offset + i * step, step, std::min(staged, length - i));
        });
    });
}

// The largest of the numbers that a walk of one array meets from each of `length` places in x on, and
// where on the way; at most `staged` of them.
template <class T>
void largest_of(const Walk<T, 1>& walk, const T* x, i64 step, i64 length, T* value, int* place)
{
    for (i64 i = 0; i < length; ++i) {
        value[i] = x[i * step];
        place[i] = 0;
    }
    i64 apart = walk.stride[0][walk.axes - 1];
    walk.runs(0, 0, walk.size(), [&](i64 at, i64 offset, i64 count) {
        if (step == 1) {  // the places are neighbours
            for (i64 k = 0; k < count; ++k) {
#pragma GCC ivdep
                for (i64 i = 0; i < length; ++i) {
                    Largest<T> largest{value[i], place[i]};
                    largest.look(x[i + offset + k * apart], int(at + k));
                    value[i] = largest.value;
                    place[i] = largest.place;
                }
            }
            return;
        }
        for (i64 i = 0; i < length; ++i) {
            Largest<T> largest{value[i], place[i]};
            for (i64 k = 0; k < count; ++k)
                largest.look(x[i * step + offset + k * apart], int(at + k));
            value[i] = largest.value;
            place[i] = largest.place;
        }
    });
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
