// Convolution and Deconvolution, example by example, as products of matrices of windows (im2col).
//
// The matrix lies in memory so that it is cut in long runs: window by window, from a picture in which
// the channels of a pixel are neighbours, so that a row of a window is one run; or, where windows are
// small and next to each other, pixel by pixel of a window, each of which is a run for every row of
// windows.
#pragma once

#include "channelwise.h"
#include "dense.h"
#include "geometry.h"

namespace layerkit {
namespace LAYERKIT_SET {

// The matrix of windows, (places, window), in either layout.
template <class T> LAYERKIT_INLINE Matrix<T> windows_of(const Geometry& g, T* space)
{
    if (g.by_places()) return {space, g.places(), g.window(), 1, g.places()};
    return {space, g.places(), g.window(), g.window(), 1};
}

// columns = a b, in either layout.
template <class T>
LAYERKIT_INLINE void multiply_windows(Matrix<const T> a, Matrix<const T> b, Matrix<T> columns)
{
    if (columns.across == 1) multiply<T>(a, b, columns, false);
    else multiply<T>(b.turned(), a.turned(), columns.turned(), false);
}

// Calls function(where a line of the picture begins that a row of windows meets with a pixel, or -1
// if that is outside; how far this pixel is from it in the first window, and which windows have it in
// the picture; where their numbers lie) for each pixel of a window, channel, and row of windows.
template <class Function> LAYERKIT_INLINE void for_lines(const Geometry& g, Function&& function)
{
    i64 at = 0;
    for (i64 u = 0; u < g.rows; ++u) {
        for (i64 v = 0; v < g.columns; ++v) {
            i64 shift = v * g.dilation[1] - g.pad[1];
            i64 first = std::min(std::max<i64>(-shift, 0), g.across);
            i64 stop = std::max(std::min(g.width - shift, g.across), first);
            for (i64 c = 0; c < g.channels; ++c) {
                for (i64 i = 0; i < g.down; ++i, at += g.across) {
                    i64 y = i * g.stride[0] + u * g.dilation[0] - g.pad[0];
                    bool inside = y >= 0 && y < g.height;
                    function(inside ? (c * g.height + y) * g.width : -1, shift, first, stop, at);
                }
            }
        }
    }
}

// im2col: the windows of a picture; `border` is work space.
template <class T> void cut_windows(const Geometry& g, const T* picture, T* border, T* columns)
{
    if (g.by_places()) {
        for_lines(g, [&](i64 line, i64 shift, i64 first, i64 stop, i64 at) {
            T* to = columns + at;
            if (line < 0) first = stop = g.across;
            for (i64 j = 0; j < first; ++j) to[j] = 0;
            for (i64 j = first; j < stop; ++j) to[j] = picture[line + shift + j];
            for (i64 j = stop; j < g.across; ++j) to[j] = 0;
        });
        return;
    }
    if (g.pad[0] > 0 || g.pad[1] > 0) std::fill(border, border + g.bordered(), T(0));
    for (i64 y = 0; y < g.height; ++y) {
        T* to = border + (y + g.pad[0]) * g.line() + g.pad[1] * g.channels;
        turn(picture + y * g.width, g.height * g.width, g.channels, g.width, to, g.channels);
    }
    g.runs([&](i64 from, i64 to, i64 length) {
        for (i64 k = 0; k < length; ++k) columns[to + k] = border[from + k];
    });
}

// col2im: the picture whose pixels are the sums of the windows that hold them.
template <class T> void add_windows(const Geometry& g, const T* columns, T* border, T* picture)
{
    if (g.by_places()) {
        std::fill(picture, picture + g.channels * g.height * g.width, T(0));
        for_lines(g, [&](i64 line, i64 shift, i64 first, i64 stop, i64 at) {
            if (line < 0) return;
            T* __restrict to = picture + line + shift;
            const T* __restrict from = columns + at;
            for (i64 j = first; j < stop; ++j) to[j] += from[j];
        });
        return;
    }
    std::fill(border, border + g.bordered(), T(0));
    g.runs([&](i64 to, i64 from, i64 length) {
        for (i64 k = 0; k < length; ++k) border[to + k] += columns[from + k];
    });
    for (i64 y = 0; y < g.height; ++y) {
        const T* from = border + (y + g.pad[0]) * g.line() + g.pad[1] * g.channels;
        turn(from, g.channels, g.width, g.channels, picture + y * g.width, g.height * g.width);
    }
}

constexpr i64 most_sums = 32;  // of gradients, which are added up in the end

// Examples in a piece: as many as make its work worth handing out.  `small` are the channels of the
// blob that has one place for each window.
inline i64 examples_of(const Geometry& g, i64 small, i64 examples, i64 most)
{
    i64 work = std::max<i64>(g.places() * g.window() * small, 1);
    i64 least = std::max<i64>((1 << 18) / work, 1);
    return std::max(least, pieces_of(examples, most));
}

// The rows of a blob's channels (channels, places) that belong to a group.
template <class T> LAYERKIT_INLINE Matrix<T> of_group(T* example, i64 i, i64 channels, i64 places)
{
    return {example + i * channels * places, channels, places, places, 1};
}

// The part of W, or of its diff, that belongs to a group: rows if transposed, else columns.
template <class T>
LAYERKIT_INLINE Matrix<T> weights_of_group(Matrix<T> w, bool transposed, i64 i, i64 small)
{
    return transposed ? w.block(i * small, (i + 1) * small, 0, w.columns)
                      : w.block(0, w.rows, i * small, (i + 1) * small);
}

// x (n, inputs, ...), w (inputs, window) if transposed, else (window, outputs), y (n, outputs, ...).
template <class T>
void windowed_forward(
    const Geometry& g, bool transposed, Matrix<T> x, i64 inputs, Matrix<T> w, const T* b, T slope,
    Matrix<T> y, i64 outputs)
{
    i64 small = transposed ? inputs : outputs, width = examples_of(g, small, x.rows, 64);
    bool single = !transposed && Channelwise<T>::fits(g, small);
    parallel(pieces_of(x.rows, width), [&](i64 i) {
        T* border = work_space<struct OfBorder, T>(g.bordered());
        Matrix<T> columns = windows_of(g, work_space<struct OfWindows, T>(g.places() * g.window()));
        Channelwise<T> channel(g);
        for (i64 e = i * width; e < std::min((i + 1) * width, x.rows); ++e) {
            for (i64 k = 0; k < g.groups; ++k) {
                Matrix<T> xe = of_group(x.row(e), k, inputs / g.groups, x.columns / inputs);
                Matrix<T> ye = of_group(y.row(e), k, outputs / g.groups, y.columns / outputs);
                Matrix<T> we = weights_of_group(w, transposed, k, small / g.groups);
                if (single) {
                    channel.forward(xe.data, we, ye.data);
                } else if (transposed) {
                    multiply_windows<T>(fixed(xe).turned(), fixed(we), columns);
                    add_windows(g, columns.data, border, ye.data);
                } else {
                    cut_windows(g, xe.data, border, columns.data);
                    multiply<T>(fixed(we).turned(), fixed(columns).turned(), ye, false);
                }
            }
            i64 places = y.columns / outputs;
            for (i64 c = 0; c < outputs && (b || slope != 1); ++c) {
                T *to = y.row(e) + c * places, bias = b ? b[c] : T(0);
                for (i64 j = 0; j < places; ++j) to[j] = rectified(to[j] + bias, slope);
            }
        }
    });
}

// Diffs that are empty, or null, are not wanted.
template <class T>
void windowed_backward(
    const Geometry& g, bool transposed, Matrix<T> x, i64 inputs, Matrix<T> y, Matrix<T> dy, T slope,
    Matrix<T> before, i64 outputs, Matrix<T> w, Matrix<T> dw, T* db, Matrix<T> dx)
{
    i64 n = x.rows, weights = w.rows * w.columns;
    i64 small = transposed ? inputs : outputs, width = examples_of(g, small, n, most_sums);
    i64 count = pieces_of(n, width);
    T* of_w = work_space<struct OfWeights, T>(count * weights);
    T* of_b = work_space<struct OfBiases, T>(count * outputs);
    bool wants_dx = dx.rows > 0, wants_dw = !dw.empty();
    bool single = !transposed && Channelwise<T>::fits(g, small);
    parallel(count, [&](i64 i) {
        T* border = work_space<struct OfBorder, T>(g.bordered());
        Matrix<T> columns = windows_of(g, work_space<struct OfWindows, T>(g.places() * g.window()));
        Channelwise<T> channel(g);
        Matrix<T> dw_here{of_w + i * weights, w.rows, w.columns, w.columns, 1};
        for (i64 e = i * width; e < std::min((i + 1) * width, n); ++e) {
            bool more = e > i * width;
            T* d = slope == 1 ? dy.row(e) : before.row(e);
            if (slope != 1) {
                const T *from = dy.row(e), *top = y.row(e);
                for (i64 j = 0; j < y.columns; ++j) d[j] = top[j] > 0 ? from[j] : slope * from[j];
            }
            Matrix<T> de{d, outputs, y.columns / outputs, y.columns / outputs, 1};
            if (db) {
                for (i64 c = 0; c < outputs; ++c) {
                    Vector<T> wide_total{};
                    constexpr i64 lanes = Simd<T>::lanes;
                    const T* from = de.row(c);
                    i64 j = 0;
                    for (; j + lanes <= de.columns; j += lanes) wide_total += load(from + j);
                    T total = sum<T>(wide_total);
                    for (; j < de.columns; ++j) total += from[j];
                    T& to = of_b[i * outputs + c];
                    to = more ? to + total : total;
                }
            }
            for (i64 k = 0; k < g.groups; ++k) {
                Matrix<T> xk = of_group(x.row(e), k, inputs / g.groups, x.columns / inputs);
                Matrix<T> dk = of_group(d, k, outputs / g.groups, de.columns);
                Matrix<T> wk = weights_of_group(w, transposed, k, small / g.groups);
                Matrix<T> dwk = weights_of_group(dw_here, transposed, k, small / g.groups);
                T* dxk = wants_dx ? dx.row(e) + k * xk.rows * xk.columns : nullptr;
                if (single) {
                    channel.backward(xk.data, dk.data, wk, wants_dw ? dwk : Matrix<T>{}, more, dxk);
                } else if (transposed) {
                    if (wants_dw || wants_dx) cut_windows(g, dk.data, border, columns.data);
                    if (wants_dw) multiply<T>(fixed(xk), fixed(columns), dwk, more);
                    if (wants_dx)
                        multiply<T>(fixed(wk), fixed(columns).turned(),
                                    {dxk, xk.rows, xk.columns, xk.columns, 1}, false);
                } else {
                    if (wants_dw) {
                        cut_windows(g, xk.data, border, columns.data);
                        multiply<T>(fixed(columns).turned(), fixed(dk).turned(), dwk, more);
                    }
                    if (wants_dx) {
                        multiply_windows<T>(fixed(dk).turned(), fixed(wk).turned(), columns);
                        add_windows(g, columns.data, border, dxk);
                    }
                }
            }
        }
    });
    auto add_up = [count](const T* from, i64 apart, T* to, i64 size) {
        for (i64 p = 0; p < count; ++p) {
            if (p == 0) for (i64 j = 0; j < size; ++j) to[j] = from[j];
            else for (i64 j = 0; j < size; ++j) to[j] += from[p * apart + j];
        }
    };
    if (wants_dw) {
        constexpr i64 size = 4096;
        parallel(pieces_of(weights, size), [&](i64 i) {
            add_up(of_w + i * size, weights, dw.data + i * size, std::min(size, weights - i * size));
        });
    }
    if (db) add_up(of_b, outputs, db, outputs);
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
