// Kernels for avx2.

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

#pragma GCC target("avx2,fma,bmi2")

#define LAYERKIT_SET avx2
#define LAYERKIT_TABLE avx2_kernels
#define LAYERKIT_VECTOR 32
#define LAYERKIT_TILE 4

#include "kernels.inl"
