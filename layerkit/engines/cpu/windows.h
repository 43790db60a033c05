// Convolution and Deconvolution, example by example, as products of matrices of windows (im2col).
//
// While a picture is cut, the channels of a pixel are neighbours, so that a window is as many runs of
// neighbouring numbers as it has rows.
#pragma once

#include "dense.h"

namespace layerkit {
namespace LAYERKIT_SET {

// How windows of size x size pixels lie on a picture (channels, height, width).
struct Geometry {
    i64 size, stride, pad, down, across, channels, height, width;

    i64 places() const { return down * across; }
    i64 run() const { return size * channels; }                 // numbers in a row of a window
    i64 window() const { return size * run(); }
    i64 line() const { return (width + 2 * pad) * channels; }   // of a picture with its border
    i64 bordered() const { return (height + 2 * pad) * line(); }
    i64 start(i64 i, i64 j) const { return i * stride * line() + j * stride * channels; }
};

// im2col: the windows of a picture as rows (places, window); `border` is work space.
template <class T> void cut_windows(const Geometry& g, const T* picture, T* border, T* columns)
{
    if (g.pad > 0) std::fill(border, border + g.bordered(), T(0));
    for (i64 y = 0; y < g.height; ++y) {
        T* to = border + (y + g.pad) * g.line() + g.pad * g.channels;
        for (i64 c = 0; c < g.channels; ++c) {
            const T* from = picture + (c * g.height + y) * g.width;
            for (i64 x = 0; x < g.width; ++x) to[x * g.channels + c] = from[x];
        }
    }
    i64 run = g.run(), line = g.line();
    for (i64 i = 0; i < g.down; ++i) {
        for (i64 j = 0; j < g.across; ++j, columns += g.window()) {
            const T* from = border + g.start(i, j);
            for (i64 u = 0; u < g.size; ++u)
                for (i64 k = 0; k < run; ++k) columns[u * run + k] = from[u * line + k];
        }
    }
}

// col2im: the picture whose pixels are the sums of the windows that hold them.
template <class T> void add_windows(const Geometry& g, const T* columns, T* border, T* picture)
{
    std::fill(border, border + g.bordered(), T(0));
    i64 run = g.run(), line = g.line();
    for (i64 i = 0; i < g.down; ++i) {
        for (i64 j = 0; j < g.across; ++j, columns += g.window()) {
            T* to = border + g.start(i, j);
            for (i64 u = 0; u < g.size; ++u)
                for (i64 k = 0; k < run; ++k) to[u * line + k] += columns[u * run + k];
        }
    }
    for (i64 y = 0; y < g.height; ++y) {
        const T* from = border + (y + g.pad) * g.line() + g.pad * g.channels;
        for (i64 c = 0; c < g.channels; ++c) {
            T* to = picture + (c * g.height + y) * g.width;
            for (i64 x = 0; x < g.width; ++x) to[x] = from[x * g.channels + c];
        }
    }
}

constexpr i64 most_sums = 32;  // of gradients, which are added up in the end

// Examples in a piece: as many as make its work worth handing out.
inline i64 examples_of(const Geometry& g, i64 other, i64 examples, i64 most)
{
    i64 work = std::max<i64>(g.places() * g.window() * other, 1);
    i64 least = std::max<i64>((1 << 18) / work, 1);
    return std::max(least, pieces_of(examples, most));
}

// x (n, inputs, ...), w (inputs, window) if transposed, else (window, outputs), y (n, outputs, ...).
template <class T>
void windowed_forward(
    const Geometry& g, bool transposed, Matrix<T> x, i64 inputs, Matrix<T> w, const T* b, T slope,
    Matrix<T> y, i64 outputs)
{
    i64 width = examples_of(g, transposed ? inputs : outputs, x.rows, 64);
    parallel(pieces_of(x.rows, width), [&](i64 i) {
        T* border = work_space<struct OfBorder, T>(g.bordered());
        Matrix<T> columns{work_space<struct OfWindows, T>(g.places() * g.window()), g.places(),
                          g.window(), g.window(), 1};
        for (i64 e = i * width; e < std::min((i + 1) * width, x.rows); ++e) {
            Matrix<T> xe{x.row(e), inputs, x.columns / inputs, x.columns / inputs, 1};
            Matrix<T> ye{y.row(e), outputs, y.columns / outputs, y.columns / outputs, 1};
            if (transposed) {
                multiply<T>(fixed(xe).turned(), fixed(w), columns, false);
                add_windows(g, columns.data, border, ye.data);
            } else {
                cut_windows(g, xe.data, border, columns.data);
                multiply<T>(fixed(w).turned(), fixed(columns).turned(), ye, false);
            }
            for (i64 c = 0; c < outputs; ++c) {
                T *to = ye.row(c), bias = b[c];
                for (i64 j = 0; j < ye.columns; ++j) to[j] = rectified(to[j] + bias, slope);
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
    i64 width = examples_of(g, transposed ? inputs : outputs, n, most_sums);
    i64 count = pieces_of(n, width);
    T* of_w = work_space<struct OfWeights, T>(count * weights);
    T* of_b = work_space<struct OfBiases, T>(count * outputs);
    bool wants_dx = dx.rows > 0, wants_dw = !dw.empty();
    parallel(count, [&](i64 i) {
        T* border = work_space<struct OfBorder, T>(g.bordered());
        Matrix<T> columns{work_space<struct OfWindows, T>(g.places() * g.window()), g.places(),
                          g.window(), g.window(), 1};
        Matrix<T> dw_here{of_w + i * weights, w.rows, w.columns, w.columns, 1};
        for (i64 e = i * width; e < std::min((i + 1) * width, n); ++e) {
            bool more = e > i * width;
            Matrix<T> xe{x.row(e), inputs, x.columns / inputs, x.columns / inputs, 1};
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
            if (transposed) {
                if (wants_dw || wants_dx) cut_windows(g, d, border, columns.data);
                if (wants_dw) multiply<T>(fixed(xe), fixed(columns), dw_here, more);
                if (wants_dx)
                    multiply<T>(fixed(w), fixed(columns).turned(),
                                {dx.row(e), inputs, xe.columns, xe.columns, 1}, false);
            } else {
                if (wants_dw) {
                    cut_windows(g, xe.data, border, columns.data);
                    multiply<T>(fixed(columns).turned(), fixed(de).turned(), dw_here, more);
                }
                if (wants_dx) {
                    multiply<T>(fixed(de).turned(), fixed(w).turned(), columns, false);
                    add_windows(g, columns.data, border, dx.row(e));
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
