// Rows by their numbers, and masks of dropout.
#pragma once

#include <algorithm>
#include <cmath>

#include "../vectors/formulas.h"
#include "../threads/pool.h"

namespace layerkit {
namespace LAYERKIT_SET {

inline i64 id_at(const Array& ids, i64 i, i64 count)
{
    double id = number_at(ids, i);
    expect_good(id >= 0 && id < double(count) && id == std::floor(id));
    return i64(id);
}

// y = rows of the table, by their numbers.
template <class T> void embed(const Array& ids, Matrix<T> table, T* y)
{
    i64 size = table.columns, rows = std::max<i64>(16384 / size, 1), all = ids.size();
    parallel((all + rows - 1) / rows, [&](i64 piece) {
        for (i64 i = piece * rows; i < std::min((piece + 1) * rows, all); ++i) {
            const T* from = table.row(id_at(ids, i, table.rows));
            std::copy(from, from + size, y + i * size);
        }
    });
}

// dtable = the sums of dy over the places of each id.  A piece of the work has some ids, and goes
// through all places.
template <class T> void embed_backward(const Array& ids, const T* dy, Matrix<T> dtable)
{
    i64 size = dtable.columns, all = ids.size();
    i64 pieces = std::min<i64>(std::max<i64>((dtable.rows + all) * size / 32768, 1), 32);
    i64 width = (dtable.rows + pieces - 1) / pieces;
    parallel((dtable.rows + width - 1) / width, [&](i64 piece) {
        i64 first = piece * width, stop = std::min(first + width, dtable.rows);
        std::fill(dtable.row(first), dtable.row(first) + (stop - first) * size, T(0));
        for (i64 i = 0; i < all; ++i) {
            i64 id = id_at(ids, i, dtable.rows);
            if (id < first || id >= stop) continue;
            T* __restrict to = dtable.row(id);
            const T* __restrict from = dy + i * size;
            for (i64 j = 0; j < size; ++j) to[j] += from[j];
        }
    });
}

// y (outer, count, after) is 1 at each id and 0 elsewhere.
template <class T> void one_hot(const Array& ids, i64 count, i64 after, T* y)
{
    i64 all = ids.size() / after, rows = std::max<i64>(16384 / (count * after), 1);
    parallel((all + rows - 1) / rows, [&](i64 piece) {
        i64 first = piece * rows, stop = std::min(first + rows, all), size = count * after;
        std::fill(y + first * size, y + stop * size, T(0));
        for (i64 i = first * after; i < stop * after; ++i)
            y[i / after * size + id_at(ids, i, count) * after + i % after] = T(1);
    });
}

// y = x mask, with a mask of 0 and 1 / (1 - ratio) from uniform numbers.
template <class T>
void dropout(
    i64 size, const T* x, T* mask, T* y, double ratio, unsigned long long seed, unsigned stream,
    unsigned long long step)
{
    constexpr i64 blocks = 16, piece = 4096;  // of four numbers at a time; numbers in a piece
    T kept = T(1 / (1 - ratio));
    parallel((size + piece - 1) / piece, [&](i64 p) {
        i64 stop = std::min((p + 1) * piece, size);
        for (i64 start = p * piece; start < stop; start += 4 * blocks) {
            unsigned words[4 * blocks] = {};
            for (i64 b = 0; b < blocks && ratio > 0; ++b)
                philox_block(unsigned(start / 4 + b), seed, stream, step, words + 4 * b);
            i64 count = std::min(4 * blocks, stop - start);
            for (i64 i = 0; i < count; ++i)
                mask[start + i] = uniform_of(words[i]) >= ratio ? kept : T(0);
            for (i64 i = 0; i < count; ++i) y[start + i] = x[start + i] * mask[start + i];
        }
    });
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
