// Pooling, channel by channel of each example.
#pragma once

#include <algorithm>

#include "formulas.h"
#include "pool.h"

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

// Fills `y`, and for maxima the places of their pixels, which are null for means.
template <class T> void pool_windows(const PoolingShape& s, const T* x, T* y, int* places)
{
    s.by_pieces([&](i64 p) {
        const T* picture = x + p * s.pixels();
        for (i64 i = 0, at = p * s.windows(); i < s.down.windows; ++i) {
            PoolingAxis::Span rows = s.down.span(i);
            for (i64 j = 0; j < s.across.windows; ++j, ++at) {
                PoolingAxis::Span columns = s.across.span(j);
                if (places) {
                    Largest<T> largest(picture, s.across.size, rows, columns);
                    y[at] = largest.value;
                    places[at] = largest.place;
                } else {
                    y[at] = mean_of_window(picture, s.across.size, rows, columns);
                }
            }
        }
    });
}

// Gives each dy to its largest pixel, or shares of it to all pixels of its window.
template <class T> void unpool_windows(const PoolingShape& s, const T* dy, const int* places, T* dx)
{
    s.by_pieces([&](i64 p) {
        T* picture = dx + p * s.pixels();
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
