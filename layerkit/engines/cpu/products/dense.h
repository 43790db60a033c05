// Dense, forward and backward, with bias, activation and a solver's update while a piece is in cache.
#pragma once

#include <cmath>

#include "../threads/pool.h"
#include "product.h"
#include "../drivers/updates.h"

namespace layerkit {
namespace LAYERKIT_SET {

constexpr i64 line = 16;          // elements: pieces are multiples of it
constexpr i64 long_sum = 512;     // inputs or units that are worth cutting up
constexpr i64 very_few = 3;       // examples, with which whole rows of W are read
constexpr i64 few_examples = 32;  // with which memory takes longer than the products
constexpr i64 grain = 1 << 16;    // weights in a piece then; half as many with more examples

LAYERKIT_INLINE i64 pieces_of(i64 length, i64 width) { return (length + width - 1) / width; }
LAYERKIT_INLINE i64 lines_of(i64 length) { return pieces_of(length, line) * line; }
constexpr i64 wide_piece = 288;   // columns: whole panels, for vectors of any width

// How long a piece is that has about `weights` weights, `each` for every unit of its length.
LAYERKIT_INLINE i64 piece_length(i64 length, i64 each, i64 examples)
{
    i64 weights = examples <= few_examples ? grain : grain / 2;
    return std::min(lines_of(std::max<i64>(weights / std::max<i64>(each, 1), 1)), lines_of(length));
}

// a(x), which multiplies what is not positive by `slope`; a NaN stays one, and a slope of zero makes
// zero of minus infinity, too.
template <class T> LAYERKIT_INLINE T rectified(T x, T slope)
{
    return x <= 0 ? (slope == 0 ? T(0) : slope * x) : x;
}

// y = a(y + b).
template <class T> LAYERKIT_INLINE void activate(T* y, const T* b, i64 size, T slope)
{
    for (i64 j = 0; j < size; ++j) y[j] = rectified(y[j] + b[j], slope);
}

template <class T>
void dense_forward(Matrix<T> x, Matrix<T> w, const T* b, T slope, Matrix<T> y)
{
    i64 inputs = w.rows, units = w.columns, n = x.rows;
    // With next to no examples W is read in the order of memory, which is by inputs.
    if ((inputs >= long_sum && units < long_sum) || (n <= very_few && units >= long_sum)) {
        i64 width = piece_length(inputs, units, n);
        i64 count = pieces_of(inputs, width), apart = n * units;
        T* sums = work_space<struct OfForward, T>(count * apart);
        parallel(count, [&](i64 i) {
            i64 first = i * width, last = std::min(first + width, inputs);
            Matrix<T> to{sums + i * apart, n, units, units, 1};
            multiply<T>(
                fixed(x.block(0, n, first, last)), fixed(w.block(first, last, 0, units)), to, false);
        });
        i64 span = n < 8 ? std::max<i64>(lines_of(pieces_of(units, 4)), 256) : units;
        i64 across = pieces_of(units, span), rows = n < 8 ? n : 8;
        parallel(pieces_of(n, rows) * across, [&](i64 i) {
            i64 left = i % across * span, size = std::min(span, units - left);
            for (i64 r = i / across * rows; r < std::min((i / across + 1) * rows, n); ++r) {
                T* to = y.row(r) + left;
                for (i64 p = 0; p < count; ++p) {
                    const T* from = sums + p * apart + r * units + left;
                    if (p == 0) for (i64 j = 0; j < size; ++j) to[j] = from[j];
                    else for (i64 j = 0; j < size; ++j) to[j] += from[j];
                }
                activate(to, b + left, size, slope);
            }
        });
    } else if (units >= long_sum) {  // cut by units, and these by examples so that y stays in cache
        i64 width = pieces_of(piece_length(units, inputs, n), wide_piece) * wide_piece;
        constexpr i64 rows = 128, columns = wide_piece;
        parallel(pieces_of(units, width), [&](i64 i) {
            i64 stop = std::min((i + 1) * width, units);
            for (i64 left = i * width; left < stop; left += columns) {
                i64 right = std::min(left + columns, stop);
                for (i64 first = 0; first < n; first += rows) {
                    i64 last = std::min(first + rows, n);
                    multiply<T>(fixed(x.block(first, last, 0, inputs)),
                                fixed(w.block(0, inputs, left, right)),
                                y.block(first, last, left, right), false);
                    for (i64 r = first; r < last; ++r)
                        activate(y.row(r) + left, b + left, right - left, slope);
                }
            }
        });
    } else {
        i64 rows = std::max<i64>(16, std::min<i64>(64, grain * 16 / std::max<i64>(w.rows * units, 1)));
        parallel(pieces_of(n, rows), [&](i64 i) {
            i64 first = i * rows, last = std::min(first + rows, n);
            multiply<T>(fixed(x.block(first, last, 0, inputs)), fixed(w),
                        y.block(first, last, 0, units), false);
            for (i64 r = first; r < last; ++r) activate(y.row(r), b, units, slope);
        });
    }
}

// The sums of the columns left to right of d.
template <class T> void sum_rows(Matrix<T> d, i64 left, i64 right, T* total)
{
    i64 size = right - left, whole = d.rows / 4 * 4;
    for (i64 j = 0; j < size; ++j) total[j] = 0;
    for (i64 r = 0; r < whole; r += 4) {
        const T *a = d.row(r) + left, *b = d.row(r + 1) + left;
        const T *e = d.row(r + 2) + left, *f = d.row(r + 3) + left;
        for (i64 j = 0; j < size; ++j) total[j] += (a[j] + b[j]) + (e[j] + f[j]);
    }
    for (i64 r = whole; r < d.rows; ++r) {
        const T* a = d.row(r) + left;
        for (i64 j = 0; j < size; ++j) total[j] += a[j];
    }
}

// Everything that a piece of the backward pass needs; pointers that are null are not wanted.
template <class T> struct DenseBackward {
    Matrix<T> x, d, w, dw, dx;
    T *b, *db, *w_first, *w_second, *b_first, *b_second;
    bool wants_dx;
};

// The gradients of rows [first, last) and columns [left, right) of W; dx's part goes to `target`.
template <class T, class Update>
void backward_block(
    const DenseBackward<T>& o, const Update& update, i64 first, i64 last, i64 left, i64 right,
    Matrix<T> target)
{
    i64 n = o.x.rows, inputs = o.w.rows, units = o.w.columns;
    constexpr bool updates = !std::is_same_v<Update, std::nullptr_t>;
    bool few_rows = n <= few_examples;
    i64 widest = few_rows ? 20000 : 4 * wide_piece;
    for (i64 c = left; c < right; c += widest) {
        i64 c_end = std::min(c + widest, right), width = c_end - c;
        i64 rows = few_rows ? std::max<i64>(20000 / width / 4 * 4, 4)
                            : std::min<i64>(std::max<i64>((1 << 16) / width / 4 * 4, 4), 160);
        rows = std::min(rows, last - first);
        T* scratch = updates ? work_space<struct OfBlock, T>(rows * width) : nullptr;
        Matrix<const T> dc = fixed(o.d.block(0, n, c, c_end));
        if (!updates && !o.dw.empty()) {
            Matrix<const T> xr = fixed(o.x.block(0, n, first, last)).turned();
            Matrix<T> dw = o.dw.block(first, last, c, c_end);
            if (o.dw.across == 1) multiply<T>(xr, dc, dw, false);
            else multiply<T>(dc.turned(), xr.turned(), dw.turned(), false);
        }
        if (o.wants_dx && !few_rows)
            multiply<T>(dc, fixed(o.w.block(first, last, c, c_end)).turned(), target, c > left);
        for (i64 r = first; r < last; r += rows) {
            i64 r_end = std::min(r + rows, last);
            if (o.wants_dx && few_rows)
                multiply<T>(dc, fixed(o.w.block(r, r_end, c, c_end)).turned(),
                            target.block(0, n, r - first, r_end - first), c > left);
            if constexpr (updates) {
                Matrix<T> g{scratch, r_end - r, width, width, 1};
                multiply<T>(fixed(o.x.block(0, n, r, r_end)).turned(), dc, g, false);
                for (i64 k = r; k < r_end; ++k)
                    apply(update, width, g.row(k - r), o.w.row(k) + c, o.w_first + k * units + c,
                          o.w_second + k * units + c);
            }
        }
        if (o.db && last == inputs) {
            sum_rows(o.d, c, c_end, o.db + c);
            if constexpr (updates)
                apply(update, width, o.db + c, o.b + c, o.b_first + c, o.b_second + c);
        }
    }
}

template <class T, class Update>
void dense_backward(
    DenseBackward<T> o, const Update& update, Matrix<T> y, Matrix<T> dy, T slope)
{
    i64 inputs = o.w.rows, units = o.w.columns, n = o.x.rows;
    if (slope != 1) {
        i64 rows = std::max<i64>(1, 16384 / std::max<i64>(units, 1));
        parallel(pieces_of(n, rows), [&](i64 i) {
            for (i64 r = i * rows; r < std::min((i + 1) * rows, n); ++r) {
                const T *from = dy.row(r), *top = y.row(r);
                T* to = o.d.row(r);
                for (i64 j = 0; j < units; ++j) to[j] = top[j] > 0 ? from[j] : slope * from[j];
            }
        });
    }
    i64 height, width = units;
    if (n <= few_examples || units < long_sum) {
        i64 products = lines_of(std::max<i64>(pieces_of(1 << 20, units * n), 1));
        height = std::min(products, piece_length(inputs, units, n));
        if (units >= long_sum) height = pieces_of(std::max<i64>(grain / 2 / units, 1), 4) * 4;
    } else {
        height = std::min<i64>(64, lines_of(inputs));
        width = 2 * wide_piece;
    }
    i64 across = pieces_of(units, width), down = pieces_of(inputs, height);
    i64 apart = n * inputs;
    T* sums = across > 1 && o.wants_dx ? work_space<struct OfBackward, T>(across * apart) : nullptr;
    parallel(down * across, [&](i64 i) {
        i64 first = i / across * height, last = std::min(first + height, inputs);
        i64 left = i % across * width, right = std::min(left + width, units);
        Matrix<T> target = o.dx.block(0, o.wants_dx ? n : 0, first, last);
        if (o.wants_dx && across > 1)
            target = {sums + (i % across) * apart + first, n, last - first, inputs, 1};
        backward_block(o, update, first, last, left, right, target);
    });
    if (across > 1 && o.wants_dx) {
        i64 rows = std::max<i64>(1, 8192 / std::max<i64>(inputs, 1));
        parallel(pieces_of(n, rows), [&](i64 i) {
            for (i64 r = i * rows; r < std::min((i + 1) * rows, n); ++r) {
                T* to = o.dx.row(r);
                for (i64 p = 0; p < across; ++p) {
                    const T* from = sums + p * apart + r * inputs;
                    if (p == 0) for (i64 j = 0; j < inputs; ++j) to[j] = from[j];
                    else for (i64 j = 0; j < inputs; ++j) to[j] += from[j];
                }
            }
        });
    }
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
