// Convolution of single channels: groups that have one channel and one output each.
//
// A channel is copied to a border, in which the pixels of a window lie at fixed distances from the
// first one, wherever this is.  So all windows together are a sum of shifted lines, which stays in
// registers; windows that begin near the end of a line, or between two strides, are left out.
#pragma once

#include <algorithm>

#include "../threads/pool.h"
#include "geometry.h"

namespace layerkit {
namespace LAYERKIT_SET {

// to[q] = the sum over taps t of taps[t] from[q + shifts[t]], from 0 to `size` and a few beyond.
constexpr int ahead_vectors = 4;
template <class T>
void shifted_sums(
    i64 count, const T* taps, const i64* shifts, const T* from, i64 size, T* to)
{
    constexpr i64 lanes = Simd<T>::lanes;
    for (i64 q = 0; q < size; q += ahead_vectors * lanes) {
        Vector<T> total[ahead_vectors]{};
        for (i64 t = 0; t < count; ++t) {
            Vector<T> tap = taps[t] - Vector<T>{};
#pragma GCC unroll 4
            for (int k = 0; k < ahead_vectors; ++k)
                total[k] += tap * load(from + q + shifts[t] + k * lanes);
        }
#pragma GCC unroll 4
        for (int k = 0; k < ahead_vectors; ++k) store<T>(total[k], to + q + k * lanes);
    }
}

// sums[t] = the sum over q of d[q] from[q + shifts[t]].
template <class T>
void shifted_products(i64 count, const i64* shifts, const T* from, const T* d, i64 size, T* sums)
{
    constexpr i64 lanes = Simd<T>::lanes, together_taps = 4;
    for (i64 t = 0; t < count; t += together_taps) {
        Vector<T> total[together_taps]{};
        const T* shifted[together_taps];
        for (i64 k = 0; k < together_taps; ++k) shifted[k] = from + shifts[std::min(t + k, count - 1)];
        for (i64 q = 0; q < size; q += lanes) {
            Vector<T> here = load(d + q);
#pragma GCC unroll 4
            for (i64 k = 0; k < together_taps; ++k) total[k] += here * load(shifted[k] + q);
        }
        for (i64 k = 0; k < std::min(together_taps, count - t); ++k) sums[t + k] = sum<T>(total[k]);
    }
}

// Lines that are short: loops of vectors, where a call would take as long as the copy.
template <class T>
LAYERKIT_INLINE void copy_line(const T* from, i64 from_step, T* to, i64 to_step, i64 size)
{
    if (from_step == 1 && to_step == 1) {
#pragma GCC ivdep
        for (i64 j = 0; j < size; ++j) to[j] = from[j];
        return;
    }
    for (i64 j = 0; j < size; ++j) to[j * to_step] = from[j * from_step];
}

// Work space for one channel.
template <class T> struct Channelwise {
    static constexpr i64 slack = ahead_vectors * Simd<T>::lanes;
    const Geometry& g;
    i64 window, whole, far, positions;  // pixels: of a window, of the border; from first to last
    T *border, *spread, *sums, *taps;
    i64 *shifts, *back;

    static bool fits(const Geometry& g, i64 small) { return g.channels == 1 && small == g.groups; }

    explicit Channelwise(const Geometry& g)
        : g(g), window(g.window()), whole(g.bordered()),
          far((g.rows - 1) * g.dilation[0] * g.line() + (g.columns - 1) * g.dilation[1]),
          positions(g.start(g.down - 1, g.across - 1) + 1)
    {
        border = work_space<struct OfChannel, T>(3 * (whole + slack) + far + 2 * window);
        spread = border + whole + slack;
        sums = spread + far + whole + slack;
        taps = sums + whole + slack;
        shifts = work_space<struct OfShifts, i64>(2 * window);
        back = shifts + window;
        for (i64 u = 0, t = 0; u < g.rows; ++u)
            for (i64 v = 0; v < g.columns; ++v, ++t) {
                shifts[t] = u * g.dilation[0] * g.line() + v * g.dilation[1];
                back[t] = far - shifts[t];
            }
        std::fill(border, border + 3 * (whole + slack) + far, T(0));
    }
    void enter(const T* picture) const
    {
        for (i64 y = 0; y < g.height; ++y)
            copy_line(picture + y * g.width, 1, border + (y + g.pad[0]) * g.line() + g.pad[1], 1, g.width);
    }
    void take_taps(Matrix<T> w) const
    {
        for (i64 t = 0; t < window; ++t) taps[t] = w.at(t, 0);
    }
    // y without bias, of a channel.
    void forward(const T* x, Matrix<T> w, T* y) const
    {
        enter(x);
        take_taps(w);
        shifted_sums(window, taps, shifts, border, positions, sums);
        for (i64 i = 0; i < g.down; ++i)
            copy_line(sums + g.start(i, 0), g.stride[1], y + i * g.across, 1, g.across);
    }
    // dw, or more of it, and dx, which may be null.
    void backward(const T* x, const T* d, Matrix<T> w, Matrix<T> dw, bool more, T* dx) const
    {
        for (i64 i = 0; i < g.down; ++i)
            copy_line(d + i * g.across, 1, spread + far + g.start(i, 0), g.stride[1], g.across);
        if (dw.data) {
            enter(x);
            T* found = taps + window;
            shifted_products(window, shifts, border, spread + far, positions, found);
            for (i64 t = 0; t < window; ++t) dw.at(t, 0) = (more ? dw.at(t, 0) : T(0)) + found[t];
        }
        if (!dx) return;
        take_taps(w);
        shifted_sums(window, taps, back, spread, whole, sums);
        for (i64 y = 0; y < g.height; ++y)
            copy_line(sums + (y + g.pad[0]) * g.line() + g.pad[1], 1, dx + y * g.width, 1, g.width);
    }
};

}  // namespace LAYERKIT_SET
}  // namespace layerkit
