// Normalization: groups of numbers get mean 0 and variance 1, and each number a gain and a bias.
#pragma once

#include "../vectors/formulas.h"
#include "../vectors/sums.h"
#include "../threads/pool.h"

namespace layerkit {
namespace LAYERKIT_SET {

using Groups = GroupsOf<i64>;

// function(start, length, channel) for runs of a group that have one gain, the numbers in a row.
template <class Function>
LAYERKIT_INLINE void each_run(const Groups& s, i64 group, const Function& function)
{
    i64 length = s.one ? s.inner : s.spread;
    for (i64 o = 0; o < s.outer; ++o)
        for (i64 k = 0; k < s.inner; k += length) {
            i64 i = s.start(o, group) + k;
            function(i, length, s.one ? group : s.channel(i));
        }
}

// Whether the gains of a group's neighbouring numbers are neighbours.
LAYERKIT_INLINE bool side_by_side(const Groups& s) { return !s.one && s.spread == 1; }

template <class T> struct Normalization {
    Groups s;
    const T *x, *gain, *bias;  // the latter null where there are none
    double epsilon;
    T *normalized, *inverse, *y;
};

// Computes the numbers of a group, of given mean and 1 / sqrt(variance + epsilon).
template <class T> void normalize_group(const Normalization<T>& n, i64 group, T mean, T inverse)
{
    if (side_by_side(n.s)) {
        for (i64 o = 0; o < n.s.outer; ++o) {
            i64 i = n.s.start(o, group), c = n.s.channel(i);
            const T *from = n.x + i, *gain = n.gain ? n.gain + c : nullptr;
            const T* bias = n.bias ? n.bias + c : nullptr;
            T *d = n.normalized + i, *to = n.y + i;
            if (gain && bias) {
#pragma GCC ivdep
                for (i64 k = 0; k < n.s.inner; ++k) {
                    T value = (from[k] - mean) * inverse;
                    d[k] = value;
                    to[k] = value * gain[k] + bias[k];
                }
                continue;
            }
            for (i64 k = 0; k < n.s.inner; ++k) d[k] = (from[k] - mean) * inverse;
            if (gain) for (i64 k = 0; k < n.s.inner; ++k) to[k] = d[k] * gain[k];
            else for (i64 k = 0; k < n.s.inner; ++k) to[k] = d[k];
            if (bias) for (i64 k = 0; k < n.s.inner; ++k) to[k] += bias[k];
        }
        return;
    }
    each_run(n.s, group, [&](i64 i, i64 length, i64 channel) {
        T gain = n.gain ? n.gain[channel] : T(1), bias = n.bias ? n.bias[channel] : T(0);
        const T* from = n.x + i;
        T *d = n.normalized + i, *to = n.y + i;
        for (i64 k = 0; k < length; ++k) {
            T value = (from[k] - mean) * inverse;
            d[k] = value;
            to[k] = value * gain + bias;
        }
    });
}

constexpr i64 norm_columns = 64;  // groups that are worked on together

// How many: columns of neighbouring numbers, or as many groups as stay in the nearest cache.
LAYERKIT_INLINE i64 groups_together(const Groups& s)
{
    return s.inner == 1 ? norm_columns : std::clamp<i64>(4096 / s.numbers(), 1, norm_columns);
}

// The moments of groups from `left` to `right`.  One group's sum does not wait for another's variance.
template <class T>
void row_moments(const Groups& s, const T* x, i64 left, i64 right, double* mean, double* variance)
{
    for (i64 g = left; g < right; ++g) {
        double total = 0;
        for (i64 o = 0; o < s.outer; ++o) total += sum_run(x + s.start(o, g), s.inner);
        mean[g - left] = total / double(s.numbers());
    }
    for (i64 g = left; g < right; ++g) {
        double squares = 0;
        for (i64 o = 0; o < s.outer; ++o)
            squares += sum_squares(x + s.start(o, g), T(mean[g - left]), s.inner);
        variance[g - left] = squares / double(s.numbers());
    }
}

// The moments of groups that are columns, row by row.
template <class T>
void column_moments(const Groups& s, const T* x, i64 left, i64 right, double* mean, double* variance)
{
    i64 width = right - left;
    std::fill(mean, mean + width, 0);
    std::fill(variance, variance + width, 0);
    for (i64 r = 0; r < s.outer; ++r)
        for (i64 c = 0; c < width; ++c) mean[c] += double(x[r * s.groups + left + c]);
    for (i64 c = 0; c < width; ++c) mean[c] /= double(s.outer);
    for (i64 r = 0; r < s.outer; ++r)
        for (i64 c = 0; c < width; ++c) {
            double d = double(x[r * s.groups + left + c]) - mean[c];
            variance[c] += d * d;
        }
    for (i64 c = 0; c < width; ++c) variance[c] /= double(s.outer);
}

// The running estimates follow those of the batch, or at a momentum of 1 are used in their place; null
// where there are none.
template <class T>
void normalize(const Normalization<T>& n, T* running_mean, T* running_variance, double momentum)
{
    const Groups& s = n.s;
    bool given = running_mean && momentum == 1, columns = s.inner == 1;
    double factor = without_bias(double(s.numbers()));
    i64 share = groups_together(s);
    parallel((s.groups + share - 1) / share, [&](i64 part) {
        i64 left = part * share, right = std::min(left + share, s.groups);
        double means[norm_columns], variances[norm_columns];
        T inverses[norm_columns], centres[norm_columns];
        if (given) {
            std::copy(running_mean + left, running_mean + right, means);
            std::copy(running_variance + left, running_variance + right, variances);
        } else if (columns) column_moments(s, n.x, left, right, means, variances);
        else row_moments(s, n.x, left, right, means, variances);
        for (i64 g = left; g < right; ++g) {
            double mean = means[g - left], variance = variances[g - left];
            if (running_mean && !given) {
                follow(running_mean[g], momentum, mean, 1);
                follow(running_variance[g], momentum, variance, factor);
            }
            centres[g - left] = T(mean);
            inverses[g - left] = n.inverse[g] = T(1 / std::sqrt(variance + n.epsilon));
        }
        for (i64 g = left; g < right && !columns; ++g)
            normalize_group(n, g, centres[g - left], inverses[g - left]);
        if (!columns) return;
        for (i64 r = 0; r < s.outer; ++r)
            for (i64 g = left; g < right; ++g) {
                i64 i = r * s.groups + g;
                T d = (n.x[i] - centres[g - left]) * inverses[g - left];
                n.normalized[i] = d;
                n.y[i] = (n.gain ? d * n.gain[g] : d) + (n.bias ? n.bias[g] : T(0));
            }
    });
}

template <class T> struct NormalizationBackward {
    Groups s;
    const T *normalized, *inverse, *gain, *dy;
    T *dgain, *dbias, *dx;  // null where they are not wanted
    bool through;           // mean and variance, which depended on x
};

// dx = (dy gain - first - d second) / sd of a group, with first and second those means of dy gain
// and dy gain d.
template <class T>
void group_dx(const NormalizationBackward<T>& n, i64 group, T first, T second)
{
    T inverse = n.inverse[group];
    if (side_by_side(n.s) && n.gain) {
        for (i64 o = 0; o < n.s.outer; ++o) {
            i64 i = n.s.start(o, group);
            const T *gain = n.gain + n.s.channel(i), *dy = n.dy + i, *d = n.normalized + i;
            T* dx = n.dx + i;
            for (i64 k = 0; k < n.s.inner; ++k)
                dx[k] = slope_of(dy[k] * gain[k], first, d[k], second, inverse);
        }
        return;
    }
    Groups s = n.s;
    s.one = s.one || !n.gain;  // then the group is as if it had one gain
    each_run(s, group, [&](i64 i, i64 length, i64 channel) {
        T gain = n.gain ? n.gain[channel] : T(1);
        const T *dy = n.dy + i, *d = n.normalized + i;
        T* dx = n.dx + i;
        for (i64 k = 0; k < length; ++k)
            dx[k] = slope_of(dy[k] * gain, first, d[k], second, inverse);
    });
}

// The sums over a group of dy gain and dy gain d; where it has one gain, of dy and dy d.
template <class T>
void group_sums(const NormalizationBackward<T>& n, i64 group, double& first, double& second)
{
    first = second = 0;
    if (side_by_side(n.s) && n.gain) {
        for (i64 o = 0; o < n.s.outer; ++o) {
            i64 i = n.s.start(o, group);
            const T* gain = n.gain + n.s.channel(i);
            first += sum_products(n.dy + i, gain, n.s.inner);
            second += sum_products(n.dy + i, gain, n.normalized + i, n.s.inner);
        }
        return;
    }
    Groups s = n.s;
    bool weighted = !s.one && n.gain;
    s.one = !weighted;
    each_run(s, group, [&](i64 i, i64 length, i64 channel) {
        double gain = weighted ? double(n.gain[channel]) : 1;
        first += gain * sum_run(n.dy + i, length);
        second += gain * sum_products(n.dy + i, n.normalized + i, length);
    });
}

constexpr i64 norm_rows = 64;  // of which columns are added up in the precision of the net

// dgain and dbias of gains that several groups have.
template <class T> void spread_slopes(const NormalizationBackward<T>& n)
{
    const Groups& s = n.s;
    i64 rows = s.size() / (s.count * s.spread), share = s.spread == 1 ? norm_columns : 1;
    parallel((s.count + share - 1) / share, [&](i64 part) {
        i64 left = part * share, right = std::min(left + share, s.count);
        double gains[norm_columns] = {}, biases[norm_columns] = {};
        for (i64 r = 0; s.spread > 1 && r < rows; ++r) {
            i64 i = (r * s.count + left) * s.spread;
            gains[0] += sum_products(n.dy + i, n.normalized + i, s.spread);
            biases[0] += sum_run(n.dy + i, s.spread);
        }
        for (i64 r = 0; s.spread == 1 && r < rows;) {
            T some_gains[norm_columns] = {}, some_biases[norm_columns] = {};
            for (i64 stop = std::min(r + norm_rows, rows); r < stop; ++r) {
                i64 i = r * s.count + left;
                for (i64 c = 0; c < right - left; ++c) {
                    some_gains[c] += n.dy[i + c] * n.normalized[i + c];
                    some_biases[c] += n.dy[i + c];
                }
            }
            for (i64 c = 0; c < right - left; ++c) {
                gains[c] += double(some_gains[c]);
                biases[c] += double(some_biases[c]);
            }
        }
        for (i64 c = left; c < right; ++c) {
            if (n.dgain) n.dgain[c] = T(gains[c - left]);
            if (n.dbias) n.dbias[c] = T(biases[c - left]);
        }
    });
}

template <class T> void normalize_backward(const NormalizationBackward<T>& n)
{
    const Groups& s = n.s;
    bool columns = s.inner == 1, own = s.one && (n.dgain || n.dbias);
    i64 share = groups_together(s);
    if (own || n.dx) parallel((s.groups + share - 1) / share, [&](i64 part) {
        i64 left = part * share, right = std::min(left + share, s.groups);
        double firsts[norm_columns] = {}, seconds[norm_columns] = {};
        if (columns)
            for (i64 r = 0; r < s.outer; ++r)
                for (i64 g = left; g < right; ++g) {
                    i64 i = r * s.groups + g;
                    firsts[g - left] += double(n.dy[i]);
                    seconds[g - left] += double(n.dy[i]) * double(n.normalized[i]);
                }
        else
            for (i64 g = left; g < right; ++g) group_sums(n, g, firsts[g - left], seconds[g - left]);
        T starts[norm_columns], slopes[norm_columns], factors[norm_columns];
        for (i64 g = left; g < right; ++g) {
            double first = firsts[g - left], second = seconds[g - left];
            if (s.one) {
                if (n.dgain) n.dgain[g] = T(second);
                if (n.dbias) n.dbias[g] = T(first);
                if (n.gain) {
                    first *= double(n.gain[g]);
                    second *= double(n.gain[g]);
                }
            }
            double divided = n.through ? 1 / double(s.numbers()) : 0;
            starts[g - left] = T(first * divided);
            slopes[g - left] = T(second * divided);
            factors[g - left] = columns && n.gain ? n.gain[g] : T(1);
        }
        for (i64 g = left; g < right && n.dx && !columns; ++g)
            group_dx(n, g, starts[g - left], slopes[g - left]);
        if (columns && n.dx)
            for (i64 r = 0; r < s.outer; ++r)
                for (i64 g = left; g < right; ++g) {
                    i64 i = r * s.groups + g, c = g - left;
                    n.dx[i] = slope_of(
                        n.dy[i] * factors[c], starts[c], n.normalized[i], slopes[c], n.inverse[g]);
                }
    });
    if (!s.one && (n.dgain || n.dbias)) spread_slopes(n);
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
