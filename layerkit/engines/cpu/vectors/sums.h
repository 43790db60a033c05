// Sums of neighbouring numbers.
#pragma once

#include <algorithm>

#include "simd.h"

namespace layerkit {
namespace LAYERKIT_SET {

constexpr i64 summed = 4096;  // numbers that are added up in the precision of the net

// The sum of function(k) of vectors or numbers from 0 to `size`, pieces of it in double precision.
template <class T, class Vectors, class Numbers>
LAYERKIT_INLINE double sum_of(i64 size, const Vectors& vectors, const Numbers& numbers)
{
    constexpr i64 lanes = Simd<T>::lanes;
    double total = 0;
    for (i64 k = 0; k < size;) {
        i64 stop = std::min(k + summed, size);
        Vector<T> a{}, b{};
        for (; k + 2 * lanes <= stop; k += 2 * lanes) {
            a += vectors(k);
            b += vectors(k + lanes);
        }
        T rest = 0;
        for (; k < stop; ++k) rest += numbers(k);
        total += double(sum<T>(a + b)) + double(rest);
    }
    return total;
}

template <class T> double sum_run(const T* x, i64 size)
{
    return sum_of<T>(size, [&](i64 k) { return load(x + k); }, [&](i64 k) { return x[k]; });
}

// The sum of (x - mean)^2.
template <class T> double sum_squares(const T* x, T mean, i64 size)
{
    return sum_of<T>(
        size, [&](i64 k) { Vector<T> d = load(x + k) - mean; return d * d; },
        [&](i64 k) { return (x[k] - mean) * (x[k] - mean); });
}

template <class T> double sum_products(const T* x, const T* y, i64 size)
{
    return sum_of<T>(
        size, [&](i64 k) { return load(x + k) * load(y + k); }, [&](i64 k) { return x[k] * y[k]; });
}

template <class T> double sum_products(const T* x, const T* y, const T* z, i64 size)
{
    return sum_of<T>(
        size, [&](i64 k) { return load(x + k) * load(y + k) * load(z + k); },
        [&](i64 k) { return x[k] * y[k] * z[k]; });
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
