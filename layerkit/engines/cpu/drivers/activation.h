// Activations over flat arrays.
#pragma once

#include "../vectors/formulas.h"
#include "../threads/pool.h"

namespace layerkit {
namespace LAYERKIT_SET {

#define LAYERKIT_NAME(name) #name " "
constexpr const char* activation_names = ACTIVATIONS(LAYERKIT_NAME);  // in the order of their numbers
#undef LAYERKIT_NAME

// function(activation) with the one of this number.
template <class T, class Function>
LAYERKIT_INLINE void with_activation(int kind, T setting, Function&& function)
{
    int number = 0;
#define LAYERKIT_TRY(name) \
    if (kind == number++) return function(name<T>(setting));
    ACTIVATIONS(LAYERKIT_TRY)
#undef LAYERKIT_TRY
    expect(false);
}

// y = a(x), which may be one array.
template <class T> void activate(int kind, T setting, const T* x, T* y, i64 size)
{
    with_activation<T>(kind, setting, [&](auto activation) {
        constexpr i64 piece = 8192;
        parallel((size + piece - 1) / piece, [&](i64 p) {
            i64 stop = std::min((p + 1) * piece, size);
#pragma GCC ivdep
            for (i64 i = p * piece; i < stop; ++i) y[i] = activation.value(x[i]);
        });
    });
}

// dx = dy a'(x), told from y or x; any of the arrays may be another.
template <class T>
void differentiate(int kind, T setting, const T* known, const T* dy, T* dx, i64 size)
{
    with_activation<T>(kind, setting, [&](auto activation) {
        constexpr i64 piece = 8192;
        parallel((size + piece - 1) / piece, [&](i64 p) {
            i64 stop = std::min((p + 1) * piece, size);
#pragma GCC ivdep
            for (i64 i = p * piece; i < stop; ++i) dx[i] = activation.gradient(known[i], dy[i]);
        });
    });
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
