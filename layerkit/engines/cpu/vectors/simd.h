// Vectors of numbers, by the extensions that GCC and Clang share; no intrinsics.
//
// Included once for each instruction set, which says how wide its vectors are (LAYERKIT_VECTOR
// bytes) and how many rows a tile of a product has (LAYERKIT_TILE).
#pragma once

#include <utility>

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

// Keeps a value in a register, where the compiler would else load it for each use.
template <class V> LAYERKIT_INLINE void keep(V& value)
{
#if defined(__x86_64__)
    asm("" : "+v"(value));
#elif defined(__aarch64__)
    asm("" : "+w"(value));
#else
    (void)value;
#endif
}

template <class T> LAYERKIT_INLINE void store(Vector<T> value, T* to)
{
    *reinterpret_cast<typename Simd<T>::loose*>(to) = value;
}

// Adds to each lane the one that is half as many further on as there are left to be added.
template <class T, int Half, int... Lane>
LAYERKIT_INLINE Vector<T> fold(Vector<T> value, std::integer_sequence<int, Lane...>)
{
    return value + __builtin_shufflevector(value, value, (Lane + Half) % Simd<T>::lanes...);
}

template <class T, int Half = Simd<T>::lanes / 2> LAYERKIT_INLINE T sum(Vector<T> value)
{
    if constexpr (Half == 0) return value[0];
    else return sum<T, Half / 2>(
        fold<T, Half>(value, std::make_integer_sequence<int, Simd<T>::lanes>()));
}

// Swaps b's even groups of Step lanes for a's odd ones.
template <class T, int Step, int... Lane>
LAYERKIT_INLINE void exchange(Vector<T>& a, Vector<T>& b, std::integer_sequence<int, Lane...>)
{
    constexpr int lanes = Simd<T>::lanes;
    Vector<T> first = __builtin_shufflevector(a, b, (Lane & Step ? lanes + Lane - Step : Lane)...);
    b = __builtin_shufflevector(a, b, (Lane & Step ? lanes + Lane : Lane + Step)...);
    a = first;
}

// Transposes a square of vectors: squares of Step lanes in squares of twice that.
template <class T, int Step = 1> LAYERKIT_INLINE void transpose(Vector<T>* rows)
{
    constexpr int lanes = Simd<T>::lanes;
    if constexpr (Step < lanes) {
#pragma GCC unroll 16
        for (int n = 0; n < lanes; ++n)
            if (!(n & Step))
                exchange<T, Step>(rows[n], rows[n + Step], std::make_integer_sequence<int, lanes>());
        transpose<T, 2 * Step>(rows);
    }
}

// to[j * to_down + i] = from[i * from_down + j] for rows i and columns j, in squares of vectors.
template <class T>
void turn(const T* from, i64 from_down, i64 rows, i64 columns, T* to, i64 to_down)
{
    constexpr i64 lanes = Simd<T>::lanes;
    i64 whole_rows = rows / lanes * lanes, whole_columns = columns / lanes * lanes;
    for (i64 i = 0; i < whole_rows; i += lanes)
        for (i64 j = 0; j < whole_columns; j += lanes) {
            Vector<T> square[lanes];
#pragma GCC unroll 16
            for (i64 k = 0; k < lanes; ++k) square[k] = load(from + (i + k) * from_down + j);
            transpose<T>(square);
#pragma GCC unroll 16
            for (i64 k = 0; k < lanes; ++k) store<T>(square[k], to + (j + k) * to_down + i);
        }
    for (i64 i = 0; i < rows; ++i)
        for (i64 j = i < whole_rows ? whole_columns : 0; j < columns; ++j)
            to[j * to_down + i] = from[i * from_down + j];
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
