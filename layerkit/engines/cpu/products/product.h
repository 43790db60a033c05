// Products of matrices.
//
// A tile of the result stays in registers while its terms are added up.  With few rows, or few
// terms, both matrices are read in place: copying them takes longer than multiplying.  Else a panel
// of the second matrix, as wide as a tile, is copied to the nearest cache, where all rows of the
// first are multiplied by it.
//
// Not BLAS, because products here are pieces of kernels: each thread multiplies matrices of some
// hundred rows and uses the result while it is in its cache.
#pragma once

#include <algorithm>

#include "../vectors/simd.h"

namespace layerkit {
namespace LAYERKIT_SET {

constexpr int tile_rows = LAYERKIT_TILE;
constexpr int tile_vectors = 3;

constexpr i64 few = 20;          // rows, or terms, with which copying does not pay
constexpr i64 few_dots = 16;     // rows at most ...
constexpr i64 long_dots = 64;    // ... and terms at least, where columns are of neighbours
constexpr i64 near_cache = 9600;  // elements that stay there while rows are multiplied by them
constexpr i64 wide = 576;        // columns of those, with more than a few rows: whole tiles
constexpr i64 panel_bytes = 24576;
constexpr i64 deep = 256;        // terms of a panel, at most
constexpr i64 ahead = 8;         // rows after which those of c will be written that are asked for
constexpr i64 high = 192;        // rows that stay in the next cache, multiplied by a panel

// c = a b, or c += a b, of R rows and V vectors of columns.
template <class T, int R, int V>
LAYERKIT_INLINE void tile(
    i64 terms, const T* a, i64 down, i64 across, const T* b, i64 b_down, T* c, i64 c_down, bool add)
{
    constexpr int lanes = Simd<T>::lanes;
    Vector<T> total[R][V];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v)
            total[r][v] = add ? load(c + r * c_down + v * lanes) : Vector<T>{};
    for (i64 k = 0; k < terms; ++k) {
        Vector<T> right[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) right[v] = load(b + k * b_down + v * lanes);
        const T* left = a + k * across;
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            Vector<T> one = left[r * down] - Vector<T>{};
            keep(one);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) total[r][v] += one * right[v];
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) store<T>(total[r][v], c + r * c_down + v * lanes);
}

template <class T>
LAYERKIT_INLINE void any_tile(
    bool full, int vectors, i64 terms, const T* a, i64 down, i64 across, const T* b, i64 b_down,
    T* c, i64 c_down, bool add)
{
    if (full) {
        if (vectors == 3) tile<T, tile_rows, 3>(terms, a, down, across, b, b_down, c, c_down, add);
        else if (vectors == 2) tile<T, tile_rows, 2>(terms, a, down, across, b, b_down, c, c_down, add);
        else tile<T, tile_rows, 1>(terms, a, down, across, b, b_down, c, c_down, add);
    } else {
        if (vectors == 3) tile<T, 1, 3>(terms, a, down, across, b, b_down, c, c_down, add);
        else if (vectors == 2) tile<T, 1, 2>(terms, a, down, across, b, b_down, c, c_down, add);
        else tile<T, 1, 1>(terms, a, down, across, b, b_down, c, c_down, add);
    }
}

// How many vectors the next tile has; never so that one is left over, which is slow.
LAYERKIT_INLINE int next_vectors(i64 left)
{
    return left == 3 || left > 4 ? 3 : static_cast<int>(std::min<i64>(left, 2));
}

// Copies `b` to rows of `width` elements; what it lacks of these are zeros.
template <class T> void make_panel(Matrix<const T> b, i64 width, T* panel)
{
    if (b.across == 1) {
        for (i64 k = 0; k < b.rows; ++k, panel += width) {
            const T* from = b.row(k);
            for (i64 j = 0; j < b.columns; ++j) panel[j] = from[j];
            for (i64 j = b.columns; j < width; ++j) panel[j] = 0;
        }
        return;
    }
    constexpr i64 lanes = Simd<T>::lanes;
    i64 whole_rows = b.down == 1 ? b.rows / lanes * lanes : 0;
    i64 whole_columns = whole_rows ? b.columns / lanes * lanes : 0;
    for (i64 j = 0; j < whole_columns; j += lanes) {
        for (i64 k = 0; k < whole_rows; k += lanes) {
            Vector<T> square[lanes];
#pragma GCC unroll 16
            for (i64 i = 0; i < lanes; ++i) square[i] = load(&b.at(k, j + i));
            transpose<T>(square);
#pragma GCC unroll 16
            for (i64 i = 0; i < lanes; ++i) store<T>(square[i], panel + (k + i) * width + j);
        }
    }
    for (i64 j = 0; j < width; ++j)
        for (i64 k = j < whole_columns ? whole_rows : 0; k < b.rows; ++k)
            panel[k * width + j] = j < b.columns ? b.at(k, j) : T(0);
}

