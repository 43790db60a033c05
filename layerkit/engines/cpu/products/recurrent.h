// LSTM and GRU: a few examples at a time go through all steps, so that threads need not wait for each
// other between one step and the next.
#pragma once

#include <algorithm>

#include "../threads/pool.h"
#include "dense.h"

namespace layerkit {
namespace LAYERKIT_SET {

constexpr i64 abreast_rows = 16;     // examples that go through the steps together
constexpr i64 gradient_columns = 96;  // of W, U and b, whose gradients a piece of the work adds up

// The arrays of a layer, in the order of the passage (steps, n, size) but for x, y and their diffs.
// `other` are the memories of an LSTM, or h U_n of a GRU.
template <class T> struct Sequence {
    bool gru, reverse, last;
    i64 n, steps, features, units;
    T forget;
    Matrix<T> w, u;
    const T* b;
    T *inputs, *values, *states, *other;

    i64 gates() const { return gru ? 3 : 4; }
    i64 width() const { return gates() * units; }
    i64 place(i64 step) const { return reverse ? steps - 1 - step : step; }  // in x and y
    T* at(T* array, i64 step, i64 row, i64 size) const { return array + (step * n + row) * size; }
    // Rows `first` and those that follow of the part of an array that belongs to a step.
    Matrix<T> part(T* array, i64 step, i64 first, i64 rows, i64 size) const
    {
        return {at(array, step, first, size), rows, size, size, 1};
    }
    i64 top(i64 step, i64 row) const  // where an example's h is in y
    {
        return last ? row * units : (row * steps + place(step)) * units;
    }
    template <class Function> void by_rows(Function&& function) const
    {
        parallel(pieces_of(n, abreast_rows), [&](i64 i) {
            i64 first = i * abreast_rows;
            function(first, std::min(abreast_rows, n - first));
        });
    }
};

// h of one example, of what goes into the gates; `before` and `memory` are null in the first step.
template <class T>
void advance(const Sequence<T>& o, T* z, const T* before, const T* memory, T* other, T* h)
{
    i64 units = o.units;
    const T* b = o.b;
    if (o.gru) {
#pragma GCC ivdep
        for (i64 j = 0; j < units; ++j) {
            GruUnit<T> gates{z[j] + b[j], z[units + j] + b[units + j], z[2 * units + j] + b[2 * units + j]};
            T h_before = before ? before[j] : T(0), next = gates.advance(other[j], h_before);
            z[j] = gates.r;
            z[units + j] = gates.z;
            z[2 * units + j] = gates.m;
            h[j] = next;
        }
        return;
    }
    T forget = o.forget;
#pragma GCC ivdep
    for (i64 j = 0; j < units; ++j) {
        LstmUnit<T> gates{
            z[j] + b[j], z[units + j] + b[units + j] + forget, z[2 * units + j] + b[2 * units + j],
            z[3 * units + j] + b[3 * units + j]};
        T c = memory ? memory[j] : T(0), next = gates.advance(c);
        z[j] = gates.i;
        z[units + j] = gates.f;
        z[2 * units + j] = gates.g;
        z[3 * units + j] = gates.o;
        other[j] = c;
        h[j] = next;
    }
}

template <class T> void recurrent_forward(const Sequence<T>& o, const T* x, T* y)
{
    i64 units = o.units, width = o.width(), taken = o.gru ? 2 * units : width;
    o.by_rows([&](i64 first, i64 rows) {
        for (i64 s = 0; s < o.steps; ++s) {
            Matrix<T> here = o.part(o.inputs, s, first, rows, o.features);
            for (i64 r = 0; r < rows; ++r) {
                const T* from = x + ((first + r) * o.steps + o.place(s)) * o.features;
                std::copy(from, from + o.features, here.row(r));
            }
            Matrix<T> z = o.part(o.values, s, first, rows, width);
            multiply<T>(fixed(here), fixed(o.w), z, false);
            Matrix<T> other = o.part(o.other, s, first, rows, units);
            if (s > 0) {
                Matrix<const T> h = fixed(o.part(o.states, s - 1, first, rows, units));
                multiply<T>(h, fixed(o.u.block(0, units, 0, taken)), z.block(0, rows, 0, taken), true);
                if (o.gru) multiply<T>(h, fixed(o.u.block(0, units, taken, width)), other, false);
            } else if (o.gru) {
                std::fill(other.data, other.data + rows * units, T(0));
            }
            for (i64 r = 0; r < rows; ++r) {
                i64 row = first + r;
                T* h = o.at(o.states, s, row, units);
                const T* before = s ? o.at(o.states, s - 1, row, units) : nullptr;
                const T* memory = s ? o.at(o.other, s - 1, row, units) : nullptr;
                advance(o, z.row(r), before, memory, other.row(r), h);
                if (!o.last || s == o.steps - 1) std::copy(h, h + units, y + o.top(s, row));
            }
        }
    });
}

// The slopes of one example, given dh, which is left as what goes to the step before by no gate, and
// for an LSTM dc.
template <class T>
void retreat(
    const Sequence<T>& o, const T* values, const T* before, const T* memory, const T* other, T* dh,
    T* dc, T* slopes, T* through)
{
    i64 units = o.units;
    if (o.gru) {
#pragma GCC ivdep
        for (i64 j = 0; j < units; ++j) {
            GruUnit<T> gates{values[j], values[units + j], values[2 * units + j]};
            T slope = dh[j], recurrent;
            gates.retreat(other[j], before ? before[j] : T(0), slope, recurrent);
            dh[j] = slope;
            slopes[j] = through[j] = gates.r;
            slopes[units + j] = through[units + j] = gates.z;
            slopes[2 * units + j] = gates.m;
            through[2 * units + j] = recurrent;
        }
        return;
    }
#pragma GCC ivdep
    for (i64 j = 0; j < units; ++j) {
        LstmUnit<T> gates{values[j], values[units + j], values[2 * units + j], values[3 * units + j]};
        T c = dc[j];
        gates.retreat(memory ? memory[j] : T(0), other[j], dh[j], c);
        dc[j] = c;
        slopes[j] = gates.i;
        slopes[units + j] = gates.f;
        slopes[2 * units + j] = gates.g;
        slopes[3 * units + j] = gates.o;
    }
}

// Diffs that are null are not wanted.  `through` are the slopes of h U, which for an LSTM are those of
// x W, `slopes`.
template <class T>
void recurrent_backward(
    const Sequence<T>& o, const T* dy, T* slopes, T* through, T* dw, T* du, T* db, T* dx)
{
    i64 units = o.units, width = o.width(), all = o.steps * o.n;
    o.by_rows([&](i64 first, i64 rows) {
        T* dh = work_space<struct OfStates, T>(2 * rows * units);
        T* dc = dh + rows * units;
        Matrix<T> carried{dh, rows, units, units, 1};
        std::fill(dh, dh + 2 * rows * units, T(0));
        for (i64 s = o.steps - 1; s >= 0; --s) {
            for (i64 r = 0; r < rows; ++r) {
                i64 row = first + r;
                const T* given = dy + o.top(s, row);
                if (!o.last || s == o.steps - 1)
                    for (i64 j = 0; j < units; ++j) carried.row(r)[j] += given[j];
                retreat(o, o.at(o.values, s, row, width),
                        s ? o.at(o.states, s - 1, row, units) : nullptr,
                        s ? o.at(o.other, s - 1, row, units) : nullptr, o.at(o.other, s, row, units),
                        carried.row(r), dc + r * units, o.at(slopes, s, row, width),
                        o.at(through, s, row, width));
            }
            if (s > 0)
                multiply<T>(fixed(o.part(through, s, first, rows, width)), fixed(o.u).turned(), carried,
                            o.gru);
            if (dx) {
                i64 apart = o.steps * o.features;
                Matrix<T> to{dx + first * apart + o.place(s) * o.features, rows, o.features, apart, 1};
                multiply<T>(fixed(o.part(slopes, s, first, rows, width)), fixed(o.w).turned(), to, false);
            }
        }
    });
    parallel(pieces_of(width, gradient_columns), [&](i64 i) {
        i64 left = i * gradient_columns, right = std::min(left + gradient_columns, width);
        auto columns = [&](T* array, i64 rows) {
            return Matrix<T>{array, rows, width, width, 1}.block(0, rows, left, right);
        };
        Matrix<T> d = columns(slopes, all);
        Matrix<const T> x{o.inputs, all, o.features, o.features, 1};
        if (dw) multiply<T>(x.turned(), fixed(d), columns(dw, o.features), false);
        if (db) sum_rows(d, 0, right - left, db + left);
        if (!du) return;
        // h of each step but the last, and the slopes of the step after it; none, if there is one step.
        Matrix<const T> h{o.states, all - o.n, units, units, 1};
        multiply<T>(h.turned(), fixed(columns(through + o.n * width, all - o.n)), columns(du, units), false);
    });
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
