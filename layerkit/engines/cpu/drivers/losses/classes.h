// Softmax, its loss, and accuracy: places, each of which has one number for every class.
#pragma once

#include <algorithm>
#include <cmath>

#include "../../vectors/formulas.h"
#include "../../vectors/simd.h"
#include "../../threads/pool.h"

namespace layerkit {
namespace LAYERKIT_SET {

constexpr i64 abreast = 16;  // places that are worked on together, in vectors of them

// Arrays (outer, count, after) with the classes along the middle axis.
struct ClassShape {
    i64 outer, count, after;

    i64 places() const { return outer * after; }
    i64 first(i64 place) const { return place / after * count * after + place % after; }
    // function(number of the first place, how many) for groups of places, shared among the threads.
    template <class Function> void by_groups(Function&& function) const
    {
        i64 width = std::max<i64>(8192 / (count * abreast), 1) * abreast, all = places();
        parallel((all + width - 1) / width, [&](i64 piece) {
            i64 stop = std::min((piece + 1) * width, all);
            for (i64 p = piece * width; p < stop; p += abreast)
                function(p, std::min(abreast, stop - p));
        });
    }
};

// The numbers of up to `abreast` places side by side, class by class; the last place fills up.
template <class T> void gather_places(const ClassShape& s, const T* x, i64 place, i64 width, T* to)
{
    if (place % s.after + abreast <= s.after && width == abreast) {  // which are neighbours
        const T* from = x + s.first(place);
        for (i64 c = 0; c < s.count; ++c)
            for (i64 l = 0; l < abreast; ++l) to[c * abreast + l] = from[c * s.after + l];
        return;
    }
    if (s.after == 1) turn(x + s.first(place), s.count, width, s.count, to, abreast);
    for (i64 l = s.after == 1 ? width : 0; l < abreast; ++l) {
        const T* from = x + s.first(place + std::min(l, width - 1));
        for (i64 c = 0; c < s.count; ++c) to[c * abreast + l] = from[c * s.after];
    }
}

template <class T>
void scatter_places(const ClassShape& s, const T* from, i64 place, i64 width, T* y)
{
    if (place % s.after + abreast <= s.after && width == abreast) {
        T* to = y + s.first(place);
        for (i64 c = 0; c < s.count; ++c)
            for (i64 l = 0; l < abreast; ++l) to[c * s.after + l] = from[c * abreast + l];
        return;
    }
    if (s.after == 1) return turn(from, abreast, s.count, width, y + s.first(place), s.count);
    for (i64 l = 0; l < width; ++l) {
        T* to = y + s.first(place + l);
        for (i64 c = 0; c < s.count; ++c) to[c * s.after] = from[c * abreast + l];
    }
}

// z less the largest of each place; its exponentials go to `e`, their sums to `total`.
template <class T> void exponentials(i64 count, T* z, T* e, T* total)
{
    T largest[abreast];
    std::copy(z, z + abreast, largest);
    for (i64 c = 1; c < count; ++c)
        for (i64 l = 0; l < abreast; ++l)
            largest[l] = z[c * abreast + l] > largest[l] ? z[c * abreast + l] : largest[l];
    std::fill(total, total + abreast, T(0));
    for (i64 c = 0; c < count; ++c)
        for (i64 l = 0; l < abreast; ++l) {
            i64 i = c * abreast + l;
            z[i] -= largest[l];
            e[i] = exp_of(z[i]);
            total[l] += e[i];
        }
}

template <class T> void softmax(const ClassShape& s, const T* x, T* y)
{
    s.by_groups([&](i64 place, i64 width) {
        T* z = work_space<struct OfLogits, T>(2 * s.count * abreast);
        T *e = z + s.count * abreast, total[abreast];
        gather_places(s, x, place, width, z);
        exponentials(s.count, z, e, total);
        for (i64 c = 0; c < s.count; ++c)
            for (i64 l = 0; l < abreast; ++l) e[c * abreast + l] /= total[l];
        scatter_places(s, e, place, width, y);
    });
}

// dx = y (dy - the sum over classes of dy y)
template <class T> void softmax_backward(const ClassShape& s, const T* y, const T* dy, T* dx)
{
    s.by_groups([&](i64 place, i64 width) {
        T* p = work_space<struct OfLogits, T>(2 * s.count * abreast);
        T *d = p + s.count * abreast, total[abreast] = {};
        gather_places(s, y, place, width, p);
        gather_places(s, dy, place, width, d);
        for (i64 c = 0; c < s.count; ++c)
            for (i64 l = 0; l < abreast; ++l) total[l] += d[c * abreast + l] * p[c * abreast + l];
        for (i64 c = 0; c < s.count; ++c)
            for (i64 l = 0; l < abreast; ++l)
                d[c * abreast + l] = p[c * abreast + l] * (d[c * abreast + l] - total[l]);
        scatter_places(s, d, place, width, dx);
    });
}

// The class that a label names, -1 for one that is ignored; any other is refused.
inline i64 class_of(double label, i64 count, double ignored)
{
    if (label == ignored) return -1;
    expect_good(label >= 0 && label < double(count) && label == std::floor(label));
    return i64(label);
}

// Pointers that are null are not there, or not wanted.
template <class T> struct SoftmaxLoss {
    ClassShape s;
    i64 examples;
    const T* logits;
    Array label, importance, weights;
    double ignored, smoothing;
    bool soft, checked;
    const T* scale;
    T *loss, *dlogits, *dlabel;
};

constexpr double sum_error = 1e-3;  // by which soft labels may miss the sum 1

// v w_c q'_c of each class and place; see SoftmaxLoss.
template <class T>
void softmax_targets(const SoftmaxLoss<T>& o, i64 place, i64 width, T* target, T* factor)
{
    i64 count = o.s.count, each = o.s.places() / o.examples;
    bool one = o.importance.size() == o.examples;
    T keep = T(1 - o.smoothing), spread = T(o.smoothing / double(count));
    if (o.soft) {
        gather_places(o.s, elements<T>(o.label), place, width, target);
        for (i64 l = 0; l < width && o.checked; ++l) {
            double total = 0;
            bool good = true;
            for (i64 c = 0; c < count; ++c) {
                good = good && target[c * abreast + l] >= 0;
                total += double(target[c * abreast + l]);
            }
            expect_good(good && std::fabs(total - 1) <= sum_error);
        }
    } else {
        std::fill(target, target + count * abreast, T(0));
    }
    i64 named[abreast];
    for (i64 l = 0; l < abreast; ++l) {
        i64 p = place + std::min(l, width - 1);
        named[l] = o.soft ? 0 : class_of(number_at(o.label, p), count, o.ignored);
        if (!o.soft && named[l] >= 0) target[named[l] * abreast + l] = T(1);
        factor[l] = o.importance.size() ? T(number_at(o.importance, one ? p / each : p)) : T(1);
        if (named[l] < 0) factor[l] = 0;
    }
    for (i64 c = 0; c < count; ++c) {
        T weight = o.weights.size() ? T(number_at(o.weights, c)) : T(1);
        for (i64 l = 0; l < abreast; ++l) {
            T& t = target[c * abreast + l];
            t = (keep * t + spread) * (weight * factor[l]);
        }
    }
}

template <class T> void softmax_loss(const SoftmaxLoss<T>& o)
{
    i64 count = o.s.count, each = o.s.places() / o.examples;
    double* losses = work_space<struct OfPlaces, double>(o.s.places());
    o.s.by_groups([&](i64 place, i64 width) {
        T* z = work_space<struct OfLogits, T>(3 * count * abreast);
        T *e = z + count * abreast, *target = e + count * abreast;
        T total[abreast], whole[abreast] = {}, terms[abreast] = {}, factor[abreast], scale[abreast];
        gather_places(o.s, o.logits, place, width, z);
        exponentials(count, z, e, total);
        softmax_targets(o, place, width, target, factor);
        for (i64 l = 0; l < abreast; ++l)
            scale[l] = o.scale ? o.scale[(place + std::min(l, width - 1)) / each] : T(0);
        T logarithm[abreast];
        for (i64 l = 0; l < abreast; ++l) logarithm[l] = log_of(total[l]);
        for (i64 c = 0; c < count; ++c)
            for (i64 l = 0; l < abreast; ++l) {
                i64 i = c * abreast + l;
                T term = target[i] * (logarithm[l] - z[i]);
                terms[l] += target[i] != 0 ? term : T(0);  // p may be 0
                whole[l] += target[i];
            }
        for (i64 l = 0; l < width; ++l) losses[place + l] = double(terms[l]);
        if (o.dlabel) {
            T* d = target;
            if (o.dlogits) d = work_space<struct OfLabels, T>(count * abreast);
            for (i64 c = 0; c < count; ++c) {
                T weight = T(1 - o.smoothing);
                if (o.weights.size()) weight *= T(number_at(o.weights, c));
                for (i64 l = 0; l < abreast; ++l)
                    d[c * abreast + l] = weight * scale[l] * factor[l]
                        * (logarithm[l] - z[c * abreast + l]);
            }
            scatter_places(o.s, d, place, width, o.dlabel);
        }
        if (!o.dlogits) return;
        for (i64 c = 0; c < count; ++c)
            for (i64 l = 0; l < abreast; ++l) {
                i64 i = c * abreast + l;
                e[i] = scale[l] * (e[i] / total[l] * whole[l] - target[i]);
            }
        scatter_places(o.s, e, place, width, o.dlogits);
    });
    for (i64 row = 0; row < o.examples; ++row) {
        double sum = 0;
        for (i64 p = row * each; p < (row + 1) * each; ++p) sum += losses[p];
        o.loss[row] = T(sum);
    }
}

// The share of an example's labels whose logit is one of the `top` largest; see Accuracy.
template <class T>
void accuracy(
    const ClassShape& s, i64 examples, const T* logits, const Array& label, double ignored, i64 top,
    T* value)
{
    i64 each = s.places() / examples;
    double counted = 0;
    for (i64 p = 0; p < s.places(); ++p) counted += number_at(label, p) != ignored;
    i64 piece = std::max<i64>(16384 / (each * s.count), 1);
    parallel((examples + piece - 1) / piece, [&](i64 i) {
        for (i64 row = i * piece; row < std::min((i + 1) * piece, examples); ++row) {
            i64 right = 0;
            for (i64 p = row * each; p < (row + 1) * each; ++p) {
                i64 named = class_of(number_at(label, p), s.count, ignored);
                if (named < 0) continue;
                const T* x = logits + s.first(p);
                T own = x[named * s.after];
                i64 above = 0;
                for (i64 c = 0; c < s.count; ++c) above += !(x[c * s.after] < own);
                right += above <= top;
            }
            value[row] = T(double(right) / (counted / double(examples)));
        }
    });
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