// Copies part of a tile to where it belongs, or adds it to what is there.
template <class T>
LAYERKIT_INLINE void pour(
    const T* corner, i64 width, i64 rows, i64 columns, T* to, i64 down, bool add)
{
    for (i64 r = 0; r < rows; ++r)
        for (i64 i = 0; i < columns; ++i)
            to[r * down + i] = (add ? to[r * down + i] : T(0)) + corner[r * width + i];
}

// Rows of b are of neighbours, and read in place.
template <class T>
void by_rows(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, bool add)
{
    constexpr int lanes = Simd<T>::lanes;
    i64 terms = a.columns, width = a.rows > 3 ? wide : near_cache;
    i64 depth = std::max<i64>(near_cache / std::max<i64>(std::min(width, c.columns), 1), 4);
    alignas(64) T panel[near_cache];  // of less than a vector of columns, filled up with zeros
    alignas(64) T corner[tile_rows * lanes];
    for (i64 left = 0; left < c.columns; left += width) {
        i64 right = std::min(left + width, c.columns);
        for (i64 k = 0; k < std::max<i64>(terms, 1); k += depth) {
            i64 n = std::min(depth, terms - k);
            bool more = add || k > 0;
            i64 over = right - (right - left) % lanes, taken = right - over;
            if (taken) make_panel<T>(b.block(k, k + n, over, right), lanes, panel);
            for (i64 row = 0; row < c.rows;) {
                bool full = c.rows - row >= tile_rows;
                const T* x = a.data + row * a.down + k * a.across;
                i64 j = left;
                while (right - j >= lanes) {
                    int vectors = next_vectors((right - j) / lanes);
                    any_tile<T>(full, vectors, n, x, a.down, a.across, b.data + k * b.down + j,
                                b.down, c.row(row) + j, c.down, more);
                    j += vectors * lanes;
                }
                i64 bottom = row + (full ? tile_rows : 1);
                if (taken) {
                    any_tile<T>(full, 1, n, x, a.down, a.across, panel, lanes, corner, lanes, false);
                    pour(corner, lanes, bottom - row, taken, c.row(row) + over, c.down, more);
                }
                row = bottom;
            }
        }
    }
}

// c = a b^T, or c += a b^T, of R rows of a and S of b.
template <class T, int R, int S>
LAYERKIT_INLINE void dots(
    i64 terms, const T* a, i64 a_down, const T* b, i64 b_down, T* c, i64 c_down, bool add)
{
    constexpr int lanes = Simd<T>::lanes;
    Vector<T> total[R][S]{};
    i64 k = 0;
    for (; k + lanes <= terms; k += lanes) {
        Vector<T> right[S];
#pragma GCC unroll 4
        for (int s = 0; s < S; ++s) right[s] = load(b + s * b_down + k);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            Vector<T> left = load(a + r * a_down + k);
            keep(left);
#pragma GCC unroll 4
            for (int s = 0; s < S; ++s) total[r][s] += left * right[s];
        }
    }
    // Unrolled as well: an index that is not known would move the totals to memory.
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int s = 0; s < S; ++s) {
            T one = sum<T>(total[r][s]);
            for (i64 t = k; t < terms; ++t) one += a[r * a_down + t] * b[s * b_down + t];
            T& to = c[r * c_down + s];
            to = add ? to + one : one;
        }
    }
}

// Columns of b are of neighbours, and so are rows of a.
template <class T>
void by_dots(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, bool add)
{
    i64 terms = a.columns, width = a.rows > 3 ? wide : near_cache;
    for (i64 k = 0; k < std::max<i64>(terms, 1); k += width) {
        i64 n = std::min(width, terms - k);
        bool more = add || k > 0;
        for (i64 j = 0; j < c.columns;) {
            bool three = c.columns - j >= 3;
            const T* y = b.data + j * b.across + k;
            for (i64 row = 0; row < c.rows;) {
                bool four = c.rows - row >= 4;
                const T* x = a.row(row) + k;
                T* to = c.row(row) + j;
                if (three && four) dots<T, 4, 3>(n, x, a.down, y, b.across, to, c.down, more);
                else if (three) dots<T, 1, 3>(n, x, a.down, y, b.across, to, c.down, more);
                else if (four) dots<T, 4, 1>(n, x, a.down, y, b.across, to, c.down, more);
                else dots<T, 1, 1>(n, x, a.down, y, b.across, to, c.down, more);
                row += four ? 4 : 1;
            }
            j += three ? 3 : 1;
        }
    }
}

