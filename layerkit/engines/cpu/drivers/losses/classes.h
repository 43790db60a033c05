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
    // Whether so many places from this one on are `abreast` neighbours in memory.
    bool side_by_side(i64 place, i64 width) const
    {
        return place % after + abreast <= after && width == abreast;
    }
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

// The numbers of up to `abreast` places: those of class c begin at data + c * step.
template <class T> struct Abreast {
    T* data;
    i64 step;

    T* operator[](i64 c) const { return data + c * step; }
};

// Places of x: where they are, or else copied to `space`, where the last one fills up.
template <class T>
Abreast<const T> gather_places(const ClassShape& s, const T* x, i64 place, i64 width, T* space)
{
    if (s.side_by_side(place, width)) return {x + s.first(place), s.after};
    if (s.after == 1) turn(x + s.first(place), s.count, width, s.count, space, abreast);
    for (i64 l = s.after == 1 ? width : 0; l < abreast; ++l) {
        const T* from = x + s.first(place + std::min(l, width - 1));
        for (i64 c = 0; c < s.count; ++c) space[c * abreast + l] = from[c * s.after];
    }
    return {space, abreast};
}

// Room for places of y: in y itself, or else `space`, from which `scatter_places` brings them there.
template <class T>
Abreast<T> room_for_places(const ClassShape& s, T* y, i64 place, i64 width, T* space)
{
    if (s.side_by_side(place, width)) return {y + s.first(place), s.after};
    return {space, abreast};
}

template <class T>
void scatter_places(const ClassShape& s, const Abreast<T>& from, i64 place, i64 width, T* y)
{
    if (s.side_by_side(place, width)) return;
    if (s.after == 1) return turn(from.data, abreast, s.count, width, y + s.first(place), s.count);
    for (i64 l = 0; l < width; ++l) {
        T* to = y + s.first(place + l);
        for (i64 c = 0; c < s.count; ++c) to[c * s.after] = from[c][l];
    }
}

// The exponentials of x less the largest of each place, and their sums.
template <class T>
void exponentials(i64 count, const Abreast<const T>& x, const Abreast<T>& e, T* largest, T* total)
{
    T most[abreast], sums[abreast] = {};
    std::copy(x[0], x[0] + abreast, most);
    for (i64 c = 1; c < count; ++c) {
        const T* from = x[c];
        for (i64 l = 0; l < abreast; ++l) most[l] = from[l] > most[l] ? from[l] : most[l];
    }
    for (i64 c = 0; c < count; ++c) {
        const T* from = x[c];
        T* to = e[c];
#pragma GCC ivdep
        for (i64 l = 0; l < abreast; ++l) {
            T value = exp_of_negative(from[l] - most[l]);
            to[l] = value;
            sums[l] += value;
        }
    }
    std::copy(most, most + abreast, largest);
    std::copy(sums, sums + abreast, total);
}

// Folds `abreast` numbers, two at a time, into the first.
template <class T, class Function> T folded(T* numbers, const Function& function)
{
    for (i64 half = abreast / 2; half > 0; half /= 2)
        for (i64 l = 0; l < half; ++l) numbers[l] = function(numbers[l], numbers[l + half]);
    return numbers[0];
}

// A place with so many neighbouring classes is worked on by itself, `abreast` classes at a time.
constexpr i64 long_row = 2 * abreast;

template <class T> void softmax_row(i64 count, const T* x, T* y)
{
    T most[abreast], sums[abreast] = {};
    std::copy(x, x + abreast, most);
    i64 last = count - abreast;  // where the last classes begin, some of which were met before
    for (i64 c = abreast; c < count; c += abreast) {
        const T* from = x + std::min(c, last);
        for (i64 l = 0; l < abreast; ++l) most[l] = from[l] > most[l] ? from[l] : most[l];
    }
    T largest = folded(most, [](T a, T b) { return a > b ? a : b; });
    for (i64 c = 0; c < count; c += abreast) {
        i64 at = std::min(c, last), met = c - at;
        const T* from = x + at;
        T* to = y + at;
#pragma GCC ivdep
        for (i64 l = 0; l < abreast; ++l) {
            T value = exp_of_negative(from[l] - largest);
            to[l] = value;
            sums[l] += l < met ? T(0) : value;
        }
    }
    T share = 1 / folded(sums, [](T a, T b) { return a + b; });
    for (i64 c = 0; c < count; ++c) y[c] *= share;
}

template <class T> void softmax(const ClassShape& s, const T* x, T* y)
{
    s.by_groups([&](i64 place, i64 width) {
        if (s.after == 1 && s.count >= long_row) {
            for (i64 p = place; p < place + width; ++p)
                softmax_row(s.count, x + p * s.count, y + p * s.count);
            return;
        }
        T* space = work_space<struct OfLogits, T>(2 * s.count * abreast);
        Abreast<const T> z = gather_places(s, x, place, width, space);
        Abreast<T> e = room_for_places(s, y, place, width, space + s.count * abreast);
        T largest[abreast], total[abreast];
        exponentials(s.count, z, e, largest, total);
        for (i64 l = 0; l < abreast; ++l) total[l] = 1 / total[l];
        for (i64 c = 0; c < s.count; ++c) {
            T* to = e[c];
            for (i64 l = 0; l < abreast; ++l) to[l] *= total[l];
        }
        scatter_places(s, e, place, width, y);
    });
}

