// Kernels for avx512.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "../vectors/array.h"
#include "kernels.h"
#include "../threads/pool.h"

#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,fma,bmi2,prefer-vector-width=512")

#define LAYERKIT_SET avx512
#define LAYERKIT_TABLE avx512_kernels
#define LAYERKIT_VECTOR 64
#define LAYERKIT_TILE 4

#include "kernels.inl"