// Asks for the next panel while rows are multiplied by the present one: its lines are too far apart
// for the processor to guess.
template <class T> class Fetch {
public:
    Fetch(Matrix<const T> b, i64 k, i64 terms, i64 j, i64 columns, i64 rows)
    {
        if (columns <= 0) return;
        bool lies = b.across == 1;  // else columns are of neighbours
        at_ = b.data + k * b.down + j * b.across;
        apart_ = lies ? b.down : b.across;
        lines_ = lies ? terms : columns;
        length_ = lies ? columns : terms;
        each_ = (lines_ + rows - 1) / rows;
    }
    // The share of `rows` rows.
    LAYERKIT_INLINE void some(i64 rows)
    {
        constexpr i64 line = 64 / sizeof(T);
        for (i64 i = 0; i < each_ * rows && lines_ > 0; ++i, --lines_, at_ += apart_) {
            for (i64 x = 0; x < length_; x += line) __builtin_prefetch(at_ + x, 0, 2);
            __builtin_prefetch(at_ + length_ - 1, 0, 2);
        }
    }

private:
    const T* at_ = nullptr;
    i64 apart_ = 0, lines_ = 0, length_ = 0, each_ = 0;
};

template <class T>
void by_panels(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, bool add)
{
    constexpr int lanes = Simd<T>::lanes;
    constexpr i64 widest = tile_vectors * lanes;
    constexpr i64 most = std::min<i64>(panel_bytes / (widest * i64(sizeof(T))), deep);
    alignas(64) T panel[most * widest];
    alignas(64) T strips[high * most];
    alignas(64) T corner[tile_rows * widest];
    i64 terms = a.columns, parts = std::max<i64>((terms + most - 1) / most, 1);
    i64 depth = std::max<i64>((terms + parts - 1) / parts, 1);
    for (i64 k = 0; k < std::max<i64>(terms, 1); k += depth) {
        i64 n = std::min(depth, terms - k);
        bool more = add || k > 0;
        for (i64 top = 0; top < c.rows; top += high) {
            i64 rows = std::min(high, c.rows - top), whole = 0;
            Matrix<const T> block = a.block(top, top + rows, k, k + n);
            // Of a transposed matrix, the rows of a tile are copied side by side.
            if (block.down == 1) {
                whole = rows / tile_rows * tile_rows;
                for (i64 row = 0; row < whole; row += tile_rows)
                    for (i64 t = 0; t < n; ++t)
                        for (int r = 0; r < tile_rows; ++r)
                            strips[row * n + t * tile_rows + r] = block.data[t * block.across + row + r];
            }
            for (i64 j = 0; j < c.columns;) {
                int vectors = next_vectors((c.columns - j + lanes - 1) / lanes);
                i64 width = vectors * lanes, taken = std::min(width, c.columns - j);
                make_panel<T>(b.block(k, k + n, j, j + taken), width, panel);
                Fetch<T> next(b, k, n, j + taken, std::min(width, c.columns - j - taken), rows);
                for (i64 row = 0; row < rows;) {
                    bool full = rows - row >= tile_rows;
                    i64 count = full ? tile_rows : 1, down = block.down, across = block.across;
                    const T* x = block.row(row);
                    if (row < whole) {
                        x = strips + row * n;
                        down = 1;
                        across = tile_rows;
                    }
                    T* to = c.row(top + row) + j;
                    next.some(count);
                    for (i64 r = row + ahead; r < std::min(row + ahead + count, rows); ++r) {
                        __builtin_prefetch(c.row(top + r) + j, 1);
                        __builtin_prefetch(c.row(top + r) + j + taken - 1, 1);
                    }
                    if (taken == width) {
                        any_tile<T>(full, vectors, n, x, down, across, panel, width, to, c.down, more);
                    } else {
                        any_tile<T>(full, vectors, n, x, down, across, panel, width, corner, width, false);
                        pour(corner, width, count, taken, to, c.down, more);
                    }
                    row += count;
                }
                j += taken;
            }
        }
    }
}

// c = a b, or c += a b.  Each of a and b may be transposed; rows of c are of neighbours.
template <class T>
void multiply(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, bool add)
{
    constexpr i64 lanes = Simd<T>::lanes;
    i64 terms = a.columns;
    i64 left_over = c.columns < 8 * lanes ? c.columns % lanes : 0;  // each takes as long as a vector
    if (b.across == 1 && c.columns >= lanes && left_over == 0 && std::min(c.rows, terms) <= few)
        by_rows(a, b, c, add);
    else if (a.across == 1 && b.down == 1
             && (c.columns < lanes || (c.rows <= few_dots && terms >= long_dots)))
        by_dots(a, b, c, add);
    else
        by_panels(a, b, c, add);
}

template <class T> LAYERKIT_INLINE Matrix<const T> fixed(Matrix<T> m)
{
    return {m.data, m.rows, m.columns, m.down, m.across};
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
