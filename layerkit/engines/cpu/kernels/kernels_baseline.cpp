// Kernels for baseline.

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

#define LAYERKIT_SET baseline
#define LAYERKIT_TABLE baseline_kernels
#define LAYERKIT_VECTOR 16
#define LAYERKIT_TILE 4

#include "kernels.inl"