// dx = y (dy - the sum over classes of dy y)
template <class T> void softmax_row_backward(i64 count, const T* y, const T* dy, T* dx)
{
    T sums[abreast] = {};
    i64 whole = count / abreast * abreast;
    for (i64 c = 0; c < whole; c += abreast)
        for (i64 l = 0; l < abreast; ++l) sums[l] += dy[c + l] * y[c + l];
    for (i64 c = whole; c < count; ++c) sums[c - whole] += dy[c] * y[c];
    T total = folded(sums, [](T a, T b) { return a + b; });
#pragma GCC ivdep
    for (i64 c = 0; c < count; ++c) dx[c] = y[c] * (dy[c] - total);
}

template <class T> void softmax_backward(const ClassShape& s, const T* y, const T* dy, T* dx)
{
    s.by_groups([&](i64 place, i64 width) {
        if (s.after == 1 && s.count >= long_row) {
            for (i64 i = place * s.count; i < (place + width) * s.count; i += s.count)
                softmax_row_backward(s.count, y + i, dy + i, dx + i);
            return;
        }
        i64 size = s.count * abreast;
        T *space = work_space<struct OfLogits, T>(3 * size), total[abreast] = {};
        Abreast<const T> p = gather_places(s, y, place, width, space);
        Abreast<const T> d = gather_places(s, dy, place, width, space + size);
        Abreast<T> to = room_for_places(s, dx, place, width, space + 2 * size);
        for (i64 c = 0; c < s.count; ++c) {
            const T *one = p[c], *other = d[c];
            for (i64 l = 0; l < abreast; ++l) total[l] += other[l] * one[l];
        }
        for (i64 c = 0; c < s.count; ++c) {
            const T *one = p[c], *other = d[c];
            T* here = to[c];
#pragma GCC ivdep
            for (i64 l = 0; l < abreast; ++l) here[l] = one[l] * (other[l] - total[l]);
        }
        scatter_places(s, to, place, width, dx);
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
        Abreast<const T> soft = gather_places(o.s, elements<T>(o.label), place, width, target);
        for (i64 c = 0; c < count && soft.data != target; ++c)
            std::copy(soft[c], soft[c] + abreast, target + c * abreast);
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
        i64 size = count * abreast;
        T *space = work_space<struct OfLogits, T>(3 * size), *target = space + 2 * size;
        Abreast<const T> z = gather_places(o.s, o.logits, place, width, space);
        Abreast<T> e = {space + size, abreast};
        if (o.dlogits) e = room_for_places(o.s, o.dlogits, place, width, space + size);
        T largest[abreast], total[abreast], whole[abreast] = {}, terms[abreast] = {};
        T factor[abreast], scale[abreast], logarithm[abreast];
        exponentials(count, z, e, largest, total);
        softmax_targets(o, place, width, target, factor);
        for (i64 l = 0; l < abreast; ++l)
            scale[l] = o.scale ? o.scale[(place + std::min(l, width - 1)) / each] : T(0);
        for (i64 l = 0; l < abreast; ++l) logarithm[l] = log_of(total[l]);
        for (i64 c = 0; c < count; ++c) {
            const T *from = z[c], *aim = target + c * abreast;
            for (i64 l = 0; l < abreast; ++l) {
                T term = aim[l] * (logarithm[l] - (from[l] - largest[l]));
                terms[l] += aim[l] != 0 ? term : T(0);  // p may be 0
                whole[l] += aim[l];
            }
        }
        for (i64 l = 0; l < width; ++l) losses[place + l] = double(terms[l]);
        if (o.dlabel) {
            T* own = work_space<struct OfLabels, T>(size);
            Abreast<T> d = room_for_places(o.s, o.dlabel, place, width, own);
            for (i64 c = 0; c < count; ++c) {
                const T* from = z[c];
                T *to = d[c], weight = T(1 - o.smoothing);
                if (o.weights.size()) weight *= T(number_at(o.weights, c));
#pragma GCC ivdep
                for (i64 l = 0; l < abreast; ++l)
                    to[l] = weight * scale[l] * factor[l] * (logarithm[l] - (from[l] - largest[l]));
            }
            scatter_places(o.s, d, place, width, o.dlabel);
        }
        if (!o.dlogits) return;
        for (i64 l = 0; l < abreast; ++l) whole[l] /= total[l];
        for (i64 c = 0; c < count; ++c) {
            const T* aim = target + c * abreast;
            T* to = e[c];
#pragma GCC ivdep
            for (i64 l = 0; l < abreast; ++l) to[l] = scale[l] * (to[l] * whole[l] - aim[l]);
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
