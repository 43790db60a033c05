// Pooling, channel by channel of each example.
#pragma once

#include <algorithm>

#include "../vectors/formulas.h"
#include "../threads/pool.h"

namespace layerkit {
namespace LAYERKIT_SET {

// How windows lie on the pictures of `planes` channels of all examples.
struct PoolingShape {
    PoolingAxis down, across;
    i64 planes;

    i64 pixels() const { return down.size * across.size; }
    i64 windows() const { return down.windows * across.windows; }
    // function(p) for every plane, shared among the threads.
    template <class Function> void by_pieces(Function&& function) const
    {
        i64 work = std::max<i64>(pixels() + windows() * down.kernel * across.kernel, 1);
        i64 piece = std::max<i64>((1 << 16) / work, 1);
        parallel((planes + piece - 1) / piece, [&](i64 i) {
            for (i64 p = i * piece; p < std::min((i + 1) * piece, planes); ++p) function(p);
        });
    }
};

// The sum of neighbouring numbers.
template <class T> T sum_pixels(const T* x, i64 size)
{
    constexpr i64 lanes = Simd<T>::lanes;
    Vector<T> a{}, b{};
    i64 k = 0;
    for (; k + 2 * lanes <= size; k += 2 * lanes) {
        a += load(x + k);
        b += load(x + k + lanes);
    }
    T rest = 0;
    for (; k < size; ++k) rest += x[k];
    return sum<T>(a + b) + rest;
}

// The maximum of window (i, j) of a picture with its place, or its mean.
template <class T>
void pool_window(const PoolingShape& s, i64 i, i64 j, const T* picture, T& value, int* place)
{
    PoolingAxis::Span rows = s.down.span(i), columns = s.across.span(j);
    int first = int(rows.first * s.across.size + columns.first);
    Largest<T> largest{picture[first], first};
    if (!place) {
        // Whole lines follow each other in memory.
        i64 width = columns.stop - columns.first;
        i64 lines = width == s.across.size ? std::max<i64>(4096 / width, 1) : 1;
        double total = 0;
        for (i64 row = rows.first; row < rows.stop; row += lines)
            total += double(sum_pixels(picture + row * s.across.size + columns.first,
                                       std::min(lines, rows.stop - row) * width));
        value = T(total / double(rows.whole * columns.whole));
        return;
    }
    for (i64 row = rows.first; row < rows.stop; ++row)
        for (i64 k = row * s.across.size + columns.first; k < row * s.across.size + columns.stop; ++k)
            largest.look(picture[k], int(k));
    value = largest.value;
    *place = largest.place;
}

constexpr i64 together = 16;  // windows that are looked at side by side

// The windows of a picture that have all their pixels, and the others.
struct WholeWindows {
    i64 count = 0, rest = 0;
    int *window, *begin, *others;  // numbers of windows, and of their first pixels

    explicit WholeWindows(const PoolingShape& s)
    {
        window = work_space<struct OfWindowNumbers, int>(s.windows() + together);
        begin = work_space<struct OfFirstPixels, int>(s.windows() + together);
        others = work_space<struct OfPartialWindows, int>(s.windows());
        for (i64 i = 0, w = 0; i < s.down.windows; ++i) {
            PoolingAxis::Span rows = s.down.span(i);
            for (i64 j = 0; j < s.across.windows; ++j, ++w) {
                PoolingAxis::Span columns = s.across.span(j);
                bool whole = rows.stop - rows.first == s.down.kernel
                    && columns.stop - columns.first == s.across.kernel;
                if (!whole) {
                    others[rest++] = int(w);
                    continue;
                }
                window[count] = int(w);
                begin[count++] = int(rows.first * s.across.size + columns.first);
            }
        }
        // The last ones once more, so that there are always some that can be looked at together.
        for (i64 k = count; count && k < (count + together - 1) / together * together; ++k) {
            window[k] = window[count - 1];
            begin[k] = begin[count - 1];
        }
    }
};

template <class T>
void pool_whole(
    const PoolingShape& s, const int* window, const int* begin, const T* picture, T* y, int* places)
{
    T value[together];
    int place[together];
    for (i64 l = 0; l < together; ++l) {
        value[l] = picture[begin[l]];
        place[l] = begin[l];
    }
    for (i64 u = 0; u < s.down.kernel; ++u) {
        for (i64 v = u == 0; v < s.across.kernel; ++v) {
            int further = int(u * s.across.size + v);
            if (places) {
                for (i64 l = 0; l < together; ++l) {
                    Largest<T> largest{value[l], place[l]};
                    largest.look(picture[begin[l] + further], begin[l] + further);
                    value[l] = largest.value;
                    place[l] = largest.place;
                }
            } else {
                for (i64 l = 0; l < together; ++l) value[l] += picture[begin[l] + further];
            }
        }
    }
    T size = T(s.down.kernel * s.across.kernel);
    for (i64 l = 0; l < together; ++l) {
        y[window[l]] = places ? value[l] : value[l] / size;
        if (places) places[window[l]] = place[l];
    }
}

// Fills `y`, and for maxima the places of their pixels, which are null for means.
template <class T> void pool_windows(const PoolingShape& s, const T* x, T* y, int* places)
{
    WholeWindows whole(s);
    bool few = whole.count < together || s.down.kernel * s.across.kernel > 64;
    s.by_pieces([&](i64 p) {
        const T* picture = x + p * s.pixels();
        T* value = y + p * s.windows();
        int* place = places ? places + p * s.windows() : nullptr;
        for (i64 k = 0; k < whole.count && !few; k += together)
            pool_whole(s, whole.window + k, whole.begin + k, picture, value, place);
        for (i64 k = 0; k < (few ? s.windows() : whole.rest); ++k) {
            i64 w = few ? k : whole.others[k];
            pool_window(s, w / s.across.windows, w % s.across.windows, picture, value[w],
                        place ? place + w : nullptr);
        }
    });
}

// Gives each dy to its largest pixel, or shares of it to all pixels of its window.
template <class T> void unpool_windows(const PoolingShape& s, const T* dy, const int* places, T* dx)
{
    PoolingAxis::Span all_rows = s.down.span(0), all_columns = s.across.span(0);
    bool global = s.windows() == 1 && all_rows.stop - all_rows.first == s.down.size
        && all_columns.stop - all_columns.first == s.across.size;
    s.by_pieces([&](i64 p) {
        T* picture = dx + p * s.pixels();
        if (global && !places) {  // one window, of all pixels
            std::fill(picture, picture + s.pixels(), dy[p] / T(all_rows.whole * all_columns.whole));
            return;
        }
        std::fill(picture, picture + s.pixels(), T(0));
        i64 at = p * s.windows(), stop = at + s.windows();
        if (places) {
            // Before a first forward pass the places may be anything.
            for (; at < stop; ++at)
                if (places[at] >= 0 && places[at] < s.pixels()) picture[places[at]] += dy[at];
            return;
        }
        for (i64 i = 0; i < s.down.windows; ++i) {
            PoolingAxis::Span rows = s.down.span(i);
            for (i64 j = 0; j < s.across.windows; ++j, ++at) {
                PoolingAxis::Span columns = s.across.span(j);
                T share = dy[at] / T(rows.whole * columns.whole);
                for (i64 row = rows.first; row < rows.stop; ++row)
                    for (i64 column = columns.first; column < columns.stop; ++column)
                        picture[row * s.across.size + column] += share;
            }
        }
    });
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
