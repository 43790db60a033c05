// Solvers' updates over flat arrays.
#pragma once

#include <cstddef>
#include <type_traits>
#include <vector>

#include "../vectors/formulas.h"
#include "../threads/pool.h"

namespace layerkit {
namespace LAYERKIT_SET {

enum UpdateKind { no_update = 0, adam_update = 1, momentum_update = 2, rms_update = 3 };

template <class T, class Update>
LAYERKIT_INLINE void apply(
    const Update& update, i64 size, const T* __restrict g, T* __restrict w, T* __restrict first,
    T* __restrict second)
{
    for (i64 i = 0; i < size; ++i) update(g[i], w[i], first[i], second[i]);
}

// A history only where the solver has one: `second` may be `first` again.
template <class T, class Update>
LAYERKIT_INLINE void apply_with_one(
    const Update& update, i64 size, const T* __restrict g, T* __restrict w, T* __restrict first)
{
    T unused = 0;
    for (i64 i = 0; i < size; ++i) update(g[i], w[i], first[i], unused);
}
template <class T>
LAYERKIT_INLINE void apply(
    const MomentumUpdate<T>& update, i64 size, const T* g, T* w, T* first, T*)
{
    apply_with_one(update, size, g, w, first);
}
template <class T>
LAYERKIT_INLINE void apply(const RmsUpdate<T>& update, i64 size, const T* g, T* w, T* first, T*)
{
    apply_with_one(update, size, g, w, first);
}

// function(update) with the solver's update of this kind, or nullptr.
template <class T, class Function>
LAYERKIT_INLINE void with_update(int kind, const double* constants, Function&& function)
{
    if (kind == adam_update) function(AdamUpdate<T>(constants));
    else if (kind == momentum_update) function(MomentumUpdate<T>(constants));
    else if (kind == rms_update) function(RmsUpdate<T>(constants));
    else function(nullptr);
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
