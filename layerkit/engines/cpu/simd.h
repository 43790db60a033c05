// Vectors of numbers, by the extensions that GCC and Clang share; no intrinsics.
//
// Included once for each instruction set, which says how wide its vectors are (LAYERKIT_VECTOR
// bytes) and how many rows a tile of a product has (LAYERKIT_TILE).
#pragma once

#include "array.h"

#define LAYERKIT_INLINE inline __attribute__((always_inline))

namespace layerkit {
namespace LAYERKIT_SET {

template <class T> struct Simd {
    static constexpr int lanes = LAYERKIT_VECTOR / sizeof(T);
    typedef T type __attribute__((vector_size(LAYERKIT_VECTOR)));
    typedef T loose __attribute__((vector_size(LAYERKIT_VECTOR), aligned(sizeof(T)), may_alias));
};

template <class T> using Vector = typename Simd<T>::type;

template <class T> LAYERKIT_INLINE Vector<T> load(const T* from)
{
    return *reinterpret_cast<const typename Simd<T>::loose*>(from);
}

template <class T> LAYERKIT_INLINE void store(Vector<T> value, T* to)
{
    *reinterpret_cast<typename Simd<T>::loose*>(to) = value;
}

template <class T> LAYERKIT_INLINE T sum(Vector<T> value)
{
    T parts[Simd<T>::lanes];
    store<T>(value, parts);
    for (int half = Simd<T>::lanes / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) parts[i] += parts[i + half];
    return parts[0];
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
